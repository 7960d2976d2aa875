// Package pipeline turns an administrator's HCL into a checked graph of stages,
// or into diagnostics that point at file, line and column.
//
// Load reads files and directories, evaluates variables, locals and functions,
// decodes the runner block, and asks the plugin behind every stage (through a
// Catalog) for its schema and for its opinion on the block. What the plugin
// finds wrong comes back as a path into its configuration; Load finds the
// expression there, down to the element of a list. Then the pipelines are
// checked as a whole: the order of stages, scopes, links and who writes to the
// kernel. As much as possible is found at once, not the first error alone.
//
// The result is pure data: a Stage's configuration is canonical JSON, so that
// two loads can be compared. Files are read and, if asked for, the environment;
// nothing else is touched and no privilege is needed. Processes are the
// runner's work: it brings the Catalog that starts plugins to ask them. Local
// makes one from plugins that are linked in.
//
// Format is the canonical layout of pipeline files; WriteText and WriteJSON
// show diagnostics to people and to programs.
package pipeline
