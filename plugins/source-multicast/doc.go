// Package sourcemulticast is the bundled plugin source "multicast": it receives
// what the other nodes of a multicast group send in conntrackd's NOTRACK format
// and makes batches of it.
//
// It stands at the head of the pipeline that holds the peers' flows. Every
// batch is of one owner, the peer's address on the link, and of one replay or
// none. The peer's marks pass with its own replay ids; a conntrackd sends none.
//
// The source asks for nothing itself: it signals that messages of a peer are
// missing, that a peer asks for all that this node has, that a peer came or
// went silent, and the runner decides. To be replayed it is asked through the
// sink on the same group. One kind of replay it serves itself: the barrier
// (flow.SyncKeep), a pair of marks behind all that had been received before.
//
// Silence of a peer never sweeps anything, and no datagram, however damaged,
// ends the process.
//
// The codec is internal/notrack. config.go is the block, socket.go and
// receive.go get datagrams, source.go runs the loop, peers.go knows the nodes.
package sourcemulticast
