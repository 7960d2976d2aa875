package cachememory

import (
	"encoding/binary"
	"hash/maphash"

	"github.com/sluice-project/sluice/core/flow"
)

// A key is a flow's identity cut out of its record: family and protocol, zone
// and original zone, original tuple. An expectation's is a digest, which begins
// with a family that no flow has.
type key [42]byte

func keyOf(r flow.Record) key {
	if classOf(r) == expectations {
		return expectationKey(r)
	}
	return flowKey(r)
}

func flowKey(r []byte) (k key) {
	copy(k[0:2], r[8:10])
	copy(k[2:6], r[12:16])
	copy(k[6:42], r[40:76])
	return k
}

// An entry is one flow or expectation, or the tombstone of one. It has no pointers, so that
// millions cost the garbage collector nothing.
type entry struct {
	head    [tuplesAt]byte // the begin of the flow's record
	tuples  packedTuples   // what follows
	tail    uint32         // where tails keeps the rest of the record
	named   uint32         // begin of the replay that named it last
	live    uint32         // epoch in which a live event touched it last
	changed uint32         // second in which it changed last
	since   uint32         // second in which it became known
	owner   uint16         // index into owners
	flags   flags
}

// flags of an entry.
type flags uint8

const (
	flagUsed     flags = 1 << iota // the slot has an entry
	flagDead                       // the flow ended; the entry is a tombstone, or about to go
	flagSent                       // the stages below know the flow
	flagForeign                    // another node's flow: never sent, never replayed
	flagPending                    // touched by this batch, waiting for emit
	flagChanged                    // there is something to emit
	flagReplaced                   // what the stages below know is of another flow
	flagWide                       // the tuples are not those of IPv4
)

func (e *entry) has(f flags) bool { return e.flags&f != 0 }
func (e *entry) set(f flags)      { e.flags |= f }
func (e *entry) clear(f flags)    { e.flags &^= f }

// alive says whether e is a flow and no tombstone.
func (e *entry) alive() bool { return e.flags&(flagUsed|flagDead) == flagUsed }

func (e *entry) class() class { return classOf(e.head[:]) }

func (e *entry) tailSize() int {
	return int(binary.LittleEndian.Uint16(e.head[:])) - flow.HeadSize
}

const (
	chunkSize = 1024 // entries that are allocated at once
	entrySize = 88   // bytes
)

// A table stores entries in slots. Slot 0 is none. Slots don't move as long as
// their entry lives.
type table struct {
	chunks  []*[chunkSize]entry
	last    uint32 // the highest slot that was ever used
	free    uint32 // the first of the free slots, linked through entry.tail
	index   index
	tails   tails
	wide    slab   // of tuples
	scratch []byte // of headOf
	seed    maphash.Seed
}

func newTable() table { return table{seed: maphash.MakeSeed()} }

// at returns the entry of a slot up to last.
func (t *table) at(slot uint32) *entry { return &t.chunks[slot/chunkSize][slot%chunkSize] }

func (t *table) hash(k *key) uint32 { return uint32(maphash.Bytes(t.seed, k[:])) }

// find returns the slot of a key, or 0.
func (t *table) find(k *key) uint32 {
	h := t.hash(k)
	for i := t.index.first(h); ; i = t.index.after(i) {
		b := t.index.bucket(i)
		if b.slot == 0 {
			return 0
		}
		if b.hash == h && t.key(t.at(b.slot)) == *k {
			return b.slot
		}
	}
}

// key returns the key under which an entry is stored.
func (t *table) key(e *entry) (k key) {
	if e.class() == expectations {
		return keyOf(t.appendRecord(nil, e))
	}
	copy(k[0:2], e.head[8:10])
	copy(k[2:6], e.head[12:16])
	t.originalTuple(e, k[6:42])
	return k
}

// insert stores a record under its key, which must not be there, and returns
// its slot. All else of the entry is zero.
func (t *table) insert(k *key, r flow.Record) uint32 {
	slot := t.free
	if slot != 0 {
		t.free = t.at(slot).tail
	} else {
		t.last++
		slot = t.last
		if slot/chunkSize == uint32(len(t.chunks)) {
			t.chunks = append(t.chunks, new([chunkSize]entry))
		}
	}
	e := t.at(slot)
	*e = entry{flags: flagUsed}
	t.setHead(e, r)
	e.tail = t.tails.put(r[flow.HeadSize:])
	t.index.add(t.hash(k), slot)
	return slot
}

// remove frees a slot.
func (t *table) remove(slot uint32) {
	e := t.at(slot)
	k := t.key(e)
	t.index.remove(t.hash(&k), slot)
	t.tails.drop(e.tail, e.tailSize())
	t.dropTuples(e)
	*e = entry{tail: t.free}
	t.free = slot
}

// replace stores another record of the same key. r must not lie in the table.
func (t *table) replace(e *entry, r flow.Record) {
	e.tail = t.tails.replace(e.tail, e.tailSize(), r[flow.HeadSize:])
	t.setHead(e, r)
}

// event decodes an entry. The tail refers to the table's memory.
func (t *table) event(e *entry, ev *flow.Event) {
	t.headOf(e).Event(ev)
	ev.Tail = t.tails.get(e.tail, e.tailSize())
}

// headOf returns an entry's record without its tail, valid until the next call.
func (t *table) headOf(e *entry) flow.Record {
	t.scratch = t.appendHead(t.scratch[:0], e)
	return t.scratch
}

// appendRecord appends an entry's record to p.
func (t *table) appendRecord(p []byte, e *entry) []byte {
	return append(t.appendHead(p, e), t.tails.get(e.tail, e.tailSize())...)
}

// bytes returns how much memory the table has allocated.
func (t *table) bytes() int {
	return len(t.chunks)*chunkSize*entrySize + t.index.bytes() + t.tails.bytes() + t.wide.bytes(wideSize)
}
