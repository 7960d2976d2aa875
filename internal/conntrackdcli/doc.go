// Package conntrackdcli is the command line and the text of conntrackd, for
// `sluice conntrackd` and the link named conntrackd.
//
// Parse reads a command line as conntrackd 1.4.7 does. Client carries a command
// out on a Sluice runner through its socket, and writes what conntrackd would:
//
//	argv ── Parse ── Options ── Client ── core/control ── the runner
//	                              └── dumps and statistics as text or XML
//
// Headings, the order of lines, column widths and exit statuses are those of
// conntrackd, found by running it; scripts read them. What a number means comes
// from the runner's statistics. Where Sluice has no such thing, it is 0.
//
// The package starts no daemon and reads no configuration: cmd/sluice does, and
// internal/conntrackdconf. It knows the names of the pipelines that the latter
// writes, "local", "peers" and "stats".
package conntrackdcli
