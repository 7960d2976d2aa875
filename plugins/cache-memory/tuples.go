package cachememory

import (
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// Where a record has its two tuples (docs/batch.md): each two addresses of 16
// bytes and 4 bytes of ports.
const (
	tuplesAt  = 40
	tupleSize = 36
)

// packedTuples are the two tuples of an entry. Of IPv4, as most are, without the
// zeros behind each address: 24 bytes. Others go on in the slab wide, at the place
// that the last four bytes tell.
type packedTuples [24]byte

const (
	inlineSize = 20                       // bytes of wide tuples that the entry has
	wideSize   = 2*tupleSize - inlineSize // those that the slab has
)

// isNarrow says whether all addresses of a record have zeros behind the first four
// bytes. (One of IPv6 may have, too.)
func isNarrow(r []byte) bool {
	le := binary.LittleEndian
	var rest uint64
	for _, at := range [...]int{40, 56, 76, 92} {
		rest |= uint64(le.Uint32(r[at+4:])) | le.Uint64(r[at+8:])
	}
	return rest == 0
}

// setHead stores a record's head.
func (t *table) setHead(e *entry, r []byte) {
	copy(e.head[:], r)
	if isNarrow(r) {
		t.dropTuples(e)
		p := &e.tuples
		copy(p[0:4], r[40:44])
		copy(p[4:8], r[56:60])
		copy(p[8:12], r[72:76])
		copy(p[12:16], r[76:80])
		copy(p[16:20], r[92:96])
		copy(p[20:24], r[108:112])
		return
	}
	if !e.has(flagWide) {
		e.set(flagWide)
		e.setPlace(t.wide.take(wideSize))
	}
	copy(e.tuples[:inlineSize], r[tuplesAt:])
	copy(t.wide.at(e.place(), wideSize), r[tuplesAt+inlineSize:flow.HeadSize])
}

// dropTuples frees what an entry has in the slab.
func (t *table) dropTuples(e *entry) {
	if e.has(flagWide) {
		t.wide.free(e.place(), wideSize)
		e.clear(flagWide)
	}
}

func (e *entry) place() uint32     { return binary.LittleEndian.Uint32(e.tuples[inlineSize:]) }
func (e *entry) setPlace(p uint32) { binary.LittleEndian.PutUint32(e.tuples[inlineSize:], p) }

// appendHead appends an entry's record without its tail to p.
func (t *table) appendHead(p []byte, e *entry) []byte {
	p = append(p, e.head[:]...)
	if e.has(flagWide) {
		p = append(p, e.tuples[:inlineSize]...)
		return append(p, t.wide.at(e.place(), wideSize)...)
	}
	var r [2 * tupleSize]byte
	widen(r[:tupleSize], e.tuples[:12])
	widen(r[tupleSize:], e.tuples[12:])
	return append(p, r[:]...)
}

// originalTuple writes an entry's original tuple to p, which is zero.
func (t *table) originalTuple(e *entry, p []byte) {
	if e.has(flagWide) {
		n := copy(p, e.tuples[:inlineSize])
		copy(p[n:tupleSize], t.wide.at(e.place(), wideSize))
		return
	}
	widen(p, e.tuples[:12])
}

// widen writes one tuple of IPv4 to p, which is zero.
func widen(p, packed []byte) {
	_, _ = p[tupleSize-1], packed[11]
	copy(p[0:4], packed[0:4])
	copy(p[16:20], packed[4:8])
	copy(p[32:36], packed[8:12])
}
