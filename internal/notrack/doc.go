// Package notrack is the wire codec of conntrackd's NOTRACK mode, and of the
// extension by which Sluice nodes tell each other what that format can't say.
// docs/wire.md describes both byte by byte.
//
// Sending goes Encoder -> Packer: an Encoder turns a merged flow.Event, of a
// flow or an expectation, into a message (and, for the few that need one, the
// extension right behind it), a Packer fills datagrams to the room of the link and numbers every
// message with its Sequencer. Receiving goes Decoder -> Tracker: a Decoder
// walks one datagram and yields its messages, refusing what conntrackd 1.4.7
// refuses and counting it by cause, and shows each sequence number to the
// Tracker of the sender.
//
// Everything here is a function of its inputs: no sockets, no clocks, no
// goroutines. sink-multicast and source-multicast bring those. After the first
// few datagrams neither direction allocates.
//
// What a message decodes to is what its sender knew. Conflicts between live
// and replayed messages, owners and merging are the cache's work.
package notrack
