// Package docs tests what the project says about itself, and the rules that
// hold for the whole repository. It has tests alone.
//
//   - plugin: the programs of docs/plugins.md are built as their page says and
//     run in a pipeline of the real binary, between two firewalls.
//   - references: links lead somewhere; commands, flags and make targets that
//     the pages name exist; so do the files and identifiers, and constants have
//     the values that are written beside them.
//   - statistics: docs/operations.md has every number of every plugin. Its
//     table is made from the code: go test ./test/docs -run Statistics -update.
//   - repository: who may import whom; no path of anybody's machine.
//
// Snippets of pipelines are tested in package pipelines, and the generated
// reference of docs/pipelines.md in internal/docgen.
package docs
