package cachememory

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// errHold is why a hold cache refuses a replay.
var errHold = errors.New("replay: a cache with hold replays only to commit")

// A commit is how far a commit under way has come.
type commit struct {
	pass int    // 0: none
	last uint32 // the last slot that the pass has seen
}

// The passes of a commit, in their order: the kernel refuses a related flow, or
// an expectation, whose master it does not have.
const (
	passMasters = 1 + iota // flows without a master
	passRelated            // flows with one
	passExpectations
)

// passed says whether the commit has gone by a slot, so that whoever is there
// now would be left out; turn is the pass that sends it.
func (c *commit) passed(slot uint32, turn int) bool {
	return turn < c.pass || turn == c.pass && slot <= c.last
}

// Replay implements plugin.Cache: it sends all that is not foreign, flows before
// expectations.
func (c *Cache) Replay(ctx context.Context, r plugin.Replay, out *plugin.Output) error {
	return c.replay(ctx, r, out)
}

func (c *Cache) replay(ctx context.Context, r plugin.Replay, out output) error {
	committing := r.Flags&flow.SyncCommit != 0
	if c.config.Hold && !committing && r.Flags&flow.SyncKeep == 0 {
		return errHold
	}
	s := sender{cache: c, replay: r, out: out, limiter: c.limiter(r)}
	defer s.setCommit(commit{})
	defer func() { c.pace.ended, c.pace.tracked = c.clock(), r.Tracked }()
	if err := s.mark(ctx, flow.SyncBegin); err != nil {
		return err
	}
	if r.Flags&flow.SyncKeep == 0 {
		for pass := passMasters; pass <= passExpectations; pass++ {
			if err := s.pass(ctx, pass); err != nil {
				return err
			}
		}
	}
	return s.mark(ctx, flow.SyncEnd)
}

// A pace is how fast tracked replays go: as fast as may be, and half as fast each
// time that one is asked for again at once. The receivers' buffers are large, so
// a pace that they don't stand shows.
type pace struct {
	rate    uint32
	ended   uint32 // the second in which the last replay did
	tracked bool   // it was
}

// calm is after how many seconds without a replay any pace is tried again.
const calm = 60

// next returns the pace of a tracked replay that begins now.
func (p *pace) next(repeated bool, now, least, most uint32) uint32 {
	switch {
	case p.rate == 0 || now-p.ended > calm:
		p.rate = most
	case repeated && p.tracked:
		p.rate /= 2
	}
	p.rate = max(least, min(p.rate, most))
	return p.rate
}

// limiter returns what paces a replay. A commit goes as fast as the kernel takes
// it. So that timers, which may be late by a millisecond, cost no pace, the bucket
// holds what 4 ms bring, or one step.
func (c *Cache) limiter(r plugin.Replay) *rate.Limiter {
	n := c.config.ReplayRate
	if r.Flags&flow.SyncCommit != 0 || n == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	if r.Tracked {
		n = c.pace.next(r.Repeated, c.clock(), n, c.config.ReplayRateMax)
	}
	return rate.NewLimiter(rate.Limit(n), max(step, int(n/250)))
}

// A sender sends one replay.
type sender struct {
	cache   *Cache
	replay  plugin.Replay
	out     output
	limiter *rate.Limiter
	packed  packer
	slots   []uint32
	sent    uint64
}

func (s *sender) committing() bool { return s.replay.Flags&flow.SyncCommit != 0 }

func (s *sender) header() flow.Header {
	return flow.Header{Origin: flow.Kernel, Replay: s.replay.ID, Edge: s.replay.Edge}
}

// setCommit tells live changes how far a commit has come.
func (s *sender) setCommit(state commit) {
	if s.committing() {
		s.cache.mu.Lock()
		s.cache.core.commit = state
		s.cache.mu.Unlock()
	}
}

// mark sends a mark of the replay.
func (s *sender) mark(ctx context.Context, kind flow.Kind) error {
	sync := flow.Sync{Flags: s.replay.Flags}
	if kind == flow.SyncEnd {
		sync.Count = s.sent
	}
	return s.send(ctx, func() {
		s.packed.start(s.header())
		s.packed.mark(kind, sync)
	})
}

// pass sends what is in a pass of a commit. Unless the replay is one, all flows go
// in the first.
func (s *sender) pass(ctx context.Context, pass int) error {
	if pass == passRelated && !s.committing() || pass == passExpectations && !s.cache.has(expectations) {
		return nil
	}
	s.setCommit(commit{pass: pass})
	for last, more := uint32(0), true; more; {
		err := s.send(ctx, func() { last, more = s.fill(pass, last) })
		if err != nil {
			return err
		}
	}
	return nil
}

// send waits for room and for the pace, then sends what fill packs. Live data
// gets its turn between two calls.
func (s *sender) send(ctx context.Context, fill func()) error {
	if err := s.out.AwaitRoom(ctx, s.replay.Edge); err != nil {
		return err
	}
	s.out.Lock()
	s.cache.mu.Lock()
	fill()
	s.cache.mu.Unlock()
	n := s.packed.records
	err := s.packed.send(s.out)
	s.out.Unlock()
	if err != nil {
		return err
	}
	s.sent += n
	return s.limiter.WaitN(ctx, int(n))
}

// fill packs what is to be replayed among the slots of one step after last.
// Flows of one owner follow each other, since they share batches.
func (s *sender) fill(pass int, last uint32) (uint32, bool) {
	core := s.cache.core
	s.slots = s.slots[:0]
	for n := step; last < core.last && n > 0; n-- {
		last++
		if e := core.at(last); e.alive() && !e.has(flagForeign) && s.turn(e) == pass {
			s.slots = append(s.slots, last)
		}
	}
	slices.SortStableFunc(s.slots, func(a, b uint32) int { return int(core.at(a).owner) - int(core.at(b).owner) })
	for _, slot := range s.slots {
		e := core.at(slot)
		h := s.header()
		h.Owner = core.owners.list[e.owner].address
		h.Origin = originOf(h.Owner)
		s.packed.start(h)
		s.packed.add(s.record(e))
		if s.committing() {
			e.set(flagSent)
		}
	}
	if s.committing() {
		core.commit = commit{pass: pass, last: last}
	}
	return last, last < core.last
}

// turn returns the pass that sends an entry.
func (s *sender) turn(e *entry) int {
	if !s.committing() && e.class() == flows {
		return passMasters
	}
	return s.cache.core.turn(e)
}

// has says whether there is anything of a class.
func (c *Cache) has(of class) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.core.count.of[of].held > 0
}

// spentTimeout is the timeout, in seconds, of a committed flow whose own has
// run out, or is not known: traffic may have renewed it without an event.
const spentTimeout = 60

// record returns an entry as a replay sends it. A commit needs the time that is
// left; elsewhere the timeout is as old as the last event, since the kernel
// tells nobody when packets renew it. (Those of expectations they don't: one
// that should have ended by now gets a last second.)
func (s *sender) record(e *entry) flow.Record {
	core := s.cache.core
	r := core.packed(e, flow.Update)
	if !s.committing() {
		return r
	}
	const present, timeout = 4, 24
	le, left := binary.LittleEndian, uint32(spentTimeout)
	was, age := le.Uint32(r[timeout:]), s.cache.clock()-e.changed
	fields := flow.Field(le.Uint32(r[present:]))
	switch {
	case fields&flow.HasTimeout != 0 && was > age:
		left = was - age
	case fields&flow.HasTimeout != 0 && e.class() == expectations:
		left = 1
	}
	le.PutUint32(r[timeout:], left)
	le.PutUint32(r[present:], uint32(fields|flow.HasTimeout))
	return r
}
