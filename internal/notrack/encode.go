package notrack

import (
	"encoding/binary"
	"errors"

	"github.com/sluice-project/sluice/core/flow"
)

// Errors of Encoder.AppendFlow: the flow cannot be sent to this peer.
var (
	// ErrZone: the peer knows no zones, or none of expectations, and would take
	// this for something of zone 0.
	ErrZone = errors.New("notrack: encode: the peer's version knows no zones")
	// ErrNoFlow: the event is a mark, or of no family.
	ErrNoFlow = errors.New("notrack: encode: not a flow")
	// ErrNoMaster: the event is about an expectation that lacks its master or its
	// mask, or is of another family than its master.
	ErrNoMaster = errors.New("notrack: encode: not a whole expectation")
)

// An Encoder turns flows and expectations into messages, byte for byte as
// conntrackd 1.4.7 does it. It keeps no state between them.
type Encoder struct {
	s       Settings
	highest int
	scratch []byte
}

// NewEncoder returns an Encoder with the given settings.
func NewEncoder(s Settings) *Encoder {
	if s.Room == 0 {
		s.Room = Room(1500, false)
	}
	return &Encoder{s: s, highest: s.Peer.highest()}
}

// tail is what the tail of a flow or expectation holds, found in one pass.
type tail struct {
	highest     int  // attribute that the peer knows
	expectation bool // what is read is about one

	labels, helper, function, seqAdj, synproxy, sctpTags, dccp []byte

	master           flow.Master
	expected         flow.Expectation
	hasMaster, other bool
}

func (t *tail) read(f *flow.Flow) {
	a := f.Tail
	for typ, v := range a.All() {
		switch {
		case typ == flow.AttrLabels && len(v) == labelsSize:
			t.labels = v
		case typ == flow.AttrHelper && len(v) > 0:
			t.helper = v
		case typ == flow.AttrMaster:
			t.master, t.hasMaster = a.Master()
		case typ == flow.AttrSeqAdj && len(v) == seqAdjSize:
			t.seqAdj = v
		case typ == flow.AttrSynproxy && len(v) == synproxySize:
			t.synproxy = v
		case typ == flow.AttrSCTPTags && len(v) == tagsSize:
			t.sctpTags = v
		case typ == flow.AttrDCCP && len(v) >= 2:
			t.dccp = v
		case typ == flow.AttrFunction && len(v) > 0:
			t.function = v
		case typ == flow.AttrExpectation:
			t.expected, _ = a.Expectation()
		}
		t.other = t.other || !t.carries(f.Family, typ, v)
	}
}

// carries says whether NOTRACK's own attributes say all of an attribute that
// was read, or whether nobody needs it.
func (t *tail) carries(family uint8, typ flow.Attr, v []byte) bool {
	switch typ {
	case flow.AttrHelper:
		return len(v) <= helperNameMax
	case flow.AttrMaster:
		return t.hasMaster && masterFits(&t.master)
	}
	switch {
	case local(typ):
		return true
	case !t.expectation:
		return t.carriesOfFlow(typ, v)
	case typ == flow.AttrFunction:
		return len(v) <= functionNameMax
	case typ == flow.AttrExpectation:
		return carriesExpectation(family, v, t.expected)
	}
	return false
}

func (t *tail) carriesOfFlow(typ flow.Attr, v []byte) bool {
	switch typ {
	case flow.AttrLabels:
		return len(v) == labelsSize
	case flow.AttrSeqAdj:
		return len(v) == seqAdjSize
	case flow.AttrSynproxy:
		return len(v) == synproxySize && (t.highest >= attrSynproxy || allZero(v))
	case flow.AttrSCTPTags:
		return len(v) == tagsSize
	case flow.AttrDCCP:
		return len(v) >= 2 && allZero(v[2:])
	}
	return false
}

// masterFits says whether MASTER_PORT carries the master's ports.
func masterFits(m *flow.Master) bool {
	return hasPorts(m.Protocol) || m.Tuple.SourcePort == 0 && m.Tuple.DestinationPort == 0
}

// local says whether an attribute tells of this node's view alone. The kernel
// can't be given counters or timestamps, so they would only cost.
func local(typ flow.Attr) bool {
	return typ == flow.AttrCounters || typ == flow.AttrTimestamps
}

func allZero(v []byte) bool {
	for _, b := range v {
		if b != 0 {
			return false
		}
	}
	return true
}

// AppendFlow appends the message about the event e, a flow's or an
// expectation's, to p and, where the format can't carry all of it, the extension
// behind it. All sequence numbers are 0: a Packer sets them. The event must hold
// the whole flow, merged, since receivers take a message for all there is. On
// error it returns p.
func (enc *Encoder) AppendFlow(p []byte, e *flow.Event) ([]byte, error) {
	if e.IsMark() || e.Family != flow.IPv4 && e.Family != flow.IPv6 {
		return p, ErrNoFlow
	}
	if e.IsExpectation() {
		return enc.appendExpectation(p, e)
	}
	if enc.highest < attrZone && e.Zone != 0 {
		return p, ErrZone
	}
	t := tail{highest: enc.highest}
	if len(e.Tail) > 0 {
		t.read(&e.Flow)
	}
	at := len(p)
	p = append(p, wireVersion<<4|flowType(e.Kind), 0, 0, 0, 0, 0, 0, 0)
	p = enc.appendIdentity(p, e)
	p = enc.appendState(p, &e.Flow, &t)
	p = enc.appendMaster(p, &t)
	p = enc.appendAddressArtefacts(p, &e.Flow)
	p, carried := enc.appendNAT(p, &e.Flow)
	p = enc.appendPortArtefacts(p, &e.Flow)
	p = enc.appendRare(p, &e.Flow, &t)
	p = endMessage(p, at)
	if enc.s.NoExtension {
		return p, nil
	}
	return enc.appendFlowExtension(p, at, &e.Flow, &t, carried), nil
}

func flowType(k flow.Kind) byte {
	switch k {
	case flow.New:
		return typeFlowNew
	case flow.Destroy:
		return typeFlowDestroy
	}
	return typeFlowUpdate
}

func appendHeader(p []byte, number, size int) []byte {
	return binary.BigEndian.AppendUint32(p, uint32(attrHeader+size)<<16|uint32(number))
}

func append8(p []byte, number int, v uint8) []byte {
	return append(p, 0, 5, byte(number>>8), byte(number), v, 0, 0, 0)
}

// append16 appends a number in network order, or reversed.
func append16(p []byte, number int, v uint16, reversed bool) []byte {
	if reversed {
		v = v>>8 | v<<8
	}
	return append(p, 0, 6, byte(number>>8), byte(number), byte(v>>8), byte(v), 0, 0)
}

func append32(p []byte, number int, v uint32) []byte {
	return binary.BigEndian.AppendUint32(appendHeader(p, number, 4), v)
}

// appendAddresses appends both addresses of a tuple; ipv4 and ipv6 are the
// numbers of the attribute for either family.
func appendAddresses(p []byte, ipv4, ipv6 int, family uint8, t *flow.Tuple) []byte {
	if family == flow.IPv4 {
		p = appendHeader(p, ipv4, 8)
		p = append(p, t.Source[:4]...)
		return append(p, t.Destination[:4]...)
	}
	p = appendHeader(p, ipv6, 32)
	p = append(p, t.Source[:]...)
	return append(p, t.Destination[:]...)
}

func appendPorts(p []byte, number int, t *flow.Tuple) []byte {
	return append32(p, number, uint32(t.SourcePort)<<16|uint32(t.DestinationPort))
}

// appendIdentity appends addresses, status, protocol, and ports or what ICMP
// has instead: in conntrackd's order, in which the status comes early.
func (enc *Encoder) appendIdentity(p []byte, e *flow.Event) []byte {
	f := &e.Flow
	p = appendAddresses(p, attrIPv4, attrIPv6, f.Family, &f.Original)
	if f.Has(flow.HasStatus) {
		status := f.Status &^ flow.Dying
		if enc.s.Artefacts.has(DyingStatus) && e.Kind == flow.Destroy {
			status |= flow.Dying
		}
		p = append32(p, attrStatus, uint32(status))
	}
	p = append8(p, attrProtocol, f.Protocol)
	switch {
	case hasPorts(f.Protocol):
		p = appendPorts(p, attrPort, &f.Original)
	case isICMP(f.Protocol):
		p = append8(p, attrICMPType, uint8(f.Original.DestinationPort>>8))
		p = append8(p, attrICMPCode, uint8(f.Original.DestinationPort))
		p = append16(p, attrICMPID, f.Original.SourcePort, !enc.s.BigEndianPorts)
	}
	return p
}

// appendState appends protocol state, timeout and mark.
func (enc *Encoder) appendState(p []byte, f *flow.Flow, t *tail) []byte {
	if f.Has(flow.HasState) {
		switch f.Protocol {
		case flow.TCP:
			p = append8(p, attrTCPState, f.State)
			if enc.s.WindowScale && f.Has(flow.HasWindowScale) {
				p = append8(p, attrWindowOrig, f.WindowScale[flow.Original])
				p = append8(p, attrWindowReply, f.WindowScale[flow.Reply])
			}
		case flow.SCTP:
			p = append8(p, attrSCTPState, f.State)
			if t.sctpTags != nil {
				p = append32(p, attrSCTPTagOrig, binary.LittleEndian.Uint32(t.sctpTags))
				p = append32(p, attrSCTPTagReply, binary.LittleEndian.Uint32(t.sctpTags[4:]))
			}
		}
	}
	if t.dccp != nil && f.Protocol == flow.DCCP {
		p = append8(p, attrDCCPState, t.dccp[0])
		p = append8(p, attrDCCPRole, t.dccp[1])
	}
	if enc.s.Timeout && f.Has(flow.HasTimeout) {
		p = append32(p, attrTimeout, f.Timeout)
	}
	if f.Has(flow.HasMark) {
		p = append32(p, attrMark, f.Mark)
	}
	return p
}

func (enc *Encoder) appendMaster(p []byte, t *tail) []byte {
	if !t.hasMaster {
		return p
	}
	m := &t.master
	p = appendAddresses(p, attrMasterIPv4, attrMasterIPv6, m.Family, &m.Tuple)
	p = append8(p, attrMasterProto, m.Protocol)
	if hasPorts(m.Protocol) {
		p = appendPorts(p, attrMasterPort, &m.Tuple)
	}
	return p
}

// appendNAT appends what is translated, and returns the reply tuple that a
// receiver makes of it: the original one inverted, with the translations in.
func (enc *Encoder) appendNAT(p []byte, f *flow.Flow) (q []byte, carried flow.Tuple) {
	plain := f.Original.Inverted(f.Protocol)
	carried = plain
	if !f.Has(flow.HasReply) || f.Reply == plain {
		return p, carried
	}
	status := f.Status
	if !f.Has(flow.HasStatus) {
		status = flow.SrcNATDone | flow.DstNATDone
	}
	source, dest := status&flow.SrcNATDone != 0, status&flow.DstNATDone != 0
	if source && f.Reply.Destination != plain.Destination {
		var sent bool
		if p, sent = enc.appendNATAddress(p, attrSourceIPv4, attrSourceIPv6, f.Family, &f.Reply.Destination); sent {
			carried.Destination = f.Reply.Destination
		}
	}
	if dest && f.Reply.Source != plain.Source {
		var sent bool
		if p, sent = enc.appendNATAddress(p, attrDestIPv4, attrDestIPv6, f.Family, &f.Reply.Source); sent {
			carried.Source = f.Reply.Source
		}
	}
	if isICMP(f.Protocol) {
		return p, carried
	}
	if source && f.Reply.DestinationPort != plain.DestinationPort {
		p = append16(p, attrSourcePort, f.Reply.DestinationPort, !enc.s.BigEndianPorts)
		carried.DestinationPort = f.Reply.DestinationPort
	}
	if dest && f.Reply.SourcePort != plain.SourcePort {
		p = append16(p, attrDestPort, f.Reply.SourcePort, !enc.s.BigEndianPorts)
		carried.SourcePort = f.Reply.SourcePort
	}
	return p, carried
}

// appendNATAddress appends a translated address unless the peer knows no such
// attribute.
func (enc *Encoder) appendNATAddress(p []byte, ipv4, ipv6 int, family uint8, a *[16]byte) ([]byte, bool) {
	if family == flow.IPv4 {
		v := binary.BigEndian.Uint32(a[:])
		if enc.s.ReversedNAT {
			v = binary.LittleEndian.Uint32(a[:])
		}
		return append32(p, ipv4, v), true
	}
	if ipv6 > enc.highest {
		return p, false
	}
	return append(appendHeader(p, ipv6, 16), a[:]...), true
}

// appendRare appends what comes behind the translations: in order, sequence
// adjustment, helper, labels, synproxy, zone.
func (enc *Encoder) appendRare(p []byte, f *flow.Flow, t *tail) []byte {
	if t.seqAdj != nil {
		p = appendHeader(p, attrSeqAdj, 24)
		for v := t.seqAdj; len(v) > 0; v = v[4:] {
			p = binary.BigEndian.AppendUint32(p, binary.LittleEndian.Uint32(v))
		}
	}
	if t.helper != nil && len(t.helper) <= helperNameMax {
		p = appendString(p, attrHelper, t.helper)
	}
	if t.labels != nil && !allZero(t.labels) {
		p = appendHeader(p, attrLabels, labelsSize)
		for v := t.labels; len(v) > 0; v = v[4:] {
			p = binary.BigEndian.AppendUint32(p, binary.NativeEndian.Uint32(v))
		}
	}
	p = enc.appendSynproxy(p, t)
	if f.Zone != 0 {
		p = append16(p, attrZone, f.Zone, false)
	}
	return p
}

// appendSynproxy appends the synproxy's numbers if one of them is not 0. The
// kernel shows three zeros for every flow that was made over netlink, and to
// pass that on would only cost the peers that know no attribute 31 the message.
func (enc *Encoder) appendSynproxy(p []byte, t *tail) []byte {
	var isn, its, offset uint32
	if t.synproxy != nil {
		isn = binary.LittleEndian.Uint32(t.synproxy)
		its = binary.LittleEndian.Uint32(t.synproxy[4:])
		offset = binary.LittleEndian.Uint32(t.synproxy[8:])
	}
	if isn|its|offset == 0 && !enc.s.Artefacts.has(EmptySynproxy) || enc.highest < attrSynproxy {
		return p
	}
	p = append32(p, attrSynproxy, its)
	p[len(p)-7] += 8 // append32 wrote the length of one number; there are three
	p = binary.BigEndian.AppendUint32(p, isn)
	return binary.BigEndian.AppendUint32(p, offset)
}

// appendString appends s with its NUL.
func appendString(p []byte, number int, s []byte) []byte {
	p = appendHeader(p, number, len(s)+1)
	p = append(append(p, s...), 0)
	return appendPadding(p, len(s)+1)
}

// appendAddressArtefacts and appendPortArtefacts append what conntrackd sends
// about translations where it has nothing to say.
func (enc *Encoder) appendAddressArtefacts(p []byte, f *flow.Flow) []byte {
	if !enc.s.Artefacts.has(IPv6NATAsIPv4) || f.Family != flow.IPv6 {
		return p
	}
	if f.Status&flow.SrcNAT != 0 {
		p = append32(p, attrSourceIPv4, 0)
	}
	if f.Status&flow.DstNAT != 0 {
		p = append32(p, attrDestIPv4, 0)
	}
	return p
}

func (enc *Encoder) appendPortArtefacts(p []byte, f *flow.Flow) []byte {
	if !enc.s.Artefacts.has(ICMPPorts) || !isICMP(f.Protocol) {
		return p
	}
	if f.Status&flow.SrcNATDone != 0 {
		p = append16(p, attrSourcePort, 0, false)
	}
	if f.Status&flow.DstNATDone != 0 {
		p = append16(p, attrDestPort, 0, false)
	}
	return p
}
