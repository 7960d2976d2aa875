package notrack

import (
	"bytes"
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// A reader holds the attributes of one message: first it notes where each of
// them is, then it makes a flow of them. So their order does not matter, and
// of two equal ones the later counts.
type reader struct {
	p       []byte
	present uint64
	at      [attrHighest + 1]uint16 // valid where present has the bit

	hasReply, noLabels bool // the extension said so
}

func (r *reader) has(number int) bool { return r.present&(1<<number) != 0 }

// value returns the value of an attribute that is present.
func (r *reader) value(number int) []byte {
	p := r.p[r.at[number]:]
	return p[attrHeader:binary.BigEndian.Uint16(p)]
}

func (r *reader) u8(number int) uint8   { return r.p[r.at[number]+attrHeader] }
func (r *reader) u16(number int) uint16 { return binary.BigEndian.Uint16(r.value(number)) }
func (r *reader) u32(number int) uint32 { return binary.BigEndian.Uint32(r.value(number)) }

// sender16 reads a number that is in the sender's byte order.
func (r *reader) sender16(number int, o ByteOrders) uint16 {
	if o.BigEndianPorts {
		return r.u16(number)
	}
	return binary.LittleEndian.Uint16(r.value(number))
}

// read notes the attributes of a message and says whether they are in order.
// Like conntrackd it ignores up to four bytes after the last attribute, and
// lets that one go without its padding.
func (r *reader) read(p []byte, n *numbering, d *Decoder) bool {
	r.p, r.present = p, 0
	for at := 0; len(p)-at > attrHeader; {
		size, number := int(binary.BigEndian.Uint16(p[at:])), int(binary.BigEndian.Uint16(p[at+2:]))
		if size < attrHeader || size > len(p)-at {
			return false
		}
		switch {
		case number >= len(n.lengths):
			if d.Strict {
				return false
			}
			d.Counters.UnknownAttributes++
		case !n.lengthGood(number, size):
			return false
		default:
			r.present |= 1 << number
			r.at[number] = uint16(at)
		}
		at += padded(size)
	}
	return true
}

// complete says whether the message tells which flow it is about. conntrackd
// takes a message without addresses too, and falls over it later. Releases 1.4.3
// to 1.4.6 leave out the ports of flows whose state they don't know: to a peer
// all such flows of two hosts would be one.
func (r *reader) complete() bool {
	if !r.has(attrIPv4) && !r.has(attrIPv6) || !r.has(attrProtocol) {
		return false
	}
	switch protocol := r.u8(attrProtocol); {
	case hasPorts(protocol):
		return r.has(attrPort)
	case isICMP(protocol):
		return r.has(attrICMPType)
	}
	return true
}

// flow makes a flow of what was noted, and of the extension. It says whether
// the flow is one; if not, and unless the Decoder is strict, f is unfinished.
func (r *reader) flow(f *flow.Flow, elements []byte, d *Decoder) bool {
	if !d.Strict && !r.complete() {
		return false
	}
	r.identity(f, d.ByteOrders)
	d.tail = d.tail[:0]
	r.hasReply, r.noLabels = false, false
	d.extend(r, f, elements)
	r.state(f)
	if !r.hasReply {
		r.reply(f, d.ByteOrders)
	}
	f.Present |= flow.HasReply
	r.master(attrMasterIPv4, f, d)
	r.numbers(d)
	r.name(attrHelper, flow.AttrHelper, d)
	r.labels(d)
	f.Tail = d.tail
	return true
}

func (r *reader) identity(f *flow.Flow, o ByteOrders) {
	f.Family = r.addresses(&f.Original, attrIPv4, attrIPv6)
	if r.has(attrProtocol) {
		f.Protocol = r.u8(attrProtocol)
	}
	if r.has(attrZone) {
		f.Zone = r.u16(attrZone)
	}
	switch {
	case isICMP(f.Protocol):
		r.icmp(&f.Original, o)
	case r.has(attrPort):
		readPorts(r.value(attrPort), &f.Original)
	}
}

// addresses reads a pair of addresses and returns the family, or 0. With both
// families the later one counts.
func (r *reader) addresses(t *flow.Tuple, ipv4, ipv6 int) uint8 {
	switch {
	case r.has(ipv6) && !(r.has(ipv4) && r.at[ipv4] > r.at[ipv6]):
		v := r.value(ipv6)
		t.Source, t.Destination = [16]byte(v), [16]byte(v[16:])
		return flow.IPv6
	case r.has(ipv4):
		v := r.value(ipv4)
		copy(t.Source[:], v[:4])
		copy(t.Destination[:], v[4:])
		return flow.IPv4
	}
	return 0
}

func (r *reader) icmp(t *flow.Tuple, o ByteOrders) {
	if r.has(attrICMPType) {
		t.DestinationPort = uint16(r.u8(attrICMPType)) << 8
	}
	if r.has(attrICMPCode) {
		t.DestinationPort |= uint16(r.u8(attrICMPCode))
	}
	if r.has(attrICMPID) {
		t.SourcePort = r.sender16(attrICMPID, o)
	}
}

func (r *reader) state(f *flow.Flow) {
	if r.has(attrStatus) {
		f.Present |= flow.HasStatus
		f.Status = flow.Status(r.u32(attrStatus)) &^ flow.Dying
	}
	if r.has(attrTimeout) {
		f.Present |= flow.HasTimeout
		f.Timeout = r.u32(attrTimeout)
	}
	if r.has(attrMark) {
		f.Present |= flow.HasMark
		f.Mark = r.u32(attrMark)
	}
	switch {
	case f.Protocol == flow.TCP && r.has(attrTCPState):
		f.Present |= flow.HasState
		f.State = r.u8(attrTCPState)
	case f.Protocol == flow.SCTP && r.has(attrSCTPState):
		f.Present |= flow.HasState
		f.State = r.u8(attrSCTPState)
	}
	if r.has(attrWindowOrig) && r.has(attrWindowReply) {
		f.Present |= flow.HasWindowScale
		f.WindowScale = [2]uint8{r.u8(attrWindowOrig), r.u8(attrWindowReply)}
	}
}

// reply makes the reply tuple: the original one inverted, and translated where
// the message says so. Ports of ICMP are conntrackd's artefact and no ports.
func (r *reader) reply(f *flow.Flow, o ByteOrders) {
	f.Reply = f.Original.Inverted(f.Protocol)
	source, dest := attrSourceIPv4, attrDestIPv4
	if f.Family == flow.IPv6 {
		source, dest = attrSourceIPv6, attrDestIPv6
	}
	r.translated(&f.Reply.Destination, source, o)
	r.translated(&f.Reply.Source, dest, o)
	if isICMP(f.Protocol) {
		return
	}
	if r.has(attrSourcePort) {
		f.Reply.DestinationPort = r.sender16(attrSourcePort, o)
	}
	if r.has(attrDestPort) {
		f.Reply.SourcePort = r.sender16(attrDestPort, o)
	}
}

func (r *reader) translated(a *[16]byte, number int, o ByteOrders) {
	if !r.has(number) {
		return
	}
	v := r.value(number)
	copy(a[:], v)
	if o.ReversedNAT && len(v) == 4 {
		a[0], a[1], a[2], a[3] = v[3], v[2], v[1], v[0]
	}
}

// master appends the master's tuple, whose four attributes begin at the given
// number. It is in the flow's zone: the kernel looks for masters nowhere else.
func (r *reader) master(first int, f *flow.Flow, d *Decoder) {
	if !r.has(first) && !r.has(first+1) || d.tail.Has(flow.AttrMaster) {
		return
	}
	m := flow.Master{Zone: f.Zone}
	m.Family, m.Protocol = r.tuple(&m.Tuple, first)
	d.tail = d.tail.AppendMaster(&m)
}

// tuple reads a tuple whose four attributes begin at the given number: IPv4,
// IPv6, protocol, ports.
func (r *reader) tuple(t *flow.Tuple, first int) (family, protocol uint8) {
	family = r.addresses(t, first, first+1)
	if r.has(first + 2) {
		protocol = r.u8(first + 2)
	}
	if r.has(first + 3) {
		readPorts(r.value(first+3), t)
	}
	return family, protocol
}

// numbers appends the attributes that are rows of integers: in network order
// on the wire, little-endian in a tail.
func (r *reader) numbers(d *Decoder) {
	var v [seqAdjSize]byte
	if r.has(attrSeqAdj) {
		w := r.value(attrSeqAdj)
		for i := 0; i < seqAdjSize; i += 4 {
			binary.LittleEndian.PutUint32(v[i:], binary.BigEndian.Uint32(w[i:]))
		}
		d.append(flow.AttrSeqAdj, v[:])
	}
	if r.has(attrSynproxy) {
		if w := r.value(attrSynproxy); !allZero(w) { // three zeros say nothing
			binary.LittleEndian.PutUint32(v[0:], binary.BigEndian.Uint32(w[4:])) // isn
			binary.LittleEndian.PutUint32(v[4:], binary.BigEndian.Uint32(w[0:])) // its
			binary.LittleEndian.PutUint32(v[8:], binary.BigEndian.Uint32(w[8:]))
			d.append(flow.AttrSynproxy, v[:synproxySize])
		}
	}
	if r.has(attrSCTPTagOrig) && r.has(attrSCTPTagReply) {
		binary.LittleEndian.PutUint32(v[0:], r.u32(attrSCTPTagOrig))
		binary.LittleEndian.PutUint32(v[4:], r.u32(attrSCTPTagReply))
		d.append(flow.AttrSCTPTags, v[:tagsSize])
	}
	if r.has(attrDCCPState) {
		v = [seqAdjSize]byte{r.u8(attrDCCPState)}
		if r.has(attrDCCPRole) {
			v[1] = r.u8(attrDCCPRole)
		}
		d.append(flow.AttrDCCP, v[:dccpSize])
	}
}

// name appends the name that the given number has, up to its NUL.
func (r *reader) name(number int, t flow.Attr, d *Decoder) {
	if !r.has(number) {
		return
	}
	name := r.value(number)
	if n := bytes.IndexByte(name, 0); n >= 0 {
		name = name[:n]
	}
	if len(name) > 0 {
		d.append(t, name)
	}
}

func (r *reader) labels(d *Decoder) {
	var labels [labelsSize]byte
	if r.noLabels {
		d.append(flow.AttrLabels, labels[:])
	} else if r.has(attrLabels) {
		// The kernel has four words. Whole words alone count; conntrackd ignores
		// an attribute with half a one.
		w := r.value(attrLabels)
		if len(w) == 0 || len(w)%4 != 0 {
			return
		}
		for i := 0; i < min(len(w), labelsSize); i += 4 {
			binary.NativeEndian.PutUint32(labels[i:], binary.BigEndian.Uint32(w[i:]))
		}
		d.append(flow.AttrLabels, labels[:])
	}
}

// append appends to the tail unless the extension brought the attribute whole.
func (d *Decoder) append(t flow.Attr, v []byte) {
	if !d.tail.Has(t) {
		d.tail = d.tail.Append(t, v)
	}
}
