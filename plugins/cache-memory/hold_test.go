package cachememory

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

func TestHoldKeepsToItself(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, added(1, 1), added(2, 1))
	r.feed(fromA, updated(1, 2), ended(2), ended(9))
	r.feed(during(fromA, 5), begin(0), updated(3, 1), end(0, 1))
	r.expect()
	r.holds("3=1 by 192.168.100.1")
	r.reported("5: flows 1 new 1 changed 0 swept 1")
}

// TestHoldReplaysOnlyToCommit: rule 2 of the design.
func TestHoldReplaysOnlyToCommit(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, added(1, 1))
	for _, flags := range []flow.SyncFlags{0, flow.SyncQuiet, flow.SyncClaim} {
		if err := r.replay(flags); !errors.Is(err, errHold) {
			t.Errorf("flags %d: %v", flags, err)
		}
	}
	r.expect()
	if err := r.replay(flow.SyncKeep); err != nil {
		t.Error(err)
	}
	r.expect("begin in 77", "end 0 in 77")
	if err := r.replay(flow.SyncCommit); err != nil {
		t.Error(err)
	}
	r.expect("begin in 77", "update 1=1 by 192.168.100.1 in 77", "end 1 in 77")
}

func TestCommitOrder(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, expected(added(1, 1)), added(2, 1), expected(added(3, 1)), added(4, 1))
	if err := r.replay(flow.SyncCommit); err != nil {
		t.Fatal(err)
	}
	a := " by 192.168.100.1 in 77"
	r.expect("begin in 77", "update 2=1"+a, "update 4=1"+a, "update 1=1"+a, "update 3=1"+a, "end 4 in 77")
}

// TestAfterCommit: changes of committed flows follow inline, until a flush.
func TestAfterCommit(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, added(1, 1), added(2, 1), added(3, 1))
	if err := r.replay(flow.SyncCommit); err != nil {
		t.Fatal(err)
	}
	r.out.sent = nil
	a := " by 192.168.100.1"
	r.feed(fromA, updated(1, 2), silent(ended(2)), added(4, 1))
	r.expect("update 1=2"+a, "destroy 2=1"+a)
	r.feed(during(fromA, 5), begin(0), updated(4, 1), updated(1, 2), end(0, 2))
	r.expect("destroy 3=1" + a)
	r.command("flush")
	r.holds()
	r.feed(fromA, updated(1, 3), ended(1))
	r.expect()
}

// TestFlushCommitted: what came after the commit stays, to be committed next.
func TestFlushCommitted(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, added(1, 1), added(2, 1))
	if err := r.replay(flow.SyncCommit); err != nil {
		t.Fatal(err)
	}
	r.out.sent = nil
	r.feed(fromA, added(3, 1))
	r.expect()
	if got := r.command("flush", "committed"); !strings.Contains(got, "2") || !strings.Contains(got, "1") {
		t.Errorf("flush committed answered %q, want 2 flows and 1 left", got)
	}
	if err := r.replay(flow.SyncCommit); err != nil {
		t.Fatal(err)
	}
	r.expect("begin in 77", "update 3=1 by 192.168.100.1 in 77", "end 1 in 77")
}

// TestDuringCommit: who comes where the commit has already been follows inline,
// who comes where it has yet to go waits for it.
func TestDuringCommit(t *testing.T) {
	cases := []struct {
		state  commit
		slot   uint32
		flow   flow.Event
		follow bool
	}{
		{commit{}, 3, added(9, 1), false},
		{commit{pass: 1, last: 3}, 3, added(9, 1), true},
		{commit{pass: 1, last: 2}, 3, added(9, 1), false},
		{commit{pass: 1, last: 3}, 3, expected(added(9, 1)), false},
		{commit{pass: 2, last: 0}, 3, added(9, 1), true},
		{commit{pass: 2, last: 3}, 3, expected(added(9, 1)), true},
		{commit{pass: 2, last: 2}, 3, expected(added(9, 1)), false},
	}
	for i, c := range cases {
		r := newRig(t, withHold)
		r.feed(fromA, added(1, 1), added(2, 1))
		r.cache.core.commit = c.state
		r.feed(fromA, c.flow)
		if slot := r.cache.core.last; slot != c.slot {
			t.Fatalf("the flow came into slot %d", slot)
		}
		want := []string{}
		if c.follow {
			want = []string{"new 9=1 by 192.168.100.1"}
		}
		r.expect(want...)
		if t.Failed() {
			t.Fatalf("case %d: %+v", i, c.state)
		}
	}
}

// TestCommitPassesBy does the same with a commit under way.
func TestCommitPassesBy(t *testing.T) {
	r := newRig(t, withHold)
	for key := range uint16(step + 100) {
		r.feed(fromA, added(key, 1))
	}
	r.feed(fromA, ended(10)) // frees a slot of the first step
	waits := 0
	out := &between{edge: r.out, do: func() {
		if waits++; waits == 3 { // the mark and the first step were sent
			r.out.sent = nil
			r.feed(fromA, added(5000, 7), expected(added(5001, 7)), updated(1, 8), updated(step+50, 8))
			r.expect("new 5000=7 by 192.168.100.1", "update 1=8 by 192.168.100.1")
		}
	}}
	if err := r.cache.replay(context.Background(), plugin.Replay{ID: 77, Flags: flow.SyncCommit}, out); err != nil {
		t.Fatal(err)
	}
	last := r.out.sent[len(r.out.sent)-2:]
	r.out.sent = last
	r.expect("update 5001=7 by 192.168.100.1 in 77", fmt.Sprintf("end %d in 77", step+100))
}

// TestTimeLeft: a commit sends the time that is left of a flow.
func TestTimeLeft(t *testing.T) {
	cases := []struct {
		name         string
		present      bool
		timeout, age uint32
		want         uint32
	}{
		{"fresh", true, 300, 0, 300},
		{"aged", true, 300, 100, 200},
		{"one second left", true, 300, 299, 1},
		{"just run out", true, 300, 300, spentTimeout},
		{"long run out", true, 300, 5000, spentTimeout},
		{"not known", false, 0, 10, spentTimeout},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, withHold)
			e := added(1, 1)
			if e.Timeout = c.timeout; !c.present {
				e.Present &^= flow.HasTimeout
			}
			r.feed(fromA, e)
			r.now += c.age
			if err := r.replay(flow.SyncCommit); err != nil {
				t.Fatal(err)
			}
			b, _ := flow.DecodeBatch(r.out.sent[1])
			var got flow.Event
			cursor := b.Cursor()
			cursor.Next(&got)
			if got.Timeout != c.want || !got.Has(flow.HasTimeout) {
				t.Errorf("%d seconds, not %d", got.Timeout, c.want)
			}
			var kept flow.Event
			if r.cache.core.table.event(r.cache.core.at(1), &kept); kept.Timeout != c.timeout {
				t.Error("the commit changed the cache")
			}
		})
	}
}

func TestSecondCommit(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, added(1, 1))
	for range 2 {
		if err := r.replay(flow.SyncCommit); err != nil {
			t.Fatal(err)
		}
		r.expect("begin in 77", "update 1=1 by 192.168.100.1 in 77", "end 1 in 77")
	}
	if r.cache.core.commit != (commit{}) {
		t.Error("the commit has not ended")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.cache.replay(ctx, plugin.Replay{Flags: flow.SyncCommit}, r.out); err == nil {
		t.Error("a cancelled commit ended well")
	}
}
