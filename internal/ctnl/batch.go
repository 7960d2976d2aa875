package ctnl

import (
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// A batch is requests that go to the kernel together, and their first steps as
// messages.
type batch struct {
	slots  [batchLength]request
	length int
	first  uint32 // sequence number of the first
	buf    []byte

	// buckets finds a slot by its flow: open addressing, of slots counted from 1.
	// The few that a batch has need no more, whatever their hashes are.
	buckets [4 * batchLength]uint8
}

// hash mixes what most often differs. It decides only where the search begins.
func hash(k *flow.Key) uint32 {
	le := binary.LittleEndian
	h := uint64(k.SourcePort)<<16 | uint64(k.DestinationPort)
	for _, a := range [...][]byte{k.Source[:8], k.Source[8:], k.Destination[:8], k.Destination[8:]} {
		h = (h ^ le.Uint64(a)) * 0x9e3779b97f4a7c15
	}
	return uint32(h >> 32)
}

// find returns the bucket of a flow, or the empty one where it belongs.
func (b *batch) find(k *flow.Key) *uint8 {
	for i := hash(k); ; i++ {
		at := &b.buckets[i%uint32(len(b.buckets))]
		if *at == 0 || b.slots[*at-1].flow.Key() == *k {
			return at
		}
	}
}

func (b *batch) has(k *flow.Key) bool { return *b.find(k) != 0 }

// add adds a request about a flow of which there is none yet.
func (b *batch) add(op operation, f *flow.Flow, k *flow.Key, timeout uint32, liberal bool) {
	at := b.find(k)
	r := &b.slots[b.length]
	r.set(op, f, timeout)
	b.buf = r.appendStep(b.buf, liberal, b.first+uint32(b.length))
	b.length++
	*at = uint8(b.length)
}

func (b *batch) clear() {
	b.length, b.buf = 0, b.buf[:0]
	clear(b.buckets[:])
}
