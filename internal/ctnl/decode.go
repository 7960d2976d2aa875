package ctnl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// ErrMalformed is what every error of Decode wraps.
var ErrMalformed = errors.New("malformed conntrack message")

const (
	nlHeader  = 16 // struct nlmsghdr
	nfHeader  = 4  // struct nfgenmsg
	nlaHeader = 4  // struct nlattr
	nlaType   = 0x3fff
)

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Port returns the port id in the header of a netlink message: the socket that
// asked for the change an event reports, or 0 if a packet or the passing of
// time caused it. It returns 0 for a message without a whole header.
func Port(msg []byte) uint32 {
	if len(msg) < nlHeader {
		return 0
	}
	return binary.NativeEndian.Uint32(msg[12:])
}

// Decode decodes msg, one whole ctnetlink message that is an event or an entry
// of a dump, into e, overwriting all of it, and returns the memory of its tail
// for reuse. The tail is built in buf[:0], so e.Tail is valid until buf is used
// again; msg is not referred to. Nothing is allocated once buf has grown.
//
// What the kernel means by its attributes:
//
//  1. IPCTNL_MSG_CT_NEW is New with NLM_F_CREATE or NLM_F_EXCL, else Update. An
//     entry of a dump (NLM_F_MULTI) is an Update.
//  2. An absent CTA_MARK is a mark of zero: the kernel leaves out marks that
//     are zero but for an event about the mark. So the mark is always present.
//  3. A CTA_SYNPROXY of zeros, which every entry made over netlink has, says
//     nothing and is left out.
//  4. Attributes that are not known, at any level, are skipped: a newer kernel
//     has more of them.
//  5. IPCTNL_MSG_EXP_NEW is Expect, an event or an entry of a dump alike, and
//     IPCTNL_MSG_EXP_DELETE Unexpect: see flow.Expectation.
func Decode(msg []byte, e *flow.Event, buf []byte) (tail []byte, err error) {
	*e = flow.Event{}
	if len(msg) < nlHeader+nfHeader {
		return buf, malformed("%d bytes are less than its headers", len(msg))
	}
	size := binary.NativeEndian.Uint32(msg)
	if size < nlHeader+nfHeader || uint64(size) > uint64(len(msg)) {
		return buf, malformed("length %d of %d bytes", size, len(msg))
	}
	if e.Kind = kindOf(binary.NativeEndian.Uint16(msg[4:]), binary.NativeEndian.Uint16(msg[6:])); e.Kind == 0 {
		return buf, malformed("type %#x", binary.NativeEndian.Uint16(msg[4:]))
	}
	e.Family = msg[nlHeader]
	if e.Family != flow.IPv4 && e.Family != flow.IPv6 {
		return buf, malformed("family %d", e.Family)
	}
	if e.IsExpectation() {
		return decodeExpectation(msg[nlHeader+nfHeader:size], e, buf)
	}
	d := decoder{flow: &e.Flow}
	if err := d.top(msg[nlHeader+nfHeader : size]); err != nil {
		return buf, err
	}
	e.Present |= flow.HasMark
	tail = d.appendTail(buf[:0])
	e.Tail = tail
	return tail, nil
}

// kindOf returns the kind of a message by its header's type and flags, 0 if it
// has none.
func kindOf(typ, flags uint16) flow.Kind {
	switch {
	case typ == typeExpectNew:
		return flow.Expect
	case typ == typeExpectDelete:
		return flow.Unexpect
	case typ == typeDelete:
		return flow.Destroy
	case typ != typeNew:
		return 0
	case flags&unix.NLM_F_MULTI == 0 && flags&(unix.NLM_F_CREATE|unix.NLM_F_EXCL) != 0:
		return flow.New
	}
	return flow.Update
}

// next splits the first attribute off rest. Lengths come from the kernel, but
// each is checked: a fuzzer is no kernel.
func next(rest []byte) (typ uint16, value, after []byte, err error) {
	if len(rest) < nlaHeader {
		return 0, nil, nil, malformed("attribute cut short")
	}
	size := int(binary.NativeEndian.Uint16(rest))
	if size < nlaHeader || size > len(rest) {
		return 0, nil, nil, malformed("attribute of %d bytes, %d are left", size, len(rest))
	}
	typ = binary.NativeEndian.Uint16(rest[2:]) & nlaType
	return typ, rest[nlaHeader:size], rest[min(align(size), len(rest)):], nil
}

func align(n int) int { return (n + 3) &^ 3 }

// Values are in network order. One that is too short counts as zero and not
// present, as a value of a type that this decoder does not know.

func u16(v []byte) (uint16, bool) {
	if len(v) < 2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(v), true
}

func u32(v []byte) (uint32, bool) {
	if len(v) < 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(v), true
}

func u64(v []byte) (uint64, bool) {
	if len(v) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(v), true
}

func u8(v []byte) (uint8, bool) {
	if len(v) < 1 {
		return 0, false
	}
	return v[0], true
}

// decoder collects what goes into the tail until the whole message is read, so
// that an attribute that occurs twice in a message occurs once in the tail.
type decoder struct {
	flow *flow.Flow

	labels, helper []byte // refer to the message
	master         flow.Master
	seqAdj         [6]uint32
	synproxy       [3]uint32
	tags           [2]uint32
	counters       [4]uint64
	timestamps     [2]uint64
	dccp           [11]byte

	hasOriginal, hasMaster, hasSeqAdj, hasTags, hasCounters, hasTimestamps, hasDCCP bool
}

func (d *decoder) top(rest []byte) (err error) {
	for len(rest) > 0 {
		var typ uint16
		var value []byte
		if typ, value, rest, err = next(rest); err != nil {
			return err
		}
		if err = d.attribute(typ, value); err != nil {
			return err
		}
	}
	if !d.hasOriginal {
		return malformed("no original tuple")
	}
	if d.master.Zone == 0 {
		d.master.Zone = d.flow.Zone
	}
	return nil
}

func (d *decoder) attribute(typ uint16, v []byte) error {
	f := d.flow
	var ok bool
	switch typ {
	case ctaTupleOrig:
		d.hasOriginal = true
		return decodeTuple(v, f.Family, &f.Original, &f.Protocol, &f.ZoneOriginal)
	case ctaTupleReply:
		f.Present |= flow.HasReply
		var protocol uint8
		return decodeTuple(v, f.Family, &f.Reply, &protocol, &f.ZoneReply)
	case ctaTupleMaster:
		d.hasMaster = true
		d.master.Family = f.Family
		return decodeTuple(v, f.Family, &d.master.Tuple, &d.master.Protocol, &d.master.Zone)
	case ctaStatus:
		var s uint32
		s, ok = u32(v)
		f.Status = flow.Status(s)
		d.set(ok, flow.HasStatus)
	case ctaTimeout:
		f.Timeout, ok = u32(v)
		d.set(ok, flow.HasTimeout)
	case ctaMark:
		f.Mark, _ = u32(v)
	case ctaID:
		f.ID, ok = u32(v)
		d.set(ok, flow.HasID)
	case ctaZone:
		f.Zone, _ = u16(v)
	case ctaLabels:
		d.labels = v[:min(len(v), labelsSize)]
	case ctaProtoInfo, ctaHelp, ctaCountersOrig, ctaCountersReply, ctaTimestamp,
		ctaSeqAdjOrig, ctaSeqAdjReply, ctaSynproxy:
		return d.nested(typ, v)
	}
	return nil
}

func (d *decoder) set(ok bool, field flow.Field) {
	if ok {
		d.flow.Present |= field
	}
}

// nested decodes the attributes that hold others and go into the tail or the
// protocol's state.
func (d *decoder) nested(typ uint16, rest []byte) (err error) {
	for len(rest) > 0 {
		var child uint16
		var v []byte
		if child, v, rest, err = next(rest); err != nil {
			return err
		}
		switch typ {
		case ctaProtoInfo:
			err = d.protoInfo(child, v)
		case ctaHelp:
			if child == ctaHelpName {
				d.helper = cutNUL(v)
			}
		case ctaCountersOrig:
			d.counter(child, v, 0)
		case ctaCountersReply:
			d.counter(child, v, 2)
		case ctaTimestamp:
			d.timestamp(child, v)
		case ctaSeqAdjOrig:
			d.seqAdjust(child, v, 0)
		case ctaSeqAdjReply:
			d.seqAdjust(child, v, 3)
		case ctaSynproxy:
			if child >= ctaSynproxyISN && child <= ctaSynproxyTSOff {
				d.synproxy[child-1], _ = u32(v)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func cutNUL(v []byte) []byte {
	for i, c := range v {
		if c == 0 {
			return v[:i]
		}
	}
	return v
}

func (d *decoder) counter(typ uint16, v []byte, at int) {
	if typ == ctaCountersPackets || typ == ctaCountersBytes {
		d.counters[at+int(typ)-1], _ = u64(v)
		d.hasCounters = true
	}
}

func (d *decoder) timestamp(typ uint16, v []byte) {
	if typ == ctaTimestampStart || typ == ctaTimestampStop {
		d.timestamps[typ-1], _ = u64(v)
		d.hasTimestamps = true
	}
}

func (d *decoder) seqAdjust(typ uint16, v []byte, at int) {
	if typ >= ctaSeqAdjPosition && typ <= ctaSeqAdjAfter {
		d.seqAdj[at+int(typ)-1], _ = u32(v)
		d.hasSeqAdj = true
	}
}

func (d *decoder) protoInfo(protocol uint16, rest []byte) (err error) {
	if protocol < ctaProtoInfoTCP || protocol > ctaProtoInfoSCTP {
		return nil // what it holds is not known to be attributes
	}
	var seen [6]bool // by child
	for len(rest) > 0 {
		var typ uint16
		var v []byte
		if typ, v, rest, err = next(rest); err != nil {
			return err
		}
		var ok bool
		switch protocol {
		case ctaProtoInfoTCP:
			ok = d.tcp(typ, v)
		case ctaProtoInfoSCTP:
			ok = d.sctp(typ, v)
		case ctaProtoInfoDCCP:
			d.dccpInfo(typ, v)
		}
		if ok {
			seen[typ] = true
		}
	}
	switch protocol {
	case ctaProtoInfoTCP: // a DESTROY has the state alone
		d.set(seen[ctaTCPState], flow.HasState)
		d.set(seen[ctaTCPWScaleOrig] && seen[ctaTCPWScaleReply], flow.HasWindowScale)
		d.set(seen[ctaTCPFlagsOrig] && seen[ctaTCPFlagsReply], flow.HasTCPFlags)
	case ctaProtoInfoSCTP:
		d.set(seen[ctaSCTPState], flow.HasState)
		d.hasTags = d.hasTags || seen[ctaSCTPVTagOrig] && seen[ctaSCTPVTagReply]
	}
	return nil
}

func (d *decoder) tcp(typ uint16, v []byte) (ok bool) {
	f := d.flow
	switch typ {
	case ctaTCPState:
		f.State, ok = u8(v)
	case ctaTCPWScaleOrig:
		f.WindowScale[flow.Original], ok = u8(v)
	case ctaTCPWScaleReply:
		f.WindowScale[flow.Reply], ok = u8(v)
	case ctaTCPFlagsOrig: // struct nf_ct_tcp_flags; the kernel's mask is always 0
		f.TCPFlags[flow.Original], ok = u8(v)
	case ctaTCPFlagsReply:
		f.TCPFlags[flow.Reply], ok = u8(v)
	}
	return ok
}

func (d *decoder) sctp(typ uint16, v []byte) (ok bool) {
	switch typ {
	case ctaSCTPState:
		d.flow.State, ok = u8(v)
	case ctaSCTPVTagOrig:
		d.tags[flow.Original], ok = u32(v)
	case ctaSCTPVTagReply:
		d.tags[flow.Reply], ok = u32(v)
	}
	return ok
}

func (d *decoder) dccpInfo(typ uint16, v []byte) {
	switch typ {
	case ctaDCCPState:
		d.dccp[0], _ = u8(v)
	case ctaDCCPRole:
		d.dccp[1], _ = u8(v)
	case ctaDCCPHandshake:
		n, _ := u64(v)
		binary.LittleEndian.PutUint64(d.dccp[3:], n)
	default:
		return
	}
	d.hasDCCP = true
}

func decodeTuple(rest []byte, family uint8, t *flow.Tuple, protocol *uint8, zone *uint16) (err error) {
	*t = flow.Tuple{}
	for len(rest) > 0 {
		var typ uint16
		var v []byte
		if typ, v, rest, err = next(rest); err != nil {
			return err
		}
		switch typ {
		case ctaTupleIP:
			err = decodeAddresses(v, family, t)
		case ctaTupleProto:
			err = decodePorts(v, t, protocol)
		case ctaTupleZone: // a zone of this direction alone
			*zone, _ = u16(v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func decodeAddresses(rest []byte, family uint8, t *flow.Tuple) (err error) {
	source, destination, size := uint16(ctaIPv4Src), uint16(ctaIPv4Dst), 4
	if family == flow.IPv6 {
		source, destination, size = ctaIPv6Src, ctaIPv6Dst, 16
	}
	for len(rest) > 0 {
		var typ uint16
		var v []byte
		if typ, v, rest, err = next(rest); err != nil {
			return err
		}
		if len(v) != size {
			continue
		}
		switch typ {
		case source:
			copy(t.Source[:], v)
		case destination:
			copy(t.Destination[:], v)
		}
	}
	return nil
}

// decodePorts decodes what tells the flows between two hosts apart: ports, GRE
// keys, or ICMP id, type and code in the places that flow.Tuple gives them.
func decodePorts(rest []byte, t *flow.Tuple, protocol *uint8) (err error) {
	for len(rest) > 0 {
		var typ uint16
		var v []byte
		if typ, v, rest, err = next(rest); err != nil {
			return err
		}
		switch typ {
		case ctaProtoNum:
			*protocol, _ = u8(v)
		case ctaProtoSrcPort, ctaProtoICMPID, ctaProtoICMPv6ID:
			t.SourcePort, _ = u16(v)
		case ctaProtoDstPort:
			t.DestinationPort, _ = u16(v)
		case ctaProtoICMPType, ctaProtoICMPv6Type:
			n, _ := u8(v)
			t.DestinationPort = t.DestinationPort&0xff | uint16(n)<<8
		case ctaProtoICMPCode, ctaProtoICMPv6Code:
			n, _ := u8(v)
			t.DestinationPort = t.DestinationPort&0xff00 | uint16(n)
		}
	}
	return nil
}

// appendTail appends what was collected, in the order of the types.
func (d *decoder) appendTail(buf []byte) flow.Attributes {
	a := flow.Attributes(buf)
	if d.labels != nil {
		a = a.Append(flow.AttrLabels, d.labels)
	}
	if len(d.helper) > 0 {
		a = a.Append(flow.AttrHelper, d.helper)
	}
	if d.hasMaster {
		a = a.AppendMaster(&d.master)
	}
	if d.hasSeqAdj {
		a = appendUint32s(a, flow.AttrSeqAdj, d.seqAdj[:])
	}
	if d.synproxy != [3]uint32{} {
		a = appendUint32s(a, flow.AttrSynproxy, d.synproxy[:])
	}
	if d.hasTags {
		a = appendUint32s(a, flow.AttrSCTPTags, d.tags[:])
	}
	if d.hasCounters {
		a = appendUint64s(a, flow.AttrCounters, d.counters[:])
	}
	if d.hasTimestamps {
		a = appendUint64s(a, flow.AttrTimestamps, d.timestamps[:])
	}
	if d.hasDCCP {
		a = a.Append(flow.AttrDCCP, d.dccp[:])
	}
	return a
}

func appendUint32s(a flow.Attributes, t flow.Attr, values []uint32) flow.Attributes {
	var v [24]byte
	for i, n := range values {
		binary.LittleEndian.PutUint32(v[4*i:], n)
	}
	return a.Append(t, v[:4*len(values)])
}

func appendUint64s(a flow.Attributes, t flow.Attr, values []uint64) flow.Attributes {
	var v [32]byte
	for i, n := range values {
		binary.LittleEndian.PutUint64(v[8*i:], n)
	}
	return a.Append(t, v[:8*len(values)])
}
