package flow

import (
	"encoding/binary"
	"iter"
)

// Attr is the type of an attribute in a flow's tail.
type Attr uint16

// The attributes of the tail with their values. Integers are little-endian.
// Types that are not listed are kept and passed on as they are.
const (
	AttrLabels     Attr = 1 // connection labels, 16 bytes as the kernel has them
	AttrHelper     Attr = 2 // name of the helper, without NUL
	AttrMaster     Attr = 3 // tuple of the master: see Master
	AttrSeqAdj     Attr = 4 // 6 × u32: original {position, before, after}, reply {…}
	AttrSynproxy   Attr = 5 // 3 × u32: isn, its, tsoff
	AttrSCTPTags   Attr = 6 // 2 × u32: verification tag, original and reply
	AttrCounters   Attr = 7 // 4 × u64: original {packets, bytes}, reply {…}
	AttrTimestamps Attr = 8 // 2 × u64: start, stop, nanoseconds since 1970; 0 = not known
	AttrDCCP       Attr = 9 // 3 bytes: state, role, 0; then u64 handshake sequence

	AttrExpectation Attr = 10 // of kinds Expect and Unexpect: see Expectation
	AttrFunction    Attr = 11 // of the same: name of the function that the kernel calls, without NUL
)

// Attributes is the tail of a flow: attributes one after another, each a u16
// type, a u16 length of the value, the value, and zero bytes up to a multiple
// of four. No type occurs twice.
type Attributes []byte

const attrHeader = 4

func padded(n int) int { return (n + 3) &^ 3 }

func (a Attributes) check(offset int) error {
	for rest := a; len(rest) > 0; {
		at := offset + len(a) - len(rest)
		if len(rest) < attrHeader {
			return malformed(at, "attribute cut short")
		}
		size := attrHeader + padded(int(binary.LittleEndian.Uint16(rest[2:])))
		if size > len(rest) {
			return malformed(at, "attribute of %d bytes, %d are left", size, len(rest))
		}
		rest = rest[size:]
	}
	return nil
}

// All yields each attribute's type and value. Values refer to a's memory.
func (a Attributes) All() iter.Seq2[Attr, []byte] {
	return func(yield func(Attr, []byte) bool) {
		for rest := a; len(rest) >= attrHeader; {
			n := int(binary.LittleEndian.Uint16(rest[2:]))
			if !yield(Attr(binary.LittleEndian.Uint16(rest)), rest[attrHeader:attrHeader+n]) {
				return
			}
			rest = rest[attrHeader+padded(n):]
		}
	}
}

// Get returns the value of the attribute t.
func (a Attributes) Get(t Attr) ([]byte, bool) {
	for rest := a; len(rest) >= attrHeader; {
		n := int(binary.LittleEndian.Uint16(rest[2:]))
		if Attr(binary.LittleEndian.Uint16(rest)) == t {
			return rest[attrHeader : attrHeader+n], true
		}
		rest = rest[attrHeader+padded(n):]
	}
	return nil, false
}

// manyAttributes is the length of a tail from which Lookup makes an index. Known
// attributes don't make one as long.
const manyAttributes = 1 << 10

// A Lookup finds attributes of one tail.
type Lookup struct {
	tail  Attributes
	index map[Attr][]byte // nil: the tail is short enough to look through
}

// Lookup is for a caller who asks for many attributes: with a tail of thousands,
// which only a hostile peer sends, to look through it for each would take a
// second.
func (a Attributes) Lookup() Lookup {
	l := Lookup{tail: a}
	if len(a) >= manyAttributes {
		l.index = make(map[Attr][]byte, len(a)/attrHeader)
		for t, v := range a.All() {
			if _, again := l.index[t]; !again {
				l.index[t] = v
			}
		}
	}
	return l
}

// Get is Attributes.Get.
func (l *Lookup) Get(t Attr) ([]byte, bool) {
	if l.index == nil {
		return l.tail.Get(t)
	}
	v, ok := l.index[t]
	return v, ok
}

// Has says whether there is an attribute t.
func (a Attributes) Has(t Attr) bool {
	_, ok := a.Get(t)
	return ok
}

// Append appends an attribute and returns the longer tail. The caller sees to
// it that the type is not there yet.
func (a Attributes) Append(t Attr, value []byte) Attributes {
	a = binary.LittleEndian.AppendUint16(a, uint16(t))
	a = binary.LittleEndian.AppendUint16(a, uint16(len(value)))
	a = append(a, value...)
	for len(a)%4 != 0 {
		a = append(a, 0)
	}
	return a
}

// Without returns the tail without the attribute t, appended to buf.
func (a Attributes) Without(t Attr, buf []byte) Attributes {
	for rest := a; len(rest) >= attrHeader; {
		size := attrHeader + padded(int(binary.LittleEndian.Uint16(rest[2:])))
		if Attr(binary.LittleEndian.Uint16(rest)) != t {
			buf = append(buf, rest[:size]...)
		}
		rest = rest[size:]
	}
	return buf
}

// A Master is the value of AttrMaster: whose helper expected the flow.
type Master struct {
	Family, Protocol uint8
	Zone             uint16
	Tuple            Tuple
}

const masterSize = 40

// AppendMaster appends m as an AttrMaster attribute.
func (a Attributes) AppendMaster(m *Master) Attributes {
	var v [masterSize]byte
	v[0], v[1] = m.Family, m.Protocol
	binary.LittleEndian.PutUint16(v[2:], m.Zone)
	encodeTuple(v[4:], &m.Tuple)
	return a.Append(AttrMaster, v[:])
}

// Master returns the flow's master.
func (a Attributes) Master() (m Master, ok bool) {
	v, ok := a.Get(AttrMaster)
	if !ok || len(v) != masterSize {
		return m, false
	}
	m.Family, m.Protocol = v[0], v[1]
	m.Zone = binary.LittleEndian.Uint16(v[2:])
	decodeTuple(v[4:], &m.Tuple)
	return m, true
}
