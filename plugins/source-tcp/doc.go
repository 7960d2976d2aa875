// Package sourcetcp is the bundled plugin source "tcp": it receives what single
// peers send to this node over connections that they make, in conntrackd's
// NOTRACK format, as conntrackd's TCP channel does, and makes batches of it.
//
// It stands where source "udp" would. While the stage below takes nothing,
// nothing is read, and the peers' sinks see to it that this holds up nobody.
//
// All but the sockets is internal/synclink's Receiver; what tells messages of a
// stream apart is notrack.Stream.
package sourcetcp
