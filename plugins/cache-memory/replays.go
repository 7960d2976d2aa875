package cachememory

import (
	"fmt"
	"math"
	"slices"

	"github.com/sluice-project/sluice/core/flow"
)

// A replay is the one of an owner that is under way here. The rules (docs/
// architecture.md has the reasons):
//
//  1. Its begin cancels the owner's replay before it, whose records are stale
//     from then on. Records and ends without their begin are stale too.
//  2. Live beats replayed: a record whose key a live event touched since the
//     begin is dropped, but counts as named. DESTROYs leave a tombstone for it.
//     (Of the same kernel entry, by CTA_ID, it fills in what is not known: an
//     event whose NEW was lost has neither labels nor master, a dump has.)
//  3. Other records merge, as UPDATEs do; one whose CTA_ID is not the entry's
//     replaces it. Only what changed something is passed on. (A dump tells all
//     labels that there are, and no event tells that the last was cleared: one
//     without labels clears them.)
//  4. The end sweeps only if all records arrived. Otherwise the replay failed,
//     and is asked for again.
//  5. A sweep removes the owner's flows that it did not name, and nobody else's.
//     (A replay of this node, by a cache above, may name flows of several
//     owners. Then it sweeps theirs too.)
//  6. Quiet: what is swept vanishes without a DESTROY. Claim: what is named is
//     its sender's, foreign no more and no other peer's. Keep: nothing is named
//     and nothing swept.
//  7. Where peers' flows go into the kernel at once, those that only a dump of
//     the kernel told of are foreign: they may be the peers'. And a sweep of
//     theirs is quiet: only the kernel's own timeouts end flows across nodes.
//  8. A peer's replay leaves other peers' flows alone unless it claims: who
//     carried flows once may know them still. One that claims is not overtaken
//     by what others tell live, ends included: nothing says which came first.
type replay struct {
	id      uint64 // 0: none
	owner   uint16
	flags   flow.SyncFlags
	begin   uint32          // the epoch that its begin made
	arrived [classes]uint64 // records
	counts  replayCounts
}

type replayCounts struct{ inserted, changed, swept uint64 }

func (r *replay) active() bool { return r.id != 0 }

// spares says whether rule 8 leaves a flow to its owner.
func (r *replay) spares(e *entry) bool {
	return r.owner != 0 && e.owner != r.owner && r.flags&flow.SyncClaim == 0
}

// overrules says whether rule 8 lets a record win over a live event.
func (r *replay) overrules(e *entry) bool {
	return r.owner != 0 && e.owner != r.owner && r.flags&flow.SyncClaim != 0
}

func (r *replay) records() uint64 { return r.arrived[flows] + r.arrived[expectations] }

// replays are what the replays of all owners have in common.
type replays struct {
	active int    // replays under way
	epoch  uint32 // how often a replay has begun

	// graves are the slots of tombstones, by the epoch of the death, from head
	// on; some of them twice, and some for entries that live again.
	graves []uint32
	head   int

	// others has, by epoch, DESTROYs that were not of the entry known here: of
	// another kernel entry, or by another node. A replay may have read what
	// ended before it did. It empties when no replay is under way.
	others map[other]uint32

	unlabelled flow.Attributes // memory of unlabel
}

// other is a node's kernel entry by its key and its CTA_ID, where that is known.
type other struct {
	key   key
	id    uint32
	owner uint16
}

func (c *core) other(k *key, owner uint16) other {
	o := other{key: *k, owner: owner}
	if c.event.Has(flow.HasID) {
		o.id = c.event.ID
	}
	return o
}

// replayOf returns the replay with an id that a batch of owner belongs to: the
// owner's own, or one of this node.
func (c *core) replayOf(owner uint16, id uint64) *replay {
	for _, o := range [...]uint16{owner, 0} {
		if r := &c.owners.list[o].replay; r.id == id {
			return r
		}
	}
	return nil
}

// begin begins a replay and cancels the one before it.
func (c *core) begin(o uint16, id uint64, f flow.SyncFlags) {
	if f&flow.SyncKeep != 0 {
		return
	}
	c.cancel(o)
	c.replays.epoch++
	c.replays.active++
	c.owners.list[o].replay = replay{id: id, owner: o, flags: f, begin: c.replays.epoch}
}

// cancel ends an owner's replay, if there is one.
func (c *core) cancel(o uint16) {
	if one := &c.owners.list[o]; one.replay.active() {
		one.ended, one.replay = one.replay.id, replay{}
		c.replays.active--
	}
}

// finish ends a replay that swept.
func (c *core) finish(r *replay) { c.cancel(r.owner) }

// end judges the end mark of a replay. It returns the replay if that is to sweep
// and then finish; why it failed if it did; and neither if the mark is an echo
// of a replay that was cancelled.
func (c *core) end(o uint16, id, count uint64) (r *replay, why string) {
	one := &c.owners.list[o]
	switch {
	case one.replay.id == id && one.replay.records() == count:
		return &one.replay, ""
	case one.replay.id == id:
		why = fmt.Sprintf("%d of %d records arrived", one.replay.records(), count)
		c.cancel(o)
	case one.replay.active() || one.ended == id:
		return nil, ""
	default:
		one.ended, why = id, "its begin was lost, or too many flows ended during it"
	}
	c.count.incomplete++
	return nil, why
}

// replayed applies the replayed record, which c.event has decoded.
func (c *core) replayed(rec flow.Record, origin flow.Origin, owner uint16, r *replay, now uint32) {
	r.arrived[classOf(rec)]++
	if c.event.Kind == flow.Destroy || c.event.Kind == flow.Unexpect {
		return // nobody replays an end
	}
	k := keyOf(rec)
	slot := c.find(&k)
	known := slot != 0 && c.at(slot).alive()
	switch {
	case c.remembered(&k, owner, r):
		c.count.overtaken++
		return
	case known && r.spares(c.at(slot)):
		c.count.spared++
		return
	case slot != 0 && c.at(slot).live >= r.begin && !r.overrules(c.at(slot)):
		c.overtaken(c.at(slot))
	case !known && !c.admit(classOf(rec)):
		return
	case !known:
		slot = c.enter(rec, &k, slot, owner, origin == flow.Own || c.writeThrough && origin == flow.Kernel, now)
		c.at(slot).changed = now
		r.counts.inserted++
	default:
		c.remerge(slot, rec, r)
		c.at(slot).changed = now
		c.own(c.at(slot), owner)
	}
	e := c.at(slot)
	e.named = r.begin
	if !e.alive() {
		return
	}
	if r.flags&flow.SyncClaim != 0 {
		c.claim(e)
	}
	c.owners.list[e.owner].covered = r.begin
	c.touch(slot)
}

// overtaken does what is left to do of a replayed record that live events have
// overtaken.
func (c *core) overtaken(e *entry) {
	c.count.overtaken++
	if !e.alive() {
		return
	}
	if same, known := c.identity(e); same && known && c.fill(e) {
		e.set(flagChanged)
	}
}

// remerge merges a replayed record into a known flow.
func (c *core) remerge(slot uint32, rec flow.Record, r *replay) {
	e := c.at(slot)
	switch {
	case c.another(e) || c.reopened(e, r.owner):
		c.renew(slot, rec)
		r.counts.changed++
	case c.tells(e, rec):
		e.set(flagChanged)
		r.counts.changed++
		c.tally(&c.event).updated++
	default:
		c.count.unchanged++
	}
}

// tells takes in a replayed record about the entry's own flow or expectation, and
// says whether it told something new.
func (c *core) tells(e *entry, rec flow.Record) bool {
	if e.class() == expectations {
		return c.restate(e, rec)
	}
	c.unlabel(e)
	return c.merge(e)
}

// unlabel completes c.event, if it is a dump's record without labels about an
// entry with some. CTA_ID is in no record but of this node's kernel.
func (c *core) unlabel(e *entry) {
	if !c.event.Has(flow.HasID) || c.event.Tail.Has(flow.AttrLabels) {
		return
	}
	c.table.event(e, &c.update)
	labels, ok := c.update.Tail.Get(flow.AttrLabels)
	if !ok || !slices.ContainsFunc(labels, func(b byte) bool { return b != 0 }) {
		return
	}
	c.replays.unlabelled = append(c.replays.unlabelled[:0], c.event.Tail...).Append(flow.AttrLabels, make([]byte, len(labels)))
	c.event.Tail = c.replays.unlabelled
}

// sweep removes what the replay did not name among up to n slots after the slot
// from, and packs their ends. It returns the last slot it looked at, and false
// when there are no more.
func (c *core) sweep(r *replay, from uint32, n int, p *packer) (last uint32, more bool) {
	for last = from; last < c.last && n > 0; n-- {
		last++
		if e := c.at(last); c.unnamed(e, r) {
			tell := e.has(flagSent) && !e.has(flagForeign) && !c.quiet(e, r)
			c.kill(e)
			if tell {
				address := c.owners.list[e.owner].address
				p.start(flow.Header{Origin: originOf(address), Owner: address})
				p.add(c.packed(e, flow.Destroy))
			}
			c.count.of[e.class()].swept++
			c.remove(last)
			r.counts.swept++
		}
	}
	return last, last < c.last
}

// unnamed says whether the replay is to sweep an entry.
func (c *core) unnamed(e *entry, r *replay) bool {
	return e.alive() && e.named != r.begin && e.live < r.begin &&
		(e.owner == r.owner || r.owner == 0 && c.owners.list[e.owner].covered == r.begin)
}

func (c *core) quiet(e *entry, r *replay) bool {
	return r.flags&flow.SyncQuiet != 0 || c.writeThrough && e.owner != 0
}

// bury settles a dead entry: it stays as a tombstone while a replay is under
// way that may still name it, else it goes. Too many tombstones cancel all
// replays, which are then too slow for what is going on.
func (c *core) bury(slot uint32) {
	if c.replays.active == 0 {
		c.remove(slot)
		return
	}
	s := &c.replays
	if len(s.graves)-s.head >= c.maxGraves() {
		c.giveUp()
	}
	// While replays overlap without end the list never gets empty.
	if s.head > c.maxGraves() {
		s.graves, s.head = append(s.graves[:0], s.graves[s.head:]...), 0
	}
	s.graves = append(s.graves, slot)
}

// giveUp cancels all replays; their end marks will report it.
func (c *core) giveUp() {
	for o := range c.owners.list {
		c.cancel(uint16(o))
		c.owners.list[o].ended = 0
	}
}

// remember is bury for a DESTROY, in c.event, of something else than what is
// known by its key.
func (c *core) remember(k *key, owner uint16) {
	s := &c.replays
	if s.active == 0 {
		return
	}
	if len(s.others) >= c.maxGraves() {
		c.giveUp()
		return
	}
	if s.others == nil {
		s.others = map[other]uint32{}
	}
	s.others[c.other(k, owner)] = s.epoch
}

// remembered says whether what c.event is about ended since the begin of the
// replay r.
func (c *core) remembered(k *key, owner uint16, r *replay) bool {
	return len(c.replays.others) > 0 && c.replays.others[c.other(k, owner)] >= r.begin
}

// maxGraves bounds the tombstones: a quarter of the limit, and never few.
func (c *core) maxGraves() int { return c.limit[flows]/4 + 4096 }

// reap removes up to n tombstones that no replay under way can need, and says
// whether there may be more.
func (c *core) reap(n int) (more bool) {
	s := &c.replays
	if s.active == 0 {
		s.others = nil
	}
	oldest := uint32(math.MaxUint32)
	for i := range c.owners.list {
		if r := &c.owners.list[i].replay; r.active() {
			oldest = min(oldest, r.begin)
		}
	}
	for ; s.head < len(s.graves) && n > 0; s.head, n = s.head+1, n-1 {
		slot := s.graves[s.head]
		e := c.at(slot)
		if !e.has(flagDead) {
			continue // lives again, or is gone
		}
		if e.live >= oldest {
			return false
		}
		c.remove(slot)
	}
	if s.head == len(s.graves) {
		s.graves, s.head = s.graves[:0], 0
		return false
	}
	return true
}
