// Package sinktcp is the bundled plugin sink "tcp": it sends flows to single
// peers in conntrackd's NOTRACK format, as conntrackd's TCP channel does.
//
// It stands where sink "udp" would, where datagrams don't get through, or get
// lost too often. Peers that are not connected, or do not take what they are
// sent, never hold up the pipeline for long: they miss it, and are sent
// everything again when they are back.
//
// All but the connections is internal/synclink's Transmitter. Here are the block
// (config.go), the link (socket.go) and the connection to one peer (peer.go).
package sinktcp
