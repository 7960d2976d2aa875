package cachememory

import (
	"bytes"
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// A core is a cache without its surroundings: the table and the policy. Its
// methods are functions of the core and their arguments.
//
// What a live record does:
//
//  1. NEW replaces what is known of the flow, all of it. UPDATE merges (see
//     flow.Flow.Merge); of an unknown flow it inserts. An UPDATE whose CTA_ID
//     is not the entry's is about another flow of the same key, and replaces.
//  2. DESTROY removes the flow, unless its CTA_ID is not the entry's (a late
//     DESTROY of a predecessor) or another node owns the entry. That of an
//     unknown flow is passed on: the stages below may know it from before this
//     cache was started.
//  3. The sender of a NEW or UPDATE becomes the entry's owner.
//  4. A flow that this node's own injection made is foreign. An event that a
//     packet caused (origin Kernel) claims it. Own events are never passed on.
//  5. It marks its key as touched, DESTROYs too, while a replay is under way:
//     see replays.go.
//  6. At the limit a flow that is not known is refused, and counted.
//  7. Expectations go by the same rules, with a limit of their own. An Expect is
//     a NEW that nobody below needs to hear of if it tells nothing new.
//
// What leaves (see emit) is the whole flow as it is known, once a batch.
type core struct {
	table
	limit        [classes]int // entries, tombstones not counted
	hold         bool         // pass on only what was committed
	writeThrough bool         // flows that only a dump told of are foreign

	everyFlow bool // a sink below logs: tell of what comes and goes within a batch, too

	owners  owners
	replays replays
	commit  commit

	count      counters
	population population
	touched    []uint32 // slots with flagPending, in the order of the first touch
	early      []byte   // records that leave before theirs, one after another

	// Scratch memory.
	event, update flow.Event
	record        []byte
	merged        []byte
}

// counters are what Statistics shows.
type counters struct {
	of [classes]tally

	unchanged       uint64 // replayed records that told nothing new
	ignoredDestroys uint64 // of another owner, or of a predecessor
	overtaken       uint64 // replayed records of keys that live events touched
	spared          uint64 // replayed records of other peers\' flows
	stale           uint64 // records of replays that were cancelled, or whose begin was lost
	incomplete      uint64 // replays that lost records
}

// A tally counts the entries of one class.
type tally struct {
	held, foreign int // that are no tombstones; of them, foreign ones

	inserted, updated, destroyed, swept uint64
	refused                             uint64 // new ones at the limit
}

func newCore(limit [classes]int, hold, writeThrough bool) *core {
	return &core{table: newTable(), limit: limit, hold: hold, writeThrough: writeThrough, owners: newOwners()}
}

// apply applies the records of a batch up to the next mark, or to the end. It
// leaves the mark in c.event and says whether there was one.
func (c *core) apply(h *flow.Header, cursor *flow.Cursor, now uint32) (mark bool) {
	owner, ok := c.owners.of(h.Owner)
	var r *replay
	if h.Replay != 0 {
		r = c.replayOf(owner, h.Replay)
	}
	for cursor.Next(&c.event) {
		switch {
		case c.event.IsMark():
			return true
		case !ok:
			c.tally(&c.event).refused++
		case h.Replay == 0:
			c.live(cursor.Record(), h.Origin, owner, now)
		case r == nil:
			c.count.stale++
		default:
			c.replayed(cursor.Record(), h.Origin, owner, r, now)
		}
	}
	return false
}

// tally returns the counters that an event is counted in.
func (c *core) tally(e *flow.Event) *tally {
	if e.IsExpectation() {
		return &c.count.of[expectations]
	}
	return &c.count.of[flows]
}

// live applies the live record r, which c.event has decoded.
func (c *core) live(r flow.Record, origin flow.Origin, owner uint16, now uint32) {
	k := keyOf(r)
	slot := c.find(&k)
	known := slot != 0 && c.at(slot).alive()
	if c.event.Kind == flow.Destroy || c.event.Kind == flow.Unexpect {
		c.destroy(r, &k, slot, origin, owner)
		return
	}
	if !known && !c.admit(classOf(r)) {
		return
	}
	foreign := origin == flow.Own
	switch {
	case !known:
		slot = c.enter(r, &k, slot, owner, foreign, now)
	case c.event.Kind == flow.Expect && !c.another(c.at(slot)):
		if c.restate(c.at(slot), r) {
			c.at(slot).set(flagChanged)
			c.tally(&c.event).updated++
		}
	case c.event.Kind == flow.New || c.another(c.at(slot)) || c.reopened(c.at(slot), owner):
		c.renew(slot, r)
	default:
		c.merge(c.at(slot))
		c.at(slot).set(flagChanged)
		c.tally(&c.event).updated++
	}
	e := c.at(slot)
	if !foreign {
		c.claim(e)
	}
	c.own(e, owner)
	e.live, e.changed = c.replays.epoch, now
	c.touch(slot)
}

// destroy applies a live DESTROY of the entry in slot, if there is one.
func (c *core) destroy(r flow.Record, k *key, slot uint32, origin flow.Origin, owner uint16) {
	if slot == 0 {
		// Written through, it may be a foreign flow's.
		tell := !c.hold && !c.writeThrough && origin != flow.Own
		if !tell && c.replays.active == 0 {
			return
		}
		slot = c.insert(k, r)
		c.at(slot).owner = owner
		c.at(slot).set(flagDead)
		if tell {
			c.at(slot).set(flagSent | flagChanged)
		}
	}
	e := c.at(slot)
	if e.alive() {
		if e.owner != owner || c.another(e) {
			c.count.ignoredDestroys++
			c.remember(k, owner)
			return
		}
		if c.everyFlow && (!e.has(flagSent) || e.has(flagReplaced)) {
			c.tellEarly(slot, e, origin)
		}
		c.event.Status &^= flow.Dying // it goes on as the flow last was
		c.merge(e)
		c.kill(e)
		c.tally(&c.event).destroyed++
		if c.everyFlow {
			c.tellEarly(slot, e, origin)
		}
	}
	e.live = c.replays.epoch
	c.touch(slot)
}

// tellEarly packs what is to be told of an entry before other records of the
// batch change it.
func (c *core) tellEarly(slot uint32, e *entry, origin flow.Origin) {
	if kind := c.verdict(slot, e, origin); kind != 0 {
		c.early = append(c.early, c.packed(e, kind)...)
	}
	e.clear(flagChanged | flagReplaced)
}

// identity says whether c.event and an entry of its key are about the same
// entry of the kernel's table, as far as both have its CTA_ID.
func (c *core) identity(e *entry) (same, known bool) {
	c.table.event(e, &c.update)
	return c.event.ID == c.update.ID, c.event.Has(flow.HasID) && c.update.Has(flow.HasID)
}

// another says whether c.event is known to be about another kernel entry.
func (c *core) another(e *entry) bool {
	same, known := c.identity(e)
	return known && !same
}

// reopened says whether c.event, of a peer, is about a later connection than that
// peer's entry: one that was closing does not open again. A conntrackd that
// hears at once of the end, of the next connection and of how that went on sends
// an UPDATE alone.
func (c *core) reopened(e *entry, owner uint16) bool {
	if owner == 0 || e.owner != owner {
		return false
	}
	c.table.event(e, &c.update)
	return closing(&c.update.Flow) && c.event.Has(flow.HasState) && !closing(&c.event.Flow)
}

func closing(f *flow.Flow) bool {
	return f.Protocol == flow.TCP && f.Has(flow.HasState) && f.State >= flow.TCPFinWait && f.State <= flow.TCPClose
}

// admit says whether there is room for one more of a class.
func (c *core) admit(of class) bool {
	if c.count.of[of].held < c.limit[of] {
		return true
	}
	c.count.of[of].refused++
	return false
}

// enter makes an entry of a record whose key is unknown (slot 0) or a tombstone's.
func (c *core) enter(r flow.Record, k *key, slot uint32, owner uint16, foreign bool, now uint32) uint32 {
	if slot == 0 {
		slot = c.insert(k, r)
	} else {
		c.revive(slot, r)
	}
	e := c.at(slot)
	e.owner, e.since = owner, now
	e.set(flagChanged)
	of, n := e.class(), c.tally(&c.event)
	n.inserted++
	n.held++
	c.owners.list[owner].held[of]++
	if of == flows {
		c.population.add(e.head[:])
	}
	if foreign {
		e.set(flagForeign)
		e.clear(flagSent)
		n.foreign++
	}
	return slot
}

// revive makes an entry of a tombstone. Within one batch the stages below have
// not been told of the end, and now never will be.
func (c *core) revive(slot uint32, r flow.Record) {
	e := c.at(slot)
	c.replace(e, r)
	if e.has(flagPending) && e.has(flagSent) {
		e.set(flagReplaced)
	} else {
		e.clear(flagSent)
	}
	e.clear(flagDead)
	e.named = 0
}

// replace stores another record of the same key, which must not lie in the
// table.
func (c *core) replace(e *entry, r flow.Record) {
	counted := e.alive() && e.class() == flows
	if counted {
		c.population.drop(e.head[:])
	}
	c.table.replace(e, r)
	if counted {
		c.population.add(e.head[:])
	}
}

// renew replaces what is known of a living flow.
func (c *core) renew(slot uint32, r flow.Record) {
	e := c.at(slot)
	c.replace(e, r)
	e.set(flagChanged | flagReplaced)
	c.tally(&c.event).updated++
}

// kill makes a tombstone of a flow.
func (c *core) kill(e *entry) {
	of := e.class()
	c.count.of[of].held--
	c.owners.list[e.owner].held[of]--
	if of == flows {
		c.population.drop(e.head[:])
	}
	if e.has(flagForeign) {
		c.count.of[of].foreign--
		e.clear(flagForeign)
	}
	e.set(flagDead | flagChanged)
}

// claim makes a foreign flow this node's own.
func (c *core) claim(e *entry) {
	if e.has(flagForeign) {
		e.clear(flagForeign)
		e.set(flagChanged)
		c.count.of[e.class()].foreign--
	}
}

// own makes a node the owner of a flow.
func (c *core) own(e *entry, owner uint16) {
	if e.owner != owner {
		of := e.class()
		c.owners.list[e.owner].held[of]--
		c.owners.list[owner].held[of]++
		e.owner = owner
		e.set(flagChanged)
	}
}

func (c *core) touch(slot uint32) {
	if e := c.at(slot); !e.has(flagPending) {
		e.set(flagPending)
		c.touched = append(c.touched, slot)
	}
}

// merge merges c.event into an entry and says whether that changed anything
// but what only time changes.
func (c *core) merge(e *entry) (changed bool) {
	c.table.event(e, &c.update)
	f := c.update.Flow
	c.merged = f.Merge(&c.event.Flow, c.merged)
	return c.store(e, &f)
}

// fill adds to an entry what c.event knows and the entry does not, and says
// whether there was something. Both are about the same kernel entry.
func (c *core) fill(e *entry) (changed bool) {
	c.table.event(e, &c.update)
	f := c.event.Flow
	c.merged = f.Merge(&c.update.Flow, c.merged)
	return c.store(e, &f)
}

// store stores a flow in place of the one in c.update, and says whether they
// differ in more than what time changes.
func (c *core) store(e *entry, f *flow.Flow) (changed bool) {
	old := &c.update
	c.record = flow.AppendRecord(c.record[:0], &flow.Event{Kind: old.Kind, Flow: *f})
	changed = !sameHead(c.headOf(e), c.record) || !sameTail(old.Tail, f.Tail)
	c.replace(e, c.record)
	return changed
}

// sameHead compares two heads without size, kind, timeout and whether that is
// known: the timeout of every flow that is read twice differs.
func sameHead(a, b []byte) bool {
	const present, timeout = 4, 24
	pa, pb := flow.Field(binary.LittleEndian.Uint32(a[present:])), flow.Field(binary.LittleEndian.Uint32(b[present:]))
	return pa|flow.HasTimeout == pb|flow.HasTimeout &&
		bytes.Equal(a[present+4:timeout], b[present+4:timeout]) &&
		bytes.Equal(a[timeout+4:flow.HeadSize], b[timeout+4:flow.HeadSize])
}

// sameTail says whether the tail b, merged from a, has nothing new but counters
// and times.
func sameTail(a, b flow.Attributes) bool {
	before := a.Lookup()
	for t, v := range b.All() {
		if t == flow.AttrCounters || t == flow.AttrTimestamps {
			continue
		}
		if was, ok := before.Get(t); !ok || !bytes.Equal(was, v) {
			return false
		}
	}
	return true
}

// emit packs what the batch with the header h changed and settles the touched
// entries:
//
//  1. One record a flow, the whole of it: New if the stages below don't know it
//     or know another flow of its key, else Update, or Destroy. (Of an
//     expectation: Expect, or Unexpect.)
//  2. A flow that came and went within the batch leaves no trace, unless a sink
//     below wants every flow: then its begin and its end leave, and so does the
//     end of one that another of its key follows.
//  3. Foreign flows, and what our own injections did, are kept to ourselves.
//  4. With hold, only flows that were committed, or that a commit under way has
//     passed by, are known below.
func (c *core) emit(h flow.Header, p *packer) {
	h.Replay, h.Edge = 0, 0
	p.start(h)
	for rest := c.early; len(rest) > 0; {
		size := binary.LittleEndian.Uint16(rest)
		p.add(rest[:size])
		rest = rest[size:]
	}
	c.early = c.early[:0]
	for _, slot := range c.touched {
		e := c.at(slot)
		if kind := c.verdict(slot, e, h.Origin); kind != 0 {
			p.add(c.packed(e, kind))
		}
		e.clear(flagPending | flagChanged | flagReplaced)
		if e.has(flagDead) {
			c.bury(slot)
		}
	}
	c.touched = c.touched[:0]
}

// verdict returns the kind in which an entry leaves, or 0.
func (c *core) verdict(slot uint32, e *entry, origin flow.Origin) flow.Kind {
	switch {
	case origin == flow.Own || e.has(flagForeign) || !e.has(flagChanged):
		return 0
	case e.has(flagDead):
		if e.has(flagSent) {
			return flow.Destroy
		}
		return 0
	case c.hold && !e.has(flagSent) && !c.commit.passed(slot, c.turn(e)):
		return 0
	}
	kind := flow.Update
	if !e.has(flagSent) || e.has(flagReplaced) {
		kind = flow.New
	}
	e.set(flagSent)
	return kind
}

// packed returns an entry's record as one of the given kind (of an expectation,
// of the kind that means the same), valid until the next call.
func (c *core) packed(e *entry, kind flow.Kind) flow.Record {
	if e.class() == expectations {
		if kind = flow.Expect; e.has(flagDead) {
			kind = flow.Unexpect
		}
	}
	c.record = c.appendRecord(c.record[:0], e)
	c.record[2] = byte(kind)
	return c.record
}

func (c *core) related(e *entry) bool {
	n := e.tailSize()
	return n > 0 && flow.Attributes(c.tails.get(e.tail, n)).Has(flow.AttrMaster)
}

// turn returns the pass of a commit that sends an entry.
func (c *core) turn(e *entry) int {
	switch {
	case e.class() == expectations:
		return passExpectations
	case c.related(e):
		return passRelated
	}
	return passMasters
}
