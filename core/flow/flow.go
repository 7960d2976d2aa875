package flow

import (
	"net/netip"
)

// Address families of a flow, with the kernel's values (linux/socket.h).
const (
	IPv4 uint8 = 2  // AF_INET
	IPv6 uint8 = 10 // AF_INET6
)

// Layer-4 protocols that have attributes of their own here (linux/in.h).
const (
	ICMP    uint8 = 1
	TCP     uint8 = 6
	UDP     uint8 = 17
	DCCP    uint8 = 33
	GRE     uint8 = 47
	ICMPv6  uint8 = 58
	SCTP    uint8 = 132
	UDPLite uint8 = 136
)

// Field is a bit of the presence mask: the attribute of a flow's head that it
// stands for is known. Absent and zero are different things, since the kernel's
// UPDATE events are partial. Attributes of the tail have no bit: they are
// present when they are there. Tuples, zones, family and protocol are the
// flow's identity or its shape and always present, but for the reply tuple.
type Field uint32

// The presence mask, bit by bit.
const (
	HasReply       Field = 1 << iota // Reply
	HasStatus                        // Status
	HasTimeout                       // Timeout
	HasMark                          // Mark
	HasID                            // ID
	HasState                         // State
	HasWindowScale                   // WindowScale
	HasTCPFlags                      // TCPFlags
)

// Status is the kernel's enum ip_conntrack_status
// (linux/netfilter/nf_conntrack_common.h).
type Status uint32

// The status bits that Sluice reads or writes.
const (
	Expected      Status = 1 << 0
	SeenReply     Status = 1 << 1
	Assured       Status = 1 << 2
	Confirmed     Status = 1 << 3
	SrcNAT        Status = 1 << 4
	DstNAT        Status = 1 << 5
	SeqAdjusted   Status = 1 << 6
	SrcNATDone    Status = 1 << 7
	DstNATDone    Status = 1 << 8
	Dying         Status = 1 << 9
	FixedTimeout  Status = 1 << 10
	HelperPresent Status = 1 << 13
)

// Direction of a packet, as an index into the pairs of a Flow.
const (
	Original = 0
	Reply    = 1
)

// A Tuple is one direction of a flow. Addresses are in network order; an IPv4
// address fills the first four bytes and leaves the others zero. For ICMP and
// ICMPv6, SourcePort holds the echo id and DestinationPort the type (high byte)
// and the code (low byte), as in the kernel's nf_conntrack_tuple. For GRE the
// ports hold the keys. Protocols without ports leave both zero.
type Tuple struct {
	Source, Destination         [16]byte
	SourcePort, DestinationPort uint16
}

// A Flow is what is known of one connection. It is one value without pointers
// but for Tail, which belongs to whoever decoded the flow: see Cursor.
type Flow struct {
	Present  Field
	Family   uint8 // IPv4 or IPv6
	Protocol uint8 // layer 4

	// State is the TCP or SCTP state with the kernel's numbers: TCPEstablished…
	State uint8

	// Zone is the conntrack zone; ZoneOriginal and ZoneReply are those that
	// apply to one direction alone. 0 is the default zone.
	Zone, ZoneOriginal, ZoneReply uint16

	Status  Status
	Timeout uint32 // seconds left when the event was made
	Mark    uint32
	ID      uint32 // CTA_ID: of this node only, and reused

	WindowScale [2]uint8 // TCP, by direction
	TCPFlags    [2]uint8 // IP_CT_TCP_FLAG_*, by direction

	Original, Reply Tuple

	// Tail holds the rarer attributes; see Attributes.
	Tail Attributes
}

// Has says whether every field of the mask f is present.
func (f *Flow) Has(mask Field) bool { return f.Present&mask == mask }

// Related says whether the flow has a master: it was expected by a helper.
func (f *Flow) Related() bool { return f.Tail.Has(AttrMaster) }

// A Key is the identity of a flow: the original tuple with its zones. It is
// comparable and has no pointers.
type Key struct {
	Source, Destination         [16]byte
	SourcePort, DestinationPort uint16
	Zone, ZoneOriginal          uint16
	Family, Protocol            uint8
}

// Key returns the flow's identity.
func (f *Flow) Key() Key {
	return Key{
		Source:          f.Original.Source,
		Destination:     f.Original.Destination,
		SourcePort:      f.Original.SourcePort,
		DestinationPort: f.Original.DestinationPort,
		Zone:            f.Zone,
		ZoneOriginal:    f.ZoneOriginal,
		Family:          f.Family,
		Protocol:        f.Protocol,
	}
}

// Address returns a 16-byte address of the given family as a netip.Addr.
func Address(family uint8, a [16]byte) netip.Addr {
	if family == IPv4 {
		return netip.AddrFrom4([4]byte(a[:4]))
	}
	return netip.AddrFrom16(a)
}

// Bytes returns an address in a Tuple's form, and its family.
func Bytes(a netip.Addr) (b [16]byte, family uint8) {
	if a = a.Unmap(); a.Is4() {
		v4 := a.As4()
		copy(b[:], v4[:])
		return b, IPv4
	}
	return a.As16(), IPv6
}

// Inverted returns the tuple of packets that answer those of t when nothing
// is translated: addresses and ports swapped, ICMP types by their answer.
func (t Tuple) Inverted(protocol uint8) Tuple {
	r := Tuple{
		Source: t.Destination, Destination: t.Source,
		SourcePort: t.DestinationPort, DestinationPort: t.SourcePort,
	}
	if protocol == ICMP || protocol == ICMPv6 {
		typ, code := uint8(t.DestinationPort>>8), t.DestinationPort&0xff
		r.SourcePort = t.SourcePort
		r.DestinationPort = uint16(answerType(protocol, typ))<<8 | code
	}
	return r
}

// answerType returns the ICMP type that answers typ, after the kernel's invmap
// in nf_conntrack_proto_icmp.c and …_icmpv6.c; types without one are their own.
func answerType(protocol, typ uint8) uint8 {
	if protocol == ICMP {
		switch typ {
		case 8: // echo
			return 0
		case 0:
			return 8
		case 13: // timestamp
			return 14
		case 14:
			return 13
		case 15: // information
			return 16
		case 16:
			return 15
		case 17: // address mask
			return 18
		case 18:
			return 17
		}
		return typ
	}
	switch typ {
	case 128: // echo
		return 129
	case 129:
		return 128
	case 139: // node information
		return 140
	case 140:
		return 139
	}
	return typ
}

// A Translation is what NAT makes of one end of a flow.
type Translation struct {
	Address [16]byte
	Port    uint16 // ICMP: the echo id
}

// SourceNAT returns what the flow's source is translated to: the reply tuple's
// destination where it differs from the original source. NAT is no attribute of
// its own, since the two tuples say it all.
func (f *Flow) SourceNAT() (t Translation, ok bool) {
	if !f.Has(HasReply) {
		return t, false
	}
	before := Translation{f.Original.Source, f.Original.SourcePort}
	after := Translation{f.Reply.Destination, f.Reply.DestinationPort}
	if f.isICMP() {
		after.Port = f.Reply.SourcePort // the id
	}
	return after, before != after
}

// DestinationNAT returns what the flow's destination is translated to: the
// reply tuple's source where it differs from the original destination.
func (f *Flow) DestinationNAT() (t Translation, ok bool) {
	if !f.Has(HasReply) {
		return t, false
	}
	before := Translation{f.Original.Destination, f.Original.DestinationPort}
	after := Translation{f.Reply.Source, f.Reply.SourcePort}
	if f.isICMP() { // ids belong to the source; types answer each other
		before.Port, after.Port = 0, 0
	}
	return after, before != after
}

func (f *Flow) isICMP() bool { return f.Protocol == ICMP || f.Protocol == ICMPv6 }
