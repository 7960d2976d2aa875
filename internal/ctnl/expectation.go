package ctnl

import (
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// expectationDecoder collects what goes into an expectation's tail.
type expectationDecoder struct {
	flow             *flow.Flow
	expectation      flow.Expectation
	master           flow.Master
	helper, function []byte // refer to the message

	hasTuple, hasMask, hasMaster bool
}

// decodeExpectation decodes what is behind the headers of a message about an
// expectation.
func decodeExpectation(rest []byte, e *flow.Event, buf []byte) (tail []byte, err error) {
	d := expectationDecoder{flow: &e.Flow}
	for len(rest) > 0 {
		var typ uint16
		var v []byte
		if typ, v, rest, err = next(rest); err == nil {
			err = d.attribute(typ, v)
		}
		if err != nil {
			return buf, err
		}
	}
	if !d.hasTuple || !d.hasMask || !d.hasMaster {
		return buf, malformed("an expectation without tuple, mask or master")
	}
	if d.master.Zone == 0 {
		d.master.Zone = e.Zone
	}
	a := flow.Attributes(buf[:0])
	if len(d.helper) > 0 {
		a = a.Append(flow.AttrHelper, d.helper)
	}
	a = a.AppendMaster(&d.master).AppendExpectation(&d.expectation)
	if len(d.function) > 0 {
		a = a.Append(flow.AttrFunction, d.function)
	}
	e.Tail = a
	return a, nil
}

func (d *expectationDecoder) attribute(typ uint16, v []byte) error {
	f, x := d.flow, &d.expectation
	switch typ {
	case ctaExpectTuple:
		d.hasTuple = true
		return decodeTuple(v, f.Family, &f.Original, &f.Protocol, &f.ZoneOriginal)
	case ctaExpectMask:
		d.hasMask = true
		f.Present |= flow.HasReply
		var protocol uint8
		return decodeTuple(v, f.Family, &f.Reply, &protocol, &f.ZoneReply)
	case ctaExpectMaster:
		d.hasMaster = true
		d.master.Family = f.Family
		return decodeTuple(v, f.Family, &d.master.Tuple, &d.master.Protocol, &d.master.Zone)
	case ctaExpectTimeout:
		var ok bool
		if f.Timeout, ok = u32(v); ok {
			f.Present |= flow.HasTimeout
		}
	case ctaExpectID:
		var ok bool
		if f.ID, ok = u32(v); ok {
			f.Present |= flow.HasID
		}
	case ctaExpectHelpName:
		d.helper = cutNUL(v)
	case ctaExpectZone:
		f.Zone, _ = u16(v)
	case ctaExpectFlags:
		n, _ := u32(v)
		x.Flags = flow.ExpectFlags(n)
	case ctaExpectClass:
		x.Class, x.HasClass = u32(v)
	case ctaExpectNAT:
		return d.nat(v)
	case ctaExpectFunction:
		d.function = cutNUL(v)
	}
	return nil
}

func (d *expectationDecoder) nat(rest []byte) (err error) {
	x := &d.expectation
	x.HasNAT = true
	for len(rest) > 0 {
		var typ uint16
		var v []byte
		if typ, v, rest, err = next(rest); err != nil {
			return err
		}
		switch typ {
		case ctaExpectNATDirection:
			n, _ := u32(v)
			x.NATDirection = uint8(n)
		case ctaExpectNATTuple:
			var zone uint16
			if err := decodeTuple(v, d.flow.Family, &x.NAT, &x.NATProtocol, &zone); err != nil {
				return err
			}
		}
	}
	return nil
}

// AppendExpect appends a request that creates an expectation and fails with
// EEXIST if there is one of its tuple, whosoever's.
//
//  1. The master must be there, in the expectation's zone (else ENOENT), and have
//     a helper (else EOPNOTSUPP).
//  2. How long the expectation lives is the helper's policy for its class,
//     whatever is sent: see AppendExpectTimeout.
//  3. The helper's name is sent with a class alone. Kernels of today ignore it: an
//     expectation has its master's helper. Older ones take the class only with
//     it, but give the helper to the flow to come as well, and a data
//     connection of FTP must have none. Class 0 needs no name.
//  4. Of the flags the kernel clears USERSPACE, and refuses those it does not know.
//  5. NAT goes with its function: the address and port alone do nothing.
func AppendExpect(p []byte, f *flow.Flow, seq uint32) []byte {
	const known = flow.ExpectPermanent | flow.ExpectInactive
	p, at := beginExpectation(p, typeExpectNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, f, seq)
	p = appendMaskAndMaster(p, f)
	x, _ := f.Tail.Expectation()
	p = appendU32(p, ctaExpectFlags, uint32(x.Flags&known))
	if x.HasClass {
		p = appendU32(p, ctaExpectClass, x.Class)
		if name, ok := f.Tail.Get(flow.AttrHelper); ok && x.Class != 0 {
			p = appendName(p, ctaExpectHelpName, name)
		}
	}
	if x.HasNAT {
		p = appendExpectNAT(p, f, &x)
	}
	if name, ok := f.Tail.Get(flow.AttrFunction); ok {
		p = appendName(p, ctaExpectFunction, name)
	}
	return end(p, at)
}

func appendMaskAndMaster(p []byte, f *flow.Flow) []byte {
	p = appendTuple(p, ctaExpectMask, f.Family, f.Protocol, &f.Reply, 0)
	if m, ok := f.Tail.Master(); ok {
		p = appendTuple(p, ctaExpectMaster, m.Family, m.Protocol, &m.Tuple, 0)
	}
	return p
}

func appendExpectNAT(p []byte, f *flow.Flow, x *flow.Expectation) []byte {
	p, at := nest(p, ctaExpectNAT)
	p = appendU32(p, ctaExpectNATDirection, uint32(x.NATDirection))
	p = appendTuple(p, ctaExpectNATTuple, f.Family, x.NATProtocol, &x.NAT, 0)
	return endNest(p, at)
}

// AppendExpectTimeout appends a request that sets how long the expectation of
// f's tuple still lives, the only thing about it that can change. Without mask and
// master the answer is EINVAL, though they are not looked at.
func AppendExpectTimeout(p []byte, f *flow.Flow, seq uint32) []byte {
	p, at := beginExpectation(p, typeExpectNew, 0, f, seq)
	p = appendMaskAndMaster(p, f)
	return end(appendU32(p, ctaExpectTimeout, max(f.Timeout, 1)), at)
}

// AppendExpectGet appends a request for the expectation of f's tuple.
func AppendExpectGet(p []byte, f *flow.Flow, seq uint32) []byte {
	p, at := beginExpectation(p, typeExpectGet, 0, f, seq)
	return end(p, at)
}

// AppendUnexpect appends a request that deletes the expectation of f's tuple. An
// id is this node's or absent, as with AppendDelete.
func AppendUnexpect(p []byte, f *flow.Flow, seq uint32) []byte {
	p, at := beginExpectation(p, typeExpectDelete, 0, f, seq)
	if f.Has(flow.HasID) {
		p = appendU32(p, ctaExpectID, f.ID)
	}
	return end(p, at)
}

// beginExpectation begins a message about the expectation of f's tuple and zone.
func beginExpectation(p []byte, typ, flags uint16, f *flow.Flow, seq uint32) ([]byte, int) {
	p, at := begin(p, typ, flags, seq, f.Family)
	p = appendTuple(p, ctaExpectTuple, f.Family, f.Protocol, &f.Original, 0)
	if f.Zone != 0 {
		p = appendU16(p, ctaExpectZone, f.Zone)
	}
	return p, at
}

// appendName appends a name with the NUL that the kernel wants. A name that is
// longer than any is cut, and refused.
func appendName(p []byte, typ uint16, name []byte) []byte {
	var v [maxFunctionName + 1]byte
	n := copy(v[:maxFunctionName], name)
	return appendAttr(p, typ, v[:n+1]...)
}
