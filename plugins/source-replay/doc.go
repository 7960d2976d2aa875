// Package sourcereplay is the bundled plugin source "replay": it sends the events of
// a file that `sluice record` wrote, as they came, faster, or as fast as the
// pipeline takes them.
//
// It stands where source netlink or source multicast stood when the file was
// recorded: to try a pipeline with real traffic, to see a fault again, to measure.
// Recorded replays are sent as live updates, since they are nobody's dump now.
//
// The flows that it has sent the begin of, and not the end, it remembers (state.go),
// so that it can answer a request for a replay as the kernel's table would. It
// reads its file and nothing else.
package sourcereplay
