package cachememory

import (
	"encoding/binary"
	"math/bits"
)

// tails stores the tails of records, which most flows don't have: one slab for
// each size from 16 bytes to 64 KiB by powers of two. A place is a number
// within its slab, which the tail's length tells.
type tails [13]slab

// A slab has places of one size in chunks without pointers.
type slab struct {
	chunks    [][]byte
	next      uint32 // places ever used
	firstFree uint32 // plus one; the free places are linked through their first bytes
}

const (
	minTail   = 16
	slabChunk = 16 << 10 // bytes, or one place if that is larger
)

// sizeClass returns which slab a tail of n bytes, not 0, belongs to.
func sizeClass(n int) int { return bits.Len(uint(n-1) / minTail) }

func (t *tails) bytes() (n int) {
	for c := range t {
		n += t[c].bytes(minTail << c)
	}
	return n
}

func (s *slab) bytes(size int) int { return len(s.chunks) * max(slabChunk, size) }

// put stores b and returns its place; an empty one needs none.
func (t *tails) put(b []byte) uint32 {
	if len(b) == 0 {
		return 0
	}
	c := sizeClass(len(b))
	s, size := &t[c], minTail<<c
	place := s.take(size)
	copy(s.at(place, size), b)
	return place
}

// take returns a place that nobody has.
func (s *slab) take(size int) (place uint32) {
	if s.firstFree != 0 {
		place = s.firstFree - 1
		s.firstFree = binary.LittleEndian.Uint32(s.at(place, size))
		return place
	}
	if s.next%perChunk(size) == 0 {
		s.chunks = append(s.chunks, make([]byte, max(slabChunk, size)))
	}
	s.next++
	return s.next - 1
}

// free takes a place back.
func (s *slab) free(place uint32, size int) {
	binary.LittleEndian.PutUint32(s.at(place, size), s.firstFree)
	s.firstFree = place + 1
}

// get returns the tail of n bytes at a place.
func (t *tails) get(place uint32, n int) []byte {
	if n == 0 {
		return nil
	}
	c := sizeClass(n)
	return t[c].at(place, minTail<<c)[:n:n]
}

// drop frees a place.
func (t *tails) drop(place uint32, n int) {
	if n == 0 {
		return
	}
	c := sizeClass(n)
	t[c].free(place, minTail<<c)
}

// replace stores b instead of the n bytes at a place and returns its place.
func (t *tails) replace(place uint32, n int, b []byte) uint32 {
	if n > 0 && len(b) > 0 && sizeClass(n) == sizeClass(len(b)) {
		c := sizeClass(n)
		copy(t[c].at(place, minTail<<c), b)
		return place
	}
	t.drop(place, n)
	return t.put(b)
}

func perChunk(size int) uint32 { return uint32(max(1, slabChunk/size)) }

func (s *slab) at(place uint32, size int) []byte {
	n := perChunk(size)
	i := int(place%n) * size
	return s.chunks[place/n][i : i+size]
}
