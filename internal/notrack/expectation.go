package notrack

import (
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// Attributes of expectations by number. Three groups of four are tuples: IPv4,
// IPv6, protocol, ports.
const (
	expMaster   = 0 // of the flow whose helper expects
	expExpected = 4
	expMask     = 8  // its protocol is the expected one, and no mask
	expTimeout  = 12 // u32 seconds
	expFlags    = 13 // u32
	expClass    = 14 // u32
	expNATIPv4  = 15 // address before translation, and a zero
	expNATPort  = 16 // port before translation, and a zero
	expNATProto = 17 // u8
	expNATDir   = 18 // u32: 0 original, 1 reply
	expHelper   = 19 // string with its NUL
	expFunction = 20 // string with its NUL
	expHighest  = expFunction

	expFunctionMax  = 32 // longest expFunction, header included
	functionNameMax = expFunctionMax - attrHeader - 1
)

var expectationNumbers = numbering{longest: longestOfExpectation, lengths: []uint8{
	12, 36, 5, 8, 12, 36, 5, 8, 12, 36, 5, 8,
	expTimeout: 8, expFlags: 8, expClass: 8,
	expNATIPv4: 12, expNATPort: 8, expNATProto: 5, expNATDir: 8, expFunction: 0,
}}

func longestOfExpectation(number int) int {
	if number == expHelper {
		return helperMax
	}
	return expFunctionMax
}

// appendExpectation appends the message about an expectation, in conntrackd's
// order, and the extension behind it. Ports go by the master's protocol, also
// those of the tuple that is expected.
func (enc *Encoder) appendExpectation(p []byte, e *flow.Event) ([]byte, error) {
	f := &e.Flow
	t := tail{expectation: true}
	t.read(f)
	if !t.hasMaster || t.master.Family != f.Family || !f.Has(flow.HasReply) {
		return p, ErrNoMaster
	}
	if f.Zone != 0 && enc.s.NoExtension {
		return p, ErrZone
	}
	at := len(p)
	p = append(p, wireVersion<<4|enc.expectationType(e.Kind), 0, 0, 0, 0, 0, 0, 0)
	ports := hasPorts(t.master.Protocol)
	p = appendTuple(p, expMaster, f.Family, t.master.Protocol, &t.master.Tuple, ports)
	p = appendTuple(p, expExpected, f.Family, f.Protocol, &f.Original, ports)
	p = appendTuple(p, expMask, f.Family, f.Protocol, &f.Reply, ports)
	if enc.s.Timeout && f.Has(flow.HasTimeout) {
		p = append32(p, expTimeout, f.Timeout)
	}
	p = appendExpected(p, f.Family, &t.expected)
	if t.helper != nil && len(t.helper) <= helperNameMax {
		p = appendString(p, expHelper, t.helper)
	}
	if t.function != nil && len(t.function) <= functionNameMax {
		p = appendString(p, expFunction, t.function)
	}
	p = endMessage(p, at)
	if enc.s.NoExtension {
		return p, nil
	}
	p = enc.appendExpectationExtension(p, at, f, &t, ports)
	if f.Zone != 0 {
		p = enc.enclose(p, at)
	}
	return p, nil
}

// enclose hides the message that begins at from conntrackd, by making an element
// of it, with those that extend it behind. Messages about expectations have no
// zone: conntrackd would look for the master in zone 0, where addresses may be
// another's, and so it sends none itself.
func (enc *Encoder) enclose(p []byte, at int) []byte {
	size := int(binary.BigEndian.Uint16(p[at+2:]))
	enc.scratch = append(enc.scratch[:0], p[at:]...)
	p, ext := appendExtension(p[:at], scopeAlone)
	p = append(appendElement(p, elementMessage, size), enc.scratch[:size]...)
	return endMessage(append(p, enc.scratch[size+extensionHeader:]...), ext)
}

func (enc *Encoder) expectationType(k flow.Kind) byte {
	switch {
	case k == flow.Unexpect:
		return typeExpDestroy
	case enc.s.Artefacts.has(ExpectationUpdates):
		return typeExpUpdate
	}
	return typeExpNew
}

// appendTuple appends the attributes of a tuple, the first of which is given.
func appendTuple(p []byte, first int, family, protocol uint8, t *flow.Tuple, ports bool) []byte {
	p = appendAddresses(p, first, first+1, family, t)
	p = append8(p, first+2, protocol)
	if ports {
		p = appendPorts(p, first+3, t)
	}
	return p
}

// appendExpected appends flags, class and NAT. NOTRACK has no number for the
// address of an IPv6 expectation.
func appendExpected(p []byte, family uint8, x *flow.Expectation) []byte {
	p = append32(p, expFlags, uint32(x.Flags))
	if x.HasClass {
		p = append32(p, expClass, x.Class)
	}
	if !x.HasNAT {
		return p
	}
	if family == flow.IPv4 {
		p = appendAddresses(p, expNATIPv4, expNATIPv4, family, &x.NAT)
	}
	p = append8(p, expNATProto, x.NATProtocol)
	p = appendPorts(p, expNATPort, &x.NAT)
	return append32(p, expNATDir, uint32(x.NATDirection))
}

// carriesExpectation says whether appendExpected says all of the value v of an
// AttrExpectation.
func carriesExpectation(family uint8, v []byte, x flow.Expectation) bool {
	if !x.HasClass {
		x.Class = 0
	}
	if !x.HasNAT {
		x.NATDirection, x.NATProtocol, x.NAT = 0, 0, flow.Tuple{}
	}
	addresses := 0
	if family == flow.IPv4 {
		addresses = 4
	}
	clear(x.NAT.Source[addresses:])
	clear(x.NAT.Destination[addresses:])
	var buf [64]byte
	return string(flow.Attributes(buf[:0]).AppendExpectation(&x)[attrHeader:]) == string(v)
}

// appendExpectationExtension appends what the message that begins at could not
// say about an expectation: the zone, ports where the master has none, and
// attributes.
func (enc *Encoder) appendExpectationExtension(p []byte, at int, f *flow.Flow, t *tail, ports bool) []byte {
	tuple := !ports && (f.Original.SourcePort != 0 || f.Original.DestinationPort != 0)
	mask := !ports && (f.Reply.SourcePort != 0 || f.Reply.DestinationPort != 0)
	if f.Zone == 0 && !tuple && !mask && !t.other {
		return p
	}
	p, ext := appendExtension(p, scopePrevious)
	if f.Zone != 0 {
		p = appendElement(p, elementZone, 4)
		p = append(p, byte(f.Zone>>8), byte(f.Zone), 0, 0)
	}
	if tuple {
		p = appendElement(p, elementPorts, 4)
		p = appendPortPair(p, &f.Original)
	}
	if mask {
		p = appendReply(p, &f.Reply)
	}
	if t.other {
		p = enc.appendOther(p, at, f, t)
	}
	return endMessage(p, ext)
}

// expectation makes an expectation of what was noted, and of the extension. It
// says whether there can be one: all tuples, of one family.
func (r *reader) expectation(f *flow.Flow, elements []byte, d *Decoder) bool {
	f.Family, f.Protocol = r.tuple(&f.Original, expExpected)
	maskFamily, _ := r.tuple(&f.Reply, expMask)
	if maskFamily != 0 {
		f.Present |= flow.HasReply
	}
	d.tail = d.tail[:0]
	d.extend(r, f, elements)
	if r.has(expTimeout) {
		f.Present |= flow.HasTimeout
		f.Timeout = r.u32(expTimeout)
	}
	r.master(expMaster, f, d)
	r.expected(f, d)
	r.name(expHelper, flow.AttrHelper, d)
	r.name(expFunction, flow.AttrFunction, d)
	f.Tail = d.tail
	return f.Family != 0 && maskFamily == f.Family && expectable(r, f)
}

// expectable says whether the kernel could know such an expectation. Masks
// without ports beside a tuple with some would match any.
func expectable(r *reader, f *flow.Flow) bool {
	m, ok := f.Tail.Master()
	if !ok || m.Family != f.Family || !r.has(expMaster+2) || !r.has(expExpected+2) ||
		r.has(expExpected+3) != r.has(expMask+3) {
		return false
	}
	x, _ := f.Tail.Expectation()
	return x.NATDirection <= flow.Reply
}

// expected appends flags, class and NAT.
func (r *reader) expected(f *flow.Flow, d *Decoder) {
	if d.tail.Has(flow.AttrExpectation) {
		return
	}
	x := flow.Expectation{
		HasClass: r.has(expClass),
		HasNAT:   r.has(expNATIPv4) || r.has(expNATPort) || r.has(expNATProto) || r.has(expNATDir),
	}
	if r.has(expFlags) {
		x.Flags = flow.ExpectFlags(r.u32(expFlags))
	}
	if x.HasClass {
		x.Class = r.u32(expClass)
	}
	if r.has(expNATIPv4) && f.Family == flow.IPv4 {
		v := r.value(expNATIPv4)
		copy(x.NAT.Source[:], v[:4])
		copy(x.NAT.Destination[:], v[4:])
	}
	if r.has(expNATPort) {
		readPorts(r.value(expNATPort), &x.NAT)
	}
	if r.has(expNATProto) {
		x.NATProtocol = r.u8(expNATProto)
	}
	if r.has(expNATDir) {
		x.NATDirection = uint8(min(r.u32(expNATDir), 0xff))
	}
	d.tail = d.tail.AppendExpectation(&x)
}
