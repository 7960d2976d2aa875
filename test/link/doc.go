// Package link tests the transports between nodes on the real kernel: the sinks
// and sources of every one against each other and against a real conntrackd,
// and several links of which one takes over from the other.
package link
