// Package synclink is what the sinks and sources that talk to other nodes have
// in common, whatever carries their messages: multicast, UDP or TCP.
//
// A Transmitter is a sink. It turns batches into messages of the NOTRACK format
// (internal/notrack), packs and numbers them, says that the node lives and what
// its name is, asks peers for all they have, and tells the runner when messages
// were lost here. A Receiver is a source: it knows the peers by their addresses,
// follows their sequences, makes batches of what they send, and tells the runner
// what is missing, who asks for everything, and who went silent.
//
// Both know several links, one of which a Transmitter uses at a time. They hear
// of interfaces and addresses that come and go from the kernel (rtnetlink) and
// act at once: see Transmitter.choose.
//
// How bytes get to a link and from it is an Outlet or an Inlet. Those of
// datagrams are here (DatagramOutlet, DatagramInlet), around sockets that a
// plugin opens; the plugin's folder has besides no more than its configuration.
// Sending and Receiving are the attributes that all those plugins have.
package synclink
