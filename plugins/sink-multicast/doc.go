// Package sinkmulticast is the bundled plugin sink "multicast": it sends flows
// to the other nodes of a multicast group in conntrackd's NOTRACK format.
//
// It stands at the end of a pipeline below a cache, since a message must hold
// the whole flow, and is the only transmitter of its node on the group: it
// numbers every message, answers for the node's life every second of silence,
// makes the node known now and then, and carries the requests by which this
// node asks the others for all they have.
//
// All of that is internal/synclink's Transmitter. Here are the block (config.go)
// and the socket (socket.go).
package sinkmulticast
