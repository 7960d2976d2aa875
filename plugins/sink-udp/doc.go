// Package sinkudp is the bundled plugin sink "udp": it sends flows to single
// peers in conntrackd's NOTRACK format, as conntrackd's UDP channel does.
//
// It stands where sink "multicast" would, where there is no multicast, as in
// clouds: at the end of a pipeline below a cache, the only transmitter of its
// node on its links. Every peer is sent the same datagrams.
//
// All but the sockets is internal/synclink's Transmitter. Here are the block
// (config.go) and the sockets (socket.go).
package sinkudp
