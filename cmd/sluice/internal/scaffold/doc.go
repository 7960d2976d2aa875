// Package scaffold writes the folder that a vendor's plugin begins with: a Go
// module with a small plugin that works, its tests, a pipeline to try it in, a
// README and a workflow for continuous integration.
//
// The files are templates (templates/all for every kind, templates/KIND for one);
// Go files are formatted when they are written. The package knows nothing of the
// command line, and starts nothing: `sluice plugin init` says what comes next.
package scaffold
