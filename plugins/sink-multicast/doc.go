// Package sinkmulticast is the bundled plugin sink "multicast": it sends flows
// to the other nodes of a multicast group in conntrackd's NOTRACK format.
//
// It stands at the end of a pipeline below a cache, since a message must hold
// the whole flow, and is the only transmitter of its node on the group: it
// numbers every message, answers for the node's life every second of silence,
// makes the node known now and then, and carries the requests by which this
// node asks the others for all they have.
//
// A batch becomes datagrams of the link's size, which go out with one system
// call. Marks of a replay go along as Sluice's extension, the end only if all
// that was replayed was sent, since a peer sweeps by it. Nothing is ever sent
// twice: when messages are lost here, the runner is told and the cache above
// replays. Pacing of replays is the cache's work too.
//
// The codec is internal/notrack. config.go is the block, sink.go turns batches
// into messages, socket.go sends them, link.go watches the interface.
package sinkmulticast
