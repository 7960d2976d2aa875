package cachememory

import (
	"context"
	"errors"
	"slices"
	"testing"

	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// The rules are those of the type replay, and of docs/architecture.md.

// TestSweep: a complete replay sweeps, tells the ends, and its marks go no
// further.
func TestSweep(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1), added(2, 1), added(3, 1))
	r.out.sent = nil
	r.feed(during(live, 5), begin(0))
	r.feed(during(live, 5), updated(1, 1), updated(2, 9), updated(4, 1))
	r.expect("update 2=9", "new 4=1") // 1 told nothing new
	r.feed(during(live, 5), end(0, 3))
	r.expect("destroy 3=1")
	r.holds("1=1", "2=9", "4=1")
	r.signalled()
	r.reported("5: flows 3 new 1 changed 1 swept 1")
}

func TestTimeoutIsNoChange(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1))
	r.out.sent = nil
	e := updated(1, 1)
	e.Timeout = 17
	e.Tail = e.Tail.Append(flow.AttrCounters, make([]byte, 32))
	r.feed(during(live, 5), begin(0), e, end(0, 1))
	r.expect()
	var kept flow.Event
	r.cache.core.table.event(r.cache.core.at(1), &kept)
	if kept.Timeout != 17 || !kept.Tail.Has(flow.AttrCounters) {
		t.Error(&kept)
	}
}

// TestLiveBeatsReplayed: rule 3 of the design, in all its shapes.
func TestLiveBeatsReplayed(t *testing.T) {
	cases := []struct {
		name        string
		during      []flow.Event // live, between begin and records
		header      flow.Header
		replayed    []flow.Event
		sent, holds []string
	}{
		{"an end is not undone", []flow.Event{ended(1)}, live, []flow.Event{updated(1, 1), updated(2, 1)}, []string{"destroy 1=0"}, []string{"2=1"}},
		{"nor one of an unknown flow", []flow.Event{ended(9)}, live, []flow.Event{updated(9, 1), updated(1, 1), updated(2, 1)}, []string{"destroy 9=0"}, []string{"1=1", "2=1"}},
		{"nor of one that came and went", []flow.Event{added(9, 1), ended(9)}, live, []flow.Event{updated(9, 1), updated(1, 1), updated(2, 1)}, nil, []string{"1=1", "2=1"}},
		{"nor by our own hand", []flow.Event{ended(1), ended(9)}, own, []flow.Event{updated(1, 1), updated(2, 1), updated(9, 1)}, nil, []string{"2=1"}},
		{"a change is not undone", []flow.Event{updated(1, 7)}, live, []flow.Event{updated(1, 1), updated(2, 1)}, []string{"update 1=7"}, []string{"1=7", "2=1"}},
		{"what is new is named", []flow.Event{added(9, 1)}, live, []flow.Event{updated(1, 1), updated(2, 1)}, []string{"new 9=1"}, []string{"1=1", "2=1", "9=1"}},
		{"what changed is named", []flow.Event{updated(1, 7)}, live, []flow.Event{updated(2, 1)}, []string{"update 1=7"}, []string{"1=7", "2=1"}},
		{"ended and back", []flow.Event{ended(1), added(1, 8)}, live, []flow.Event{updated(1, 1), updated(2, 1)}, []string{"new 1=8"}, []string{"1=8", "2=1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.feed(live, added(1, 1), added(2, 1))
			r.out.sent = nil
			r.feed(during(live, 5), begin(0))
			r.feed(c.header, c.during...)
			r.feed(during(live, 5), c.replayed...)
			r.feed(during(live, 5), end(0, uint64(len(c.replayed))))
			r.expect(c.sent...)
			r.holds(c.holds...)
			r.signalled()
			if n := len(r.cache.core.replays.graves); n != 0 || r.cache.core.index.used != len(c.holds) {
				t.Errorf("%d tombstones were left, %d entries", n, r.cache.core.index.used)
			}
		})
	}
}

// TestTombstoneOfAnotherBatch: a flow may end and come back in different
// batches while a replay that read it before is under way.
func TestTombstoneOfAnotherBatch(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1))
	r.feed(during(live, 5), begin(0))
	r.feed(live, ended(1))
	r.feed(live, added(1, 2))
	r.feed(during(live, 5), updated(1, 1))
	r.feed(live, ended(1))
	r.feed(during(live, 5), updated(1, 1))
	r.feed(live, ended(1)) // once more: nobody below knows it any more
	r.feed(during(live, 5), end(0, 2))
	r.expect("new 1=1", "destroy 1=0", "new 1=2", "destroy 1=0")
	r.holds()
}

// TestEndOfAnotherEntry: the cache knows a predecessor, whose end and successor
// were lost. The successor's end is nothing to it, but the dump that has read
// the successor must not bring it back.
func TestEndOfAnotherEntry(t *testing.T) {
	r := newRig(t)
	r.feed(live, identified(added(1, 1), 10))
	r.feed(during(live, 5), begin(0))
	r.feed(live, identified(ended(1), 11))
	r.feed(during(live, 5), identified(updated(1, 2), 11), end(0, 1))
	r.holds()
	r.feed(live, identified(added(1, 1), 12))
	r.feed(during(live, 6), begin(0))
	r.feed(live, identified(ended(1), 11)) // late
	r.feed(during(live, 6), identified(updated(1, 1), 12), end(0, 1))
	r.feed(during(live, 7), begin(0), identified(updated(1, 3), 11), end(0, 1)) // the id again
	r.holds("1=3")
	r.signalled()
	if len(r.cache.core.replays.others) != 0 {
		t.Error("ends are remembered without a replay")
	}
}

// TestLiveIsFilledIn: an event says nothing of labels and master; the dump does.
func TestLiveIsFilledIn(t *testing.T) {
	for id, filled := range map[uint32]bool{10: true, 11: false} {
		r := newRig(t)
		r.feed(during(live, 5), begin(0))
		r.feed(live, identified(updated(1, 7), 10)) // its NEW was lost
		r.out.sent = nil
		r.feed(during(live, 5), identified(expected(updated(1, 1)), id), end(0, 1))
		if filled {
			r.expect("update 1=7")
		} else {
			r.expect()
		}
		r.holds("1=7")
		if got := r.cache.core.related(r.cache.core.at(1)); got != filled {
			t.Errorf("id %d: has a master: %v", id, got)
		}
	}
}

// TestLabelsCleared: no event tells that the last label was cleared; a dump does,
// if it is of this node's kernel.
func TestLabelsCleared(t *testing.T) {
	labelled := func(e flow.Event, labels byte) flow.Event {
		e.Tail = slices.Clone(e.Tail).Append(flow.AttrLabels, append(make([]byte, 15), labels))
		return e
	}
	r := newRig(t)
	r.feed(live, identified(labelled(added(1, 1), 8), 10))
	of := func() []byte {
		var e flow.Event
		r.cache.core.table.event(r.cache.core.at(1), &e)
		labels, _ := e.Tail.Get(flow.AttrLabels)
		return labels
	}
	for _, tt := range []struct {
		record flow.Event
		want   byte
		passed []string
	}{
		{updated(1, 1), 8, nil},                                                 // of a peer: it says nothing
		{identified(labelled(updated(1, 1), 8), 10), 8, nil},                    // nothing new
		{identified(updated(1, 1), 10), 0, []string{"update 1=1"}},              // cleared
		{identified(updated(1, 1), 10), 0, nil},                                 // and known to be
		{identified(labelled(updated(1, 1), 4), 10), 4, []string{"update 1=1"}}, // set again
	} {
		r.out.sent = nil
		r.feed(during(live, 5), begin(0), tt.record, end(0, 1))
		r.expect(tt.passed...)
		if labels := of(); len(labels) != 16 || labels[15] != tt.want {
			t.Errorf("labels %x, want %d last", labels, tt.want)
		}
	}
}

// TestBeginCancels: rule 4, first half.
func TestBeginCancels(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1), added(2, 1))
	r.out.sent = nil
	r.feed(during(live, 5), begin(0), updated(1, 1))
	r.feed(during(live, 6), begin(0))
	r.feed(during(live, 5), updated(2, 9), updated(3, 9), end(0, 3)) // stale
	r.expect()
	r.reported()
	r.signalled()
	r.feed(during(live, 6), updated(2, 1), end(0, 1))
	r.expect("destroy 1=1") // what 5 named counts for nothing
	r.holds("2=1")
	r.reported("6: flows 1 new 0 changed 0 swept 1")
	r.feed(during(live, 6), end(0, 1)) // an echo
	r.reported()
	r.signalled()
}

// TestCount: rule 4, second half.
func TestCount(t *testing.T) {
	for name, count := range map[string]uint64{"record lost": 2, "one too many": 0} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.feed(live, added(1, 1), added(2, 1))
			r.out.sent = nil
			r.feed(during(live, 5), begin(0), updated(1, 1), end(0, count))
			r.expect()
			r.holds("1=1", "2=1")
			r.signalled("gap")
			r.reported("5: failed")
			r.feed(during(live, 6), begin(0), updated(1, 1), end(0, 1)) // again, and complete
			r.expect("destroy 2=1")
			r.signalled()
		})
	}
	t.Run("begin lost", func(t *testing.T) {
		r := newRig(t)
		r.feed(live, added(1, 1), added(2, 1))
		r.out.sent = nil
		r.feed(during(live, 5), updated(1, 2), updated(3, 1), end(0, 2))
		r.expect()
		r.holds("1=1", "2=1")
		r.signalled("gap")
		r.reported("5: failed")
		if n := r.cache.core.count.stale; n != 2 {
			t.Errorf("%d stale records", n)
		}
	})
	t.Run("filtered", func(t *testing.T) { // the stage library lowers the count
		r := newRig(t)
		r.feed(during(live, 5), begin(0), end(0, 0))
		r.signalled()
		r.reported("5: flows 0 new 0 changed 0 swept 0")
	})
}

// TestOwnersSweep: rule 5.
func TestOwnersSweep(t *testing.T) {
	r := newRig(t)
	r.feed(fromA, added(1, 1), added(2, 1))
	r.feed(fromB, added(3, 1), added(4, 1))
	r.out.sent = nil
	r.feed(during(fromA, 5), begin(0), updated(1, 1), end(0, 1))
	r.expect("destroy 2=1 by 192.168.100.1")
	r.feed(during(fromB, 5), begin(0)) // the same id, but of another node
	r.feed(during(fromA, 6), begin(0))
	r.feed(during(fromB, 5), updated(3, 1), end(0, 1))
	r.feed(during(fromA, 6), updated(1, 1), end(0, 1))
	r.expect("destroy 4=1 by 192.168.100.2")
	r.holds("1=1 by 192.168.100.1", "3=1 by 192.168.100.2")
	r.signalled()

	r.feed(during(fromB, 7), begin(flow.SyncClaim), updated(3, 1), updated(1, 1), end(flow.SyncClaim, 2)) // takes 1 over
	r.expect("update 1=1 by 192.168.100.2")
	r.feed(during(fromA, 8), begin(0), end(0, 0))
	r.expect()
	r.holds("1=1 by 192.168.100.2", "3=1 by 192.168.100.2")
}

// TestNobodySweepsWithoutMarks: rule 5, conntrackd.
func TestNobodySweepsWithoutMarks(t *testing.T) {
	r := newRig(t)
	r.feed(fromA, added(1, 1), added(2, 1))
	r.feed(fromA, updated(1, 1)) // its bulk update
	r.holds("1=1 by 192.168.100.1", "2=1 by 192.168.100.1")
}

// TestOverlappingReplays: a tombstone lives until no replay can need it.
func TestOverlappingReplays(t *testing.T) {
	r := newRig(t)
	r.feed(fromA, added(1, 1))
	r.feed(during(fromB, 5), begin(0))
	r.feed(fromA, ended(1))
	r.feed(during(fromA, 6), begin(0), end(0, 0))
	r.feed(during(fromB, 5), updated(1, 9), end(0, 1)) // read before the end
	r.holds()
	if n := r.cache.core.index.used; n != 0 {
		t.Errorf("%d entries", n)
	}
	r.feed(during(fromB, 7), begin(0))
	r.feed(fromA, ended(1))
	r.feed(during(fromB, 8), begin(0), updated(1, 3), end(0, 1)) // read after it
	r.holds("1=3 by 192.168.100.2")
}

// TestReplayOfACacheAbove: its flows are of several owners, and so is its sweep.
func TestReplayOfACacheAbove(t *testing.T) {
	above, below := newRig(t), newRig(t)
	for _, r := range []*rig{above, below} {
		r.feed(fromA, added(1, 1), added(2, 1))
		r.feed(fromB, added(3, 1), added(4, 1))
	}
	above.feed(fromA, ended(1))
	above.feed(fromB, ended(4))
	above.out.sent = nil
	if err := above.replay(0); err != nil {
		t.Fatal(err)
	}
	below.out.sent = nil
	for _, p := range above.out.sent {
		below.feedPacket(p)
	}
	below.expect("destroy 1=1 by 192.168.100.1", "destroy 4=1 by 192.168.100.2")
	below.holds("2=1 by 192.168.100.1", "3=1 by 192.168.100.2")
}

// TestReplayOfAClaimedFlow: what a cache above has claimed is no dump alone.
func TestReplayOfAClaimedFlow(t *testing.T) {
	above, below := newRig(t, withWriteThrough), newRig(t, withWriteThrough)
	above.feed(own, added(1, 1))
	above.feed(live, added(2, 1))
	above.out.sent = nil
	if err := above.replay(flow.SyncClaim); err != nil { // as the runner has it
		t.Fatal(err)
	}
	for _, p := range above.out.sent {
		below.feedPacket(p)
	}
	below.expect("new 2=1")
	below.holds("2=1")
}

func TestReplayedIdentity(t *testing.T) {
	r := newRig(t)
	r.feed(live, identified(added(1, 5), 10), identified(added(2, 5), 20))
	r.out.sent = nil
	r.feed(during(live, 5), begin(0), identified(silent(updated(1, 0)), 11), identified(silent(updated(2, 0)), 20), end(0, 2))
	r.expect("new 1=0") // another flow; of 2 nothing is new
	r.holds("1=0", "2=5")
}

func TestQuiet(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1), added(2, 1))
	r.out.sent = nil
	r.feed(during(live, 5), begin(flow.SyncQuiet), updated(1, 1), end(flow.SyncQuiet, 1))
	r.expect()
	r.holds("1=1")
}

func TestKeep(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1))
	r.feed(during(live, 5), begin(0)) // stays under way
	r.out.sent = nil
	r.feed(during(live, 6), begin(flow.SyncKeep), end(flow.SyncKeep, 0))
	r.expect()
	r.holds("1=1")
	r.reported("6:")
	r.feed(during(live, 5), updated(1, 1), end(0, 1))
	r.reported("5: flows 1 new 0 changed 0 swept 0")
	r.signalled()
}

func TestClaim(t *testing.T) {
	r := newRig(t, withWriteThrough)
	r.feed(during(live, 4), begin(0), updated(1, 1), end(0, 1))
	r.feed(own, added(2, 1))
	r.expect()
	r.holds("1=1 foreign", "2=1 foreign") // known by dump alone, and injected
	r.feed(during(live, 5), begin(flow.SyncClaim))
	r.feed(own, added(3, 1)) // touched: its record is dropped, but names it
	r.feed(during(live, 5), updated(1, 1), updated(2, 1), updated(3, 9), updated(4, 1), end(flow.SyncClaim, 4))
	r.expect("new 1=1", "new 2=1", "new 3=1", "new 4=1")
	r.holds("1=1", "2=1", "3=1", "4=1")
}

// TestDumpAlone: flows that only a dump told of are foreign where peers' flows
// go into the kernel at once, and nowhere else.
func TestDumpAlone(t *testing.T) {
	r := newRig(t, withWriteThrough)
	r.feed(live, added(9, 1))
	r.out.sent = nil
	r.feed(during(live, 4), begin(0), updated(1, 1), updated(9, 2), end(0, 2))
	r.expect("update 9=2")
	r.holds("1=1 foreign", "9=2")
	r.feed(during(live, 5), begin(0), updated(9, 2), end(0, 1))
	r.expect() // the foreign flow went silently
	r.holds("9=2")

	plain := newRig(t)
	plain.feed(during(live, 4), begin(0), updated(1, 1), end(0, 1))
	plain.expect("new 1=1")
	plain.holds("1=1")
}

// TestNothingIsSweptAcrossNodes: where peers' flows go into the kernel at once.
func TestNothingIsSweptAcrossNodes(t *testing.T) {
	r := newRig(t, withWriteThrough)
	r.feed(fromA, added(1, 1), added(2, 1))
	r.expect("new 1=1 by 192.168.100.1", "new 2=1 by 192.168.100.1")
	r.feed(during(fromA, 5), begin(0), updated(1, 1), end(0, 1))
	r.expect()
	r.holds("1=1 by 192.168.100.1")
}

// TestGravesAreBounded: a replay that never ends doesn't fill memory.
func TestGravesAreBounded(t *testing.T) {
	r := newRig(t, withLimit(1000))
	r.feed(during(live, 5), begin(0))
	for key := range uint16(20000) {
		r.feed(live, added(key, 1), ended(key))
	}
	if n, most := r.cache.core.index.used, r.cache.core.maxGraves()+1; n > most {
		t.Errorf("%d tombstones, %d are the most", n, most)
	}
	r.feed(during(live, 5), updated(3, 1), end(0, 1))
	r.holds()
	r.signalled("gap")
	r.reported("5: failed")
	if n := r.cache.core.index.used; n != 0 {
		t.Errorf("%d tombstones are left", n)
	}
}

func TestReplay(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1), added(2, 1))
	r.feed(live, ended(1))
	r.feed(fromA, added(3, 3))
	r.out.sent = nil
	if err := r.replay(flow.SyncQuiet); err != nil {
		t.Fatal(err)
	}
	for _, p := range r.out.sent {
		if b, _ := flow.DecodeBatch(p); b.Edge != 3 || b.Replay != 77 {
			t.Errorf("%+v", b.Header)
		}
	}
	r.expect("begin in 77", "update 2=1 in 77", "update 3=3 by 192.168.100.1 in 77", "end 2 in 77")
}

func TestReplayEndsWithItsContext(t *testing.T) {
	r := newRig(t)
	r.cache.config.ReplayRate = 1 // a second step would take minutes
	for key := range uint16(step + 10) {
		r.feed(live, added(key, 1))
	}
	r.out.sent = nil
	ctx, cancel := context.WithCancel(context.Background())
	r.out.to = func([]byte) { cancel() }
	if err := r.cache.replay(ctx, plugin.Replay{ID: 1}, r.out); !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
}

// TestReplayIsPaced: the bucket holds one step, so what follows the second waits.
func TestReplayIsPaced(t *testing.T) {
	for rate, steps := range map[uint32]int{1: 3, 0: 4} { // begin and two steps; and the end
		r := newRig(t)
		for key := range uint16(2 * step) {
			r.feed(live, added(key, 1))
		}
		r.cache.config.ReplayRate = rate
		r.out.sent = nil
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		var batches int
		first := make(chan struct{})
		r.out.to = func([]byte) {
			if batches++; batches == steps {
				close(first)
			}
		}
		go func() { done <- r.cache.replay(ctx, plugin.Replay{ID: 1}, r.out) }()
		<-first
		cancel()
		if err := <-done; (err == nil) != (rate == 0) && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if batches != steps {
			t.Errorf("rate %d: %d batches, not %d", rate, batches, steps)
		}
	}
}

// A tracked replay has a pace of its own: the highest after a time of calm, half of
// the last one's if that was lost, and never less than what any peer stands.
func TestPaceOfTrackedReplays(t *testing.T) {
	const least, most = 100, 1000
	p := pace{}
	for i, step := range []struct {
		repeated bool
		after    uint32 // seconds since the last replay
		tracked  bool   // that one
		want     uint32
	}{
		{true, 0, false, most}, // what was lost went at another pace
		{false, 1, true, most}, // somebody asked for it
		{true, 1, true, 500},
		{true, 1, true, 250},
		{false, 1, true, 250},
		{true, 1, true, 125},
		{true, 1, true, least},
		{true, 1, true, least},
		{true, calm + 1, true, most},
	} {
		p.ended, p.tracked = 1000, step.tracked
		if got := p.next(step.repeated, 1000+step.after, least, most); got != step.want {
			t.Errorf("replay %d: %d records a second, not %d", i, got, step.want)
		}
	}
	r := newRig(t)
	r.cache.config.ReplayRate, r.cache.config.ReplayRateMax = 50, 80000
	for _, tt := range []struct {
		replay plugin.Replay
		want   rate.Limit
	}{
		{plugin.Replay{}, 50},
		{plugin.Replay{Repeated: true}, 50},
		{plugin.Replay{Tracked: true}, 80000},
		{plugin.Replay{Tracked: true, Flags: flow.SyncCommit}, rate.Inf},
	} {
		if got := r.cache.limiter(tt.replay).Limit(); got != tt.want {
			t.Errorf("%+v: %v records a second, not %v", tt.replay, got, tt.want)
		}
	}
}

// Two peers whose replays overlap without end leave no moment in which nobody
// needs a tombstone.
func TestGravesAreBoundedWhileReplaysOverlap(t *testing.T) {
	r := newRig(t, withLimit(10))
	most := r.cache.core.maxGraves()
	nodes := [2]flow.Header{fromA, fromB}
	for id := uint64(1); id < 200; id++ {
		r.feed(during(nodes[id%2], id), begin(0))
		var ends []flow.Event
		for key := range uint16(100) {
			ends = append(ends, ended(100*uint16(id)+key))
		}
		r.feed(fromA, ends...)
		if id > 1 {
			r.feed(during(nodes[(id-1)%2], id-1), end(0, 0))
		}
		if n := len(r.cache.core.replays.graves); n > 2*most+100 {
			t.Fatalf("%d graves after %d replays, though %d are allowed", n, id, most)
		}
	}
	r.signalled() // none had to be given up
}
