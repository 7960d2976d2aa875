package ctnl

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

const nlaNested = 0x8000

// Omit says which attributes a request leaves out: those that this kernel
// refused.
type Omit uint8

// The attributes that a request can do without.
const (
	OmitHelper Omit = 1 << iota
	OmitLabels
	OmitMaster
)

// Requests are built by appending: begin and end, or nest and end, enclose
// what is between them. Lengths and types are in the host's order, values in
// network order.

// begin appends the headers of a message and returns where it starts.
func begin(p []byte, typ, flags uint16, seq uint32, family uint8) ([]byte, int) {
	at := len(p)
	p = append(p, make([]byte, nlHeader+nfHeader)...)
	ne := binary.NativeEndian
	ne.PutUint16(p[at+4:], typ)
	ne.PutUint16(p[at+6:], flags|unix.NLM_F_REQUEST)
	ne.PutUint32(p[at+8:], seq)
	p[at+nlHeader] = family // nfgen_family; version and resource id are 0
	return p, at
}

func end(p []byte, at int) []byte {
	binary.NativeEndian.PutUint32(p[at:], uint32(len(p)-at))
	return p
}

func nest(p []byte, typ uint16) ([]byte, int) {
	at := len(p)
	p = append(p, 0, 0, 0, 0)
	binary.NativeEndian.PutUint16(p[at+2:], typ|nlaNested)
	return p, at
}

func endNest(p []byte, at int) []byte {
	binary.NativeEndian.PutUint16(p[at:], uint16(len(p)-at))
	return p
}

func appendAttr(p []byte, typ uint16, v ...byte) []byte {
	p = binary.NativeEndian.AppendUint16(p, uint16(nlaHeader+len(v)))
	p = binary.NativeEndian.AppendUint16(p, typ)
	p = append(p, v...)
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	return p
}

func appendU16(p []byte, typ, v uint16) []byte {
	return appendAttr(p, typ, byte(v>>8), byte(v))
}

func appendU32(p []byte, typ uint16, v uint32) []byte {
	return appendAttr(p, typ, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// AppendCreate appends a request that creates f and fails with EEXIST if there
// is an entry of one of its tuples. seq is the message's sequence number.
//
// What is sent differs from what an event says, because the kernel wants it so:
//
//  1. Status: of the bits only SEEN_REPLY, ASSURED and FIXED_TIMEOUT, with
//     CONFIRMED. Without CONFIRMED, or with EXPECTED or DYING, the answer is
//     EBUSY; the rest the kernel sets from the other attributes.
//  2. NAT: the reply tuple is the original one inverted, and CTA_NAT_SRC and
//     CTA_NAT_DST say what the real one differs in. Sent as dumped, the entry
//     would look right and its packets pass untranslated. The port is always
//     sent where there is one: without it the kernel may pick another.
//  3. TCP: flags count only with their mask, window scales only with their flag.
//     liberal sets BE_LIBERAL in both directions, for an entry that does not
//     know the windows of the stream would block it.
//  4. Timeout: mandatory, and 0 would create an entry that is expired.
//  5. Labels: sixteen bytes without a mask, else they are dropped silently.
//  6. The helper's name ends with NUL. Of the master only the tuple is sent: it
//     is looked up in the flow's zone.
func AppendCreate(p []byte, f *flow.Flow, liberal bool, omit Omit, seq uint32) []byte {
	p, at := begin(p, typeNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, seq, f.Family)
	p = appendTuple(p, ctaTupleOrig, f.Family, f.Protocol, &f.Original, f.ZoneOriginal)
	inverted := f.Original.Inverted(f.Protocol)
	p = appendTuple(p, ctaTupleReply, f.Family, f.Protocol, &inverted, f.ZoneReply)
	p = appendZone(p, f)
	p = appendU32(p, ctaTimeout, max(f.Timeout, 1))
	p = appendU32(p, ctaStatus, settable(f))
	p = appendNAT(p, f)
	if name, ok := f.Tail.Get(flow.AttrHelper); ok && omit&OmitHelper == 0 {
		p = appendHelper(p, name)
	}
	if m, ok := f.Tail.Master(); ok && omit&OmitMaster == 0 {
		p = appendTuple(p, ctaTupleMaster, m.Family, m.Protocol, &m.Tuple, 0)
	}
	return end(appendState(p, f, liberal, omit), at)
}

// AppendUpdate appends a request that changes the entry of f's original tuple
// to f's timeout (if present), status, protocol state, mark and labels. add are
// the bits that the entry's status has: the kernel refuses to clear them, EXPECTED
// too, which it sets by itself where there is a master, and to change the timeout
// where there is FIXED_TIMEOUT.
//
// A refused update is not undone: the attributes take effect one after another
// (helper, timeout, status, protocol, mark, sequence adjustment, labels) until
// one fails. NAT, helper and master can't change and are never sent.
func AppendUpdate(p []byte, f *flow.Flow, add flow.Status, liberal bool, omit Omit, seq uint32) []byte {
	p, at := beginOf(p, typeNew, f, seq)
	if f.Has(flow.HasTimeout) && add&flow.FixedTimeout == 0 {
		p = appendU32(p, ctaTimeout, max(f.Timeout, 1))
	}
	p = appendU32(p, ctaStatus, settable(f)|uint32(add&^flow.Dying))
	return end(appendState(p, f, liberal, omit), at)
}

// AppendTimeout appends a request that sets the timeout of the entry of f's
// original tuple and nothing else.
func AppendTimeout(p []byte, f *flow.Flow, timeout, seq uint32) []byte {
	p, at := beginOf(p, typeNew, f, seq)
	return end(appendU32(p, ctaTimeout, max(timeout, 1)), at)
}

// AppendDelete appends a request that deletes the entry of f's original tuple.
// If f has an id the kernel refuses with ENOENT when it is not the entry's, so
// the id must be this node's or absent.
func AppendDelete(p []byte, f *flow.Flow, seq uint32) []byte {
	p, at := beginOf(p, typeDelete, f, seq)
	if f.Has(flow.HasID) {
		p = appendU32(p, ctaID, f.ID)
	}
	return end(p, at)
}

// AppendGet appends a request for the entry that has f's original tuple in
// either direction.
func AppendGet(p []byte, f *flow.Flow, seq uint32) []byte {
	p, at := beginOf(p, typeGet, f, seq)
	return end(p, at)
}

// AppendGetReply appends a request for the entry that has f's reply tuple in
// either direction.
func AppendGetReply(p []byte, f *flow.Flow, seq uint32) []byte {
	p, at := begin(p, typeGet, 0, seq, f.Family)
	p = appendTuple(p, ctaTupleReply, f.Family, f.Protocol, &f.Reply, f.ZoneReply)
	return end(appendZone(p, f), at)
}

// beginOf begins a message about the entry of f's original tuple and zones.
func beginOf(p []byte, typ uint16, f *flow.Flow, seq uint32) ([]byte, int) {
	p, at := begin(p, typ, 0, seq, f.Family)
	p = appendTuple(p, ctaTupleOrig, f.Family, f.Protocol, &f.Original, f.ZoneOriginal)
	return appendZone(p, f), at
}

func settable(f *flow.Flow) uint32 {
	const mask = flow.SeenReply | flow.Assured | flow.FixedTimeout
	return uint32(f.Status&mask | flow.Confirmed)
}

func appendZone(p []byte, f *flow.Flow) []byte {
	if f.Zone == 0 {
		return p
	}
	return appendU16(p, ctaZone, f.Zone)
}

// hasPorts says whether the kernel knows flows of the protocol by ports, or
// keys in their place.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case flow.TCP, flow.UDP, flow.UDPLite, flow.SCTP, flow.DCCP, flow.GRE:
		return true
	}
	return false
}

func appendTuple(p []byte, typ uint16, family, protocol uint8, t *flow.Tuple, zone uint16) []byte {
	p, tuple := nest(p, typ)
	p, at := nest(p, ctaTupleIP)
	if family == flow.IPv4 {
		p = appendAttr(p, ctaIPv4Src, t.Source[:4]...)
		p = appendAttr(p, ctaIPv4Dst, t.Destination[:4]...)
	} else {
		p = appendAttr(p, ctaIPv6Src, t.Source[:]...)
		p = appendAttr(p, ctaIPv6Dst, t.Destination[:]...)
	}
	p = endNest(p, at)
	p, at = nest(p, ctaTupleProto)
	p = appendAttr(p, ctaProtoNum, protocol)
	switch {
	case hasPorts(protocol):
		p = appendU16(p, ctaProtoSrcPort, t.SourcePort)
		p = appendU16(p, ctaProtoDstPort, t.DestinationPort)
	case protocol == flow.ICMP:
		p = appendU16(p, ctaProtoICMPID, t.SourcePort)
		p = appendAttr(p, ctaProtoICMPType, byte(t.DestinationPort>>8))
		p = appendAttr(p, ctaProtoICMPCode, byte(t.DestinationPort))
	case protocol == flow.ICMPv6:
		p = appendU16(p, ctaProtoICMPv6ID, t.SourcePort)
		p = appendAttr(p, ctaProtoICMPv6Type, byte(t.DestinationPort>>8))
		p = appendAttr(p, ctaProtoICMPv6Code, byte(t.DestinationPort))
	}
	p = endNest(p, at)
	if zone != 0 {
		p = appendU16(p, ctaTupleZone, zone)
	}
	return endNest(p, tuple)
}

func appendNAT(p []byte, f *flow.Flow) []byte {
	ports := hasPorts(f.Protocol)
	if t, ok := f.SourceNAT(); ok { // ICMP: the id is the source's "port"
		id := f.Protocol == flow.ICMP || f.Protocol == flow.ICMPv6
		p = appendTranslation(p, ctaNATSrc, f.Family, &t, ports || id)
	}
	if t, ok := f.DestinationNAT(); ok {
		p = appendTranslation(p, ctaNATDst, f.Family, &t, ports)
	}
	return p
}

// appendTranslation appends the single address and port that NAT chooses. For
// a maximum that is left out the kernel takes the minimum.
func appendTranslation(p []byte, typ uint16, family uint8, t *flow.Translation, port bool) []byte {
	p, at := nest(p, typ)
	if family == flow.IPv4 {
		p = appendAttr(p, ctaNATv4MinIP, t.Address[:4]...)
	} else {
		p = appendAttr(p, ctaNATv6MinIP, t.Address[:]...)
	}
	if port {
		var proto int
		p, proto = nest(p, ctaNATProto)
		p = appendU16(p, ctaProtoNATPortMin, t.Port)
		p = endNest(p, proto)
	}
	return endNest(p, at)
}

func appendHelper(p, name []byte) []byte {
	p, at := nest(p, ctaHelp)
	var v [maxHelperName + 1]byte
	n := copy(v[:maxHelperName], name)
	p = appendAttr(p, ctaHelpName, v[:n+1]...)
	return endNest(p, at)
}

// appendState appends what create and update have in common.
func appendState(p []byte, f *flow.Flow, liberal bool, omit Omit) []byte {
	switch f.Protocol {
	case flow.TCP:
		p = appendTCP(p, f, liberal)
	case flow.SCTP:
		p = appendSCTP(p, f)
	}
	if f.Has(flow.HasMark) {
		p = appendU32(p, ctaMark, f.Mark)
	}
	if v, ok := f.Tail.Get(flow.AttrSeqAdj); ok && len(v) == 24 {
		p = appendSeqAdj(p, ctaSeqAdjOrig, v[:12])
		p = appendSeqAdj(p, ctaSeqAdjReply, v[12:])
	}
	if v, ok := f.Tail.Get(flow.AttrSynproxy); ok && len(v) == 12 {
		p = appendTriple(p, ctaSynproxy, v)
	}
	if v, ok := f.Tail.Get(flow.AttrLabels); ok && omit&OmitLabels == 0 {
		var labels [labelsSize]byte
		copy(labels[:], v)
		p = appendAttr(p, ctaLabels, labels[:]...)
	}
	return p
}

// appendTCP leaves out what the kernel would refuse with ERANGE, and the flags
// that describe the moment (MAXACK_SET, DATA_UNACKNOWLEDGED …).
func appendTCP(p []byte, f *flow.Flow, liberal bool) []byte {
	p, at := nest(p, ctaProtoInfo)
	p, tcp := nest(p, ctaProtoInfoTCP)
	if f.Has(flow.HasState) && f.State <= maxTCPState {
		p = appendAttr(p, ctaTCPState, f.State)
	}
	scaled := f.Has(flow.HasWindowScale)
	if scaled {
		p = appendAttr(p, ctaTCPWScaleOrig, min(f.WindowScale[flow.Original], maxWindowScale))
		p = appendAttr(p, ctaTCPWScaleReply, min(f.WindowScale[flow.Reply], maxWindowScale))
	}
	for direction, typ := range [2]uint16{ctaTCPFlagsOrig, ctaTCPFlagsReply} {
		var flags uint8
		if f.Has(flow.HasTCPFlags) {
			flags = f.TCPFlags[direction] & (tcpWindowScale | tcpSACK | tcpCloseInit | tcpLiberal)
		}
		if !scaled { // the flag with a scale of 0 would be worse than neither
			flags &^= tcpWindowScale
		} else if !f.Has(flow.HasTCPFlags) {
			flags |= tcpWindowScale
		}
		if liberal {
			flags |= tcpLiberal
		}
		if flags != 0 {
			p = appendAttr(p, typ, flags, flags) // value and mask
		}
	}
	return endNest(endNest(p, tcp), at)
}

// appendSCTP appends state and both tags, or nothing: less is EINVAL.
func appendSCTP(p []byte, f *flow.Flow) []byte {
	tags, ok := f.Tail.Get(flow.AttrSCTPTags)
	if !ok || len(tags) != 8 || !f.Has(flow.HasState) {
		return p
	}
	p, at := nest(p, ctaProtoInfo)
	p, sctp := nest(p, ctaProtoInfoSCTP)
	p = appendAttr(p, ctaSCTPState, f.State)
	p = appendU32(p, ctaSCTPVTagOrig, binary.LittleEndian.Uint32(tags))
	p = appendU32(p, ctaSCTPVTagReply, binary.LittleEndian.Uint32(tags[4:]))
	return endNest(endNest(p, sctp), at)
}

// appendSeqAdj appends one direction's adjustment unless it adjusts nothing.
func appendSeqAdj(p []byte, typ uint16, v []byte) []byte {
	if !slices.ContainsFunc(v, func(b byte) bool { return b != 0 }) {
		return p
	}
	return appendTriple(p, typ, v)
}

// appendTriple appends an attribute with three children of four bytes, as
// CTA_SEQ_ADJ_* and CTA_SYNPROXY have them; v holds them as the tail does.
func appendTriple(p []byte, typ uint16, v []byte) []byte {
	p, at := nest(p, typ)
	for i := range uint16(3) {
		p = appendU32(p, i+1, binary.LittleEndian.Uint32(v[4*i:]))
	}
	return endNest(p, at)
}
