package ctnl

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"

	"github.com/sluice-project/sluice/core/flow"
)

// A filter on the event socket, in classic BPF, judges messages before they take
// room in its buffer. It relies on how the kernel lays events out: a message of
// subsystem NFNL_SUBSYS_CTNETLINK begins with the two tuples, and a tuple with
// its addresses and its protocol (ctnetlink_conntrack_event, ctnetlink_dump_tuples).
// Whatever is not laid out so passes, as do expectations: they are for the filter
// stages to judge.

// Offsets in a message, with the headers: nfgen_family, the original tuple's
// attribute, and in a tuple, counted from its attribute.
const (
	atPort   = 12
	atFamily = nlHeader
	atTuple  = nlHeader + nfHeader

	inTupleIP     = 4
	inTupleSource = 8 // its attribute; the address is behind its header
)

// byteOf is the offset of a byte of a native 16-bit number at an offset.
func byteOf(at int, high bool) uint32 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], 1)
	if (b[0] == 1) == high { // little-endian
		at++
	}
	return uint32(at)
}

// native16 and native32 are numbers of the host's order as BPF reads them.
func native16(v uint16) uint32 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], v)
	return uint32(binary.BigEndian.Uint16(b[:]))
}

func native32(v uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v)
	return binary.BigEndian.Uint32(b[:])
}

// program assembles instructions whose jumps go to labels, all of them forward.
type program struct {
	instructions []bpf.Instruction
	jumps        map[int]label // instruction, a bpf.Jump
	places       []int         // of labels
}

type label int

func (p *program) newLabel() label {
	p.places = append(p.places, -1)
	return label(len(p.places) - 1)
}

func (p *program) here(l label) { p.places[l] = len(p.instructions) }

func (p *program) add(i ...bpf.Instruction) { p.instructions = append(p.instructions, i...) }

func (p *program) jump(l label) {
	p.jumps[len(p.instructions)] = l
	p.add(bpf.Jump{})
}

// jumpIf takes two instructions, since a conditional jump reaches 255 only.
func (p *program) jumpIf(test bpf.JumpTest, value uint32, l label) {
	p.add(bpf.JumpIf{Cond: test, Val: value, SkipFalse: 1})
	p.jump(l)
}

func (p *program) load(at uint32, size int) { p.add(bpf.LoadAbsolute{Off: at, Size: size}) }

func (p *program) assemble() ([]bpf.RawInstruction, error) {
	if len(p.instructions) > maxInstructions {
		return nil, fmt.Errorf("a filter of %d instructions: the kernel takes %d", len(p.instructions), maxInstructions)
	}
	for at, l := range p.jumps {
		p.instructions[at] = bpf.Jump{Skip: uint32(p.places[l] - at - 1)}
	}
	return bpf.Assemble(p.instructions)
}

// maxInstructions is BPF_MAXINSNS.
const maxInstructions = 4096

// A judgement is how much of the screens a program judges.
type judgement struct{ v4, v6 bool } // their addresses; protocols always

// judgements are in the order in which they are tried: the kernel bounds a
// program's length, and net.core.optmem_max its memory.
var judgements = []judgement{{true, true}, {true, false}, {false, false}}

// attachFilter puts the filter on a socket that takes part in no group yet, and
// returns what of the screens it does not judge, in words.
func attachFilter(conn *netlink.Conn, c *EventsConfig) (unjudged string, err error) {
	for i, unjudged := range [...]string{"", "IPv6 addresses", "addresses"} {
		var program []bpf.RawInstruction
		if program, err = eventFilter(c.DropPorts, c.Screens, judgements[i]); err == nil && program != nil {
			err = conn.SetBPF(program)
		}
		if err == nil || len(c.Screens) == 0 {
			return unjudged, err
		}
	}
	return "", err
}

// eventFilter makes the program: nil if it would pass everything.
func eventFilter(dropPorts []uint32, screens []flow.Screen, j judgement) ([]bpf.RawInstruction, error) {
	if len(dropPorts) == 0 && len(screens) == 0 {
		return nil, nil
	}
	p := &program{jumps: map[int]label{}}
	pass, drop := p.newLabel(), p.newLabel()
	if len(dropPorts) > 0 {
		p.load(atPort, 4)
		for _, port := range dropPorts {
			p.jumpIf(bpf.JumpEqual, native32(port), drop)
		}
	}
	if len(screens) > 0 {
		p.judge(screens, j, pass, drop)
	}
	p.here(pass)
	p.add(bpf.RetConstant{Val: 1 << 18})
	p.here(drop)
	p.add(bpf.RetConstant{Val: 0})
	return p.assemble()
}

// judge jumps to drop if a screen does not pass a flow's event, else to pass.
func (p *program) judge(screens []flow.Screen, j judgement, pass, drop label) {
	p.add(bpf.LoadExtension{Num: bpf.ExtLen})
	p.jumpIf(bpf.JumpLessThan, uint32(layoutOf(flow.IPv6).end), pass)
	p.load(byteOf(4, true), 1) // nlmsg_type's subsystem
	p.jumpIf(bpf.JumpNotEqual, subsystem>>8, pass)
	v6 := p.newLabel()
	p.load(atFamily, 1)
	p.jumpIf(bpf.JumpEqual, uint32(flow.IPv6), v6)
	p.jumpIf(bpf.JumpNotEqual, uint32(flow.IPv4), pass)
	p.judgeFamily(flow.IPv4, screens, j.v4, pass, drop)
	p.here(v6)
	p.judgeFamily(flow.IPv6, screens, j.v6, pass, drop)
}

// layout is where a tuple of a family has its parts, counted from its attribute,
// and from the message where nothing else is said.
type layout struct {
	length                                  int    // of an address
	sourceType, destinationType             uint16 // of the attributes
	source, destination                     int    // the addresses
	destinationHeader, proto, number, value int    // attributes, and the protocol itself
	end                                     int    // of a message that has all that of the original tuple
}

func layoutOf(family uint8) layout {
	l := layout{length: 4, sourceType: ctaIPv4Src, destinationType: ctaIPv4Dst}
	if family == flow.IPv6 {
		l = layout{length: 16, sourceType: ctaIPv6Src, destinationType: ctaIPv6Dst}
	}
	l.source = inTupleSource + nlaHeader
	l.destinationHeader = l.source + l.length
	l.destination = l.destinationHeader + nlaHeader
	l.proto = l.destination + l.length
	l.number = l.proto + nlaHeader
	l.value = l.number + nlaHeader
	l.end = atTuple + l.value + 1
	return l
}

// judgeFamily is judge for the messages of one family.
func (p *program) judgeFamily(family uint8, screens []flow.Screen, addresses bool, pass, drop label) {
	l := layoutOf(family)
	p.verify(l, pass)
	for _, s := range screens {
		if s.Protocols != nil {
			p.judgeProtocol(s.Protocols, uint32(atTuple+l.value), drop)
		}
		prefixes := ofFamily(s.Addresses, family)
		if s.Addresses == nil || !addresses && len(prefixes) > 0 {
			continue
		}
		named, next := p.newLabel(), p.newLabel()
		for _, at := range []bpf.Instruction{bpf.LoadAbsolute{Off: uint32(atTuple + l.source)}, bpf.LoadIndirect{Off: uint32(atTuple + l.source)}} {
			p.search(at, prefixes, named)
		}
		if s.Addresses.Accept { // not named
			p.jump(drop)
		} else {
			p.jump(next)
		}
		p.here(named)
		if !s.Addresses.Accept {
			p.jump(drop)
		}
		p.here(next)
	}
	p.jump(pass)
}

// verify jumps to pass unless the message is laid out as it has to be. Then X is
// the length of the original tuple's attribute: what the reply tuple is behind.
func (p *program) verify(l layout, pass label) {
	ipSize := uint16(nlaHeader + 2*(nlaHeader+l.length))
	p.expect(bpf.LoadAbsolute{Off: atTuple + 2, Size: 2}, native16(ctaTupleOrig|nlaNested), pass)
	p.expect(bpf.LoadAbsolute{Off: atTuple + inTupleIP, Size: 4}, header(ipSize, ctaTupleIP|nlaNested), pass)
	p.expect(bpf.LoadAbsolute{Off: atTuple + inTupleSource, Size: 4}, header(l.addressSize(), l.sourceType), pass)
	p.expect(bpf.LoadAbsolute{Off: uint32(atTuple + l.destinationHeader), Size: 4}, header(l.addressSize(), l.destinationType), pass)
	p.expect(bpf.LoadAbsolute{Off: uint32(atTuple + l.proto + 2), Size: 2}, native16(ctaTupleProto|nlaNested), pass)
	p.expect(bpf.LoadAbsolute{Off: uint32(atTuple + l.number), Size: 4}, header(nlaHeader+1, ctaProtoNum), pass)
	p.load(byteOf(atTuple, true), 1)
	p.jumpIf(bpf.JumpNotEqual, 0, pass) // no tuple is as long as 256 bytes
	p.load(byteOf(atTuple, false), 1)
	p.jumpIf(bpf.JumpBitsSet, 3, pass) // what follows is aligned, so it is there
	p.add(bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: uint32(atTuple + l.destinationHeader)}, bpf.TAX{}, bpf.LoadExtension{Num: bpf.ExtLen})
	p.add(bpf.JumpIfX{Cond: bpf.JumpGreaterOrEqual, SkipTrue: 1})
	p.jump(pass)
	p.load(byteOf(atTuple, false), 1)
	p.add(bpf.TAX{})
	p.expect(bpf.LoadIndirect{Off: atTuple + 2, Size: 2}, native16(ctaTupleReply|nlaNested), pass)
	p.expect(bpf.LoadIndirect{Off: atTuple + inTupleIP, Size: 4}, header(ipSize, ctaTupleIP|nlaNested), pass)
	p.expect(bpf.LoadIndirect{Off: atTuple + inTupleSource, Size: 4}, header(l.addressSize(), l.sourceType), pass)
}

// expect jumps to pass unless what is loaded has a value.
func (p *program) expect(load bpf.Instruction, value uint32, pass label) {
	p.add(load)
	p.jumpIf(bpf.JumpNotEqual, value, pass)
}

// header is an attribute's, as a word that BPF loads.
func header(size, typ uint16) uint32 { return native16(size)<<16 | native16(typ) }

func (l *layout) addressSize() uint16 { return uint16(nlaHeader + l.length) }

func (p *program) judgeProtocol(list *flow.ProtocolList, at uint32, drop label) {
	named, next := drop, p.newLabel()
	if list.Accept {
		named = next
	}
	p.load(at, 1)
	for _, number := range list.Protocols {
		p.jumpIf(bpf.JumpEqual, uint32(number), named)
	}
	if list.Accept {
		p.jump(drop)
	}
	p.here(next)
}

func ofFamily(list *flow.AddressList, family uint8) (prefixes []netip.Prefix) {
	if list == nil {
		return nil
	}
	for _, p := range list.Prefixes {
		if p.Addr().Is4() == (family == flow.IPv4) {
			prefixes = append(prefixes, p.Masked())
		}
	}
	return prefixes
}

// search jumps to named if the address that begins at a place is in a prefix, and
// else goes on behind itself. All prefixes are of the address's family.
func (p *program) search(at bpf.Instruction, prefixes []netip.Prefix, named label) {
	if len(prefixes) == 0 {
		return
	}
	not := p.newLabel()
	if prefixes[0].Addr().Is4() {
		p.add(word(at, 0))
		p.searchRanges(boundaries(prefixes), false, named, not)
	} else {
		for _, prefix := range prefixes {
			p.compare(at, prefix, named)
		}
	}
	p.here(not)
}

// word returns the instruction that loads the i-th word of an address.
func word(at bpf.Instruction, i int) bpf.Instruction {
	switch at := at.(type) {
	case bpf.LoadAbsolute:
		return bpf.LoadAbsolute{Off: at.Off + uint32(4*i), Size: 4}
	case bpf.LoadIndirect:
		return bpf.LoadIndirect{Off: at.Off + uint32(4*i), Size: 4}
	}
	panic("no load")
}

// compare jumps to named if an IPv6 address is in a prefix.
func (p *program) compare(at bpf.Instruction, prefix netip.Prefix, named label) {
	not, a := p.newLabel(), prefix.Addr().As16()
	for i := 0; 32*i < prefix.Bits(); i++ {
		p.add(word(at, i))
		if bits := prefix.Bits() - 32*i; bits < 32 {
			p.add(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: ^uint32(0) << (32 - bits)})
		}
		p.jumpIf(bpf.JumpNotEqual, binary.BigEndian.Uint32(a[4*i:]), not)
	}
	p.jump(named)
	p.here(not)
}

// boundaries turns IPv4 prefixes into the addresses, in order, at which a walk
// over all addresses enters the set and leaves it again.
func boundaries(prefixes []netip.Prefix) (at []uint32) {
	type span struct{ first, after uint64 }
	var spans []span
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	for _, prefix := range prefixes {
		a := prefix.Addr().As4()
		first := uint64(binary.BigEndian.Uint32(a[:]))
		after := first + uint64(1)<<(32-prefix.Bits())
		if n := len(spans); n > 0 && first <= spans[n-1].after {
			spans[n-1].after = max(spans[n-1].after, after)
		} else {
			spans = append(spans, span{first, after})
		}
	}
	for _, s := range spans {
		if at = append(at, uint32(s.first)); s.after <= math.MaxUint32 {
			at = append(at, uint32(s.after))
		}
	}
	return at
}

// searchRanges finds by halves between which boundaries A is. inside says whether
// what is below the first of them is in the set.
func (p *program) searchRanges(boundaries []uint32, inside bool, named, not label) {
	if len(boundaries) == 0 {
		if inside {
			p.jump(named)
		} else {
			p.jump(not)
		}
		return
	}
	middle, above := len(boundaries)/2, p.newLabel()
	p.jumpIf(bpf.JumpGreaterOrEqual, boundaries[middle], above)
	p.searchRanges(boundaries[:middle], inside, named, not)
	p.here(above)
	p.searchRanges(boundaries[middle+1:], inside != (middle%2 == 0), named, not)
}
