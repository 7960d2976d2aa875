// Package conntrackdconf reads conntrackd.conf and writes what it says as
// pipelines of Sluice.
//
// Parse makes a tree of a file, with the position of every word and with its
// comments. It knows the grammar of conntrackd 1.4 and that of its early
// releases (McastSndSocketBuffer, CacheWriteThrough, Checksum in Sync, …), and
// reports everything that is wrong at once, as diagnostics of HCL.
//
// Convert makes HCL of the tree: a runner block, a pipeline "local" that sends
// this node's flows, and a pipeline "peers" that keeps those of the others.
// Comments go along with what they explain. A directive without a counterpart
// is kept as a comment, and named in a diagnostic that says what to do instead.
//
// What becomes of each directive stands in one place, the table in
// directives.go: the parser takes the syntax from it, the converter what to do,
// and docs/migration.md is checked against it.
//
// The package reads no file but what it is given, and does not look at the
// machine it runs on: the result is for whatever firewall the file is from.
package conntrackdconf
