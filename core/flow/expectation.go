package flow

import "encoding/binary"

// ExpectFlags are the kernel's NF_CT_EXPECT_* flags
// (linux/netfilter/nf_conntrack_common.h).
type ExpectFlags uint32

// The flags of an expectation.
const (
	ExpectPermanent ExpectFlags = 1 << 0 // stays when a flow met it
	ExpectInactive  ExpectFlags = 1 << 1 // waits for userspace
	ExpectUserspace ExpectFlags = 1 << 2 // userspace made it
)

// An Expectation is the value of AttrExpectation: what an event of kind Expect
// or Unexpect tells beside the fields of its Flow, which then mean:
//
//   - Original is the tuple of the flow that a helper waits for, and Reply,
//     always present, the mask of the bits that must agree. A source port of 0
//     under a mask of 0 is any port.
//   - Protocol, Family, Zone and Timeout are the expectation's, ID its
//     CTA_EXPECT_ID. State, status, mark and window scale do not exist.
//   - The tail has AttrMaster, whose helper made the expectation, always;
//     AttrHelper, that helper's name; and AttrFunction, where the kernel has one.
type Expectation struct {
	Flags    ExpectFlags
	Class    uint32 // index into the helper's policies
	HasClass bool

	// NAT is what the helper wants restored when the flow comes: the address
	// and port as they were before translation, in the tuple's source.
	HasNAT       bool
	NATDirection uint8 // Original or Reply: of the master
	NATProtocol  uint8
	NAT          Tuple
}

const (
	expectationSize = 52

	expectClass = 1 << 0
	expectNAT   = 1 << 1
)

// AppendExpectation appends x as an AttrExpectation attribute.
func (a Attributes) AppendExpectation(x *Expectation) Attributes {
	var v [expectationSize]byte
	le := binary.LittleEndian
	le.PutUint32(v[0:], uint32(x.Flags))
	le.PutUint32(v[4:], x.Class)
	if x.HasClass {
		v[8] |= expectClass
	}
	if x.HasNAT {
		v[8] |= expectNAT
	}
	v[9], v[10] = x.NATDirection, x.NATProtocol
	encodeTuple(v[12:48], &x.NAT)
	return a.Append(AttrExpectation, v[:])
}

// Expectation returns the tail's AttrExpectation. An expectation whose tail has
// none has no flags, no class and no NAT.
func (a Attributes) Expectation() (x Expectation, ok bool) {
	v, ok := a.Get(AttrExpectation)
	if !ok || len(v) != expectationSize {
		return x, false
	}
	le := binary.LittleEndian
	x.Flags, x.Class = ExpectFlags(le.Uint32(v)), le.Uint32(v[4:])
	x.HasClass, x.HasNAT = v[8]&expectClass != 0, v[8]&expectNAT != 0
	x.NATDirection, x.NATProtocol = v[9], v[10]
	decodeTuple(v[12:48], &x.NAT)
	return x, true
}

// An ExpectationKey is the identity of an expectation, as the kernel compares
// them: who expects what. It is comparable and has no pointers.
type ExpectationKey struct {
	Tuple, Mask, Master              Tuple
	Zone                             uint16
	Family, Protocol, MasterProtocol uint8
}

// ExpectationKey returns the identity of an event of kind Expect or Unexpect.
func (f *Flow) ExpectationKey() ExpectationKey {
	k := ExpectationKey{Tuple: f.Original, Mask: f.Reply, Zone: f.Zone, Family: f.Family, Protocol: f.Protocol}
	if m, ok := f.Tail.Master(); ok {
		k.Master, k.MasterProtocol = m.Tuple, m.Protocol
	}
	return k
}

// AppendExpectation appends the flow of an Expect or Unexpect to p on one line, as
// `conntrack -L expect` prints it.
func (f *Flow) AppendExpectation(p []byte) []byte {
	x, known := f.Tail.Expectation()
	if f.Has(HasTimeout) {
		p = append(appendNumber(p, "", uint64(f.Timeout)), ' ')
	}
	p = appendNumber(p, "proto=", uint64(f.Protocol))
	p = appendTuple(p, f.Family, f.Protocol, &f.Original)
	p = appendMask(p, f.Family, f.Protocol, &f.Reply)
	if m, ok := f.Tail.Master(); ok {
		p = appendAddresses(p, " master-src=", " master-dst=", m.Family, &m.Tuple)
		p = appendPorts(p, m.Protocol, &m.Tuple)
	}
	p = appendNonZero(p, " zone=", f.Zone)
	if known {
		p = x.appendText(p, f.Family)
	}
	for _, a := range [...]struct {
		name string
		attr Attr
	}{{" helper=", AttrHelper}, {" function=", AttrFunction}} {
		if v, ok := f.Tail.Get(a.attr); ok {
			p = append(append(p, a.name...), printable(v)...)
		}
	}
	return p
}

func (x *Expectation) appendText(p []byte, family uint8) []byte {
	for _, flag := range x.Flags.Names() {
		p = append(append(p, ' '), flag...)
	}
	if x.HasClass {
		p = appendNumber(p, " class=", uint64(x.Class))
	}
	if x.HasNAT {
		p = Address(family, x.NAT.Source).AppendTo(append(p, " nat-src="...))
		p = appendNumber(p, " nat-sport=", uint64(x.NAT.SourcePort))
		p = appendNumber(p, " nat-dir=", uint64(x.NATDirection))
	}
	return p
}

// appendMask appends a mask, which has ports where its protocol has them: a
// mask of ICMP's type, code and id is no more than its ports.
func appendMask(p []byte, family, protocol uint8, t *Tuple) []byte {
	p = appendAddresses(p, " mask-src=", " mask-dst=", family, t)
	return appendPorts(p, protocol, t)
}

// Names returns the names of the flags that are set, as conntrack(8) prints
// them; flags without a name are left out.
func (f ExpectFlags) Names() []string {
	names := []string{}
	for i, name := range [...]string{"PERMANENT", "INACTIVE", "USERSPACE"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}
