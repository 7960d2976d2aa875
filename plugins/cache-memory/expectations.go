package cachememory

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// A class is what the entries that one limit is for have in common. Expectations
// are in the table that flows are in, under keys that no flow has, so that all
// rules are the same for both. They are few.
type class uint8

const (
	flows class = iota
	expectations
	classes
)

// noun is what one entry of a class is called.
func (c class) noun() string { return [...]string{"flows", "expectations"}[c] }

// classOf returns what a record is about.
func classOf(r []byte) class {
	if k := flow.Kind(r[2]); k == flow.Expect || k == flow.Unexpect {
		return expectations
	}
	return flows
}

// expectationKey returns the key of an expectation. A digest, since its identity,
// three tuples, is longer than a flow's; one that nobody can find collisions
// of, since peers choose what goes in.
func expectationKey(r flow.Record) (k key) {
	var e flow.Event
	r.Event(&e)
	x := e.ExpectationKey()
	const size = 36
	var b [3*size + 5]byte
	for i, t := range [...]*flow.Tuple{&x.Tuple, &x.Mask, &x.Master} {
		at := b[size*i:]
		copy(at[0:], t.Source[:])
		copy(at[16:], t.Destination[:])
		binary.LittleEndian.PutUint16(at[32:], t.SourcePort)
		binary.LittleEndian.PutUint16(at[34:], t.DestinationPort)
	}
	binary.LittleEndian.PutUint16(b[3*size:], x.Zone)
	b[3*size+2], b[3*size+3], b[3*size+4] = x.Family, x.Protocol, x.MasterProtocol
	sum := sha256.Sum256(b[:])
	copy(k[2:], sum[:])
	return k
}

// restate replaces what is known of an expectation: unlike a flow's, its events
// tell all of it. It says whether that changed more than the timeout; all else
// in the head is its identity.
func (c *core) restate(e *entry, r flow.Record) (changed bool) {
	c.table.event(e, &c.update)
	changed = !sameTail(c.update.Tail, c.event.Tail) || !sameTail(c.event.Tail, c.update.Tail)
	c.replace(e, r)
	return changed
}
