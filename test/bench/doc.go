// Bench compares what Sluice costs with what conntrackd costs, on this machine,
// in this run: `make bench`.
//
// Every figure is measured for both systems in turn, several rounds, after a
// warm-up, and given as the median with its spread. The two nodes and the
// traffic are network namespaces of this machine; processes, packets and the
// kernel's tables are real. CPU is user and system time of all processes of a
// node, read from /proc before and after the load. conntrackd runs as installed,
// thus under the real-time scheduler that it gives itself: it then wakes for
// nearly every event. Under the ordinary one it is cheaper and later.
//
// A measurement hands its values to a result; tables, text and pictures are made
// of results alone, so `-draw result.json` makes them anew without measuring.
// The plotting library is linked here and nowhere else.
//
// It is a program and no test: nothing passes or fails by a duration.
package main
