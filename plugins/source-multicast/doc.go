// Package sourcemulticast is the bundled plugin source "multicast": it receives
// what the other nodes of a multicast group send in conntrackd's NOTRACK format
// and makes batches of it.
//
// It stands at the head of the pipeline that holds the peers' flows. Every
// batch is of one owner, the peer's address on the link, and of one replay or
// none. The peer's marks pass with its own replay ids; a conntrackd sends none.
//
// All of that is internal/synclink's Receiver. Here are the block (config.go)
// and the socket (socket.go).
package sourcemulticast
