// Package sourceudp is the bundled plugin source "udp": it receives what single
// peers send to this node in conntrackd's NOTRACK format, as conntrackd's UDP
// channel does, and makes batches of it.
//
// It stands where source "multicast" would, where there is no multicast. Owners,
// marks and what the runner is told are the same.
//
// All but the socket is internal/synclink's Receiver.
package sourceudp
