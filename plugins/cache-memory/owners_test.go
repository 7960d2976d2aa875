package cachememory

import (
	"net/netip"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

// TestOthersFlows: rule 8, what a replay of A does to a flow of B, with live
// events between its begin and its records.
func TestOthersFlows(t *testing.T) {
	const plain, claim = flow.SyncFlags(0), flow.SyncClaim
	one := []flow.Event{updated(1, 7)}
	cases := []struct {
		name        string
		flags       flow.SyncFlags
		live        flow.Header
		during      []flow.Event
		replayed    []flow.Event
		sent, holds []string
	}{
		{"left alone", plain, fromB, nil, one, nil, []string{"1=1 by 192.168.100.2"}},
		{"claimed", claim, fromB, nil, one, []string{"update 1=7 by 192.168.100.1"}, []string{"1=7 by 192.168.100.1"}},
		{"left alone while its owner changes it", plain, fromB, []flow.Event{updated(1, 3)}, one,
			[]string{"update 1=3 by 192.168.100.2"}, []string{"1=3 by 192.168.100.2"}},
		{"claimed while its owner changes it", claim, fromB, []flow.Event{updated(1, 3)}, one,
			[]string{"update 1=3 by 192.168.100.2", "update 1=7 by 192.168.100.1"}, []string{"1=7 by 192.168.100.1"}},
		{"ended by its owner", plain, fromB, []flow.Event{ended(1)}, one, []string{"destroy 1=0 by 192.168.100.2"}, nil},
		{"claimed though its owner ended it", claim, fromB, []flow.Event{ended(1)}, one,
			[]string{"destroy 1=0 by 192.168.100.2", "new 1=7 by 192.168.100.1"}, []string{"1=7 by 192.168.100.1"}},
		{"ended by who claims it", claim, fromA, []flow.Event{ended(1)}, one, nil, []string{"1=1 by 192.168.100.2"}},
		{"ended by a third", claim, flow.Header{Origin: flow.Peer, Owner: netip.MustParseAddr("192.168.100.3")}, []flow.Event{ended(1)}, one,
			[]string{"update 1=7 by 192.168.100.1"}, []string{"1=7 by 192.168.100.1"}},
		{"taken over live, then ended", claim, fromA, []flow.Event{updated(1, 3), ended(1)}, one,
			[]string{"destroy 1=0 by 192.168.100.1"}, nil},
		{"taken over live by who claims it", claim, fromA, []flow.Event{updated(1, 3)}, one,
			[]string{"update 1=3 by 192.168.100.1"}, []string{"1=3 by 192.168.100.1"}},
		{"taken over live without a claim", plain, fromA, []flow.Event{updated(1, 3)}, one,
			[]string{"update 1=3 by 192.168.100.1"}, []string{"1=3 by 192.168.100.1"}},
		{"named twice", claim, fromB, []flow.Event{updated(1, 3)}, []flow.Event{updated(1, 7), updated(1, 8)},
			[]string{"update 1=3 by 192.168.100.2", "update 1=7 by 192.168.100.1"}, []string{"1=7 by 192.168.100.1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.feed(fromB, added(1, 1))
			r.out.sent = nil
			r.feed(during(fromA, 5), begin(c.flags))
			if c.during != nil {
				r.feed(c.live, c.during...)
			}
			r.feed(during(fromA, 5), c.replayed...)
			r.feed(during(fromA, 5), end(c.flags, uint64(len(c.replayed))))
			r.expect(c.sent...)
			r.holds(c.holds...)
			r.signalled()
			if len(r.cache.core.replays.others) != 0 {
				t.Error("ends are remembered without a replay")
			}
		})
	}
}

// TestClaimOfACacheAbove: rule 8 is for peers. What a cache above says of their
// flows is as old as its replay.
func TestClaimOfACacheAbove(t *testing.T) {
	r := newRig(t, withWriteThrough)
	r.feed(fromA, added(1, 1))
	r.out.sent = nil
	r.feed(during(live, 5), begin(flow.SyncClaim))
	r.feed(fromA, updated(1, 2))
	r.feed(during(fromA, 5), updated(1, 1))
	r.feed(during(live, 5), end(flow.SyncClaim, 1))
	r.expect("update 1=2 by 192.168.100.1")
	r.holds("1=2 by 192.168.100.1")
}

// TestHandOver: the third node's view of a takeover. B carried flows; A commits
// them, but for one, and tells all of it, but messages are lost; B knows them
// until it purges, and sends what it knows meanwhile.
func TestHandOver(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromB, added(1, 1), added(2, 1), added(3, 1), awaited(21, 1))
	r.feed(fromA, updated(1, 2)) // that of 2 was lost
	r.feed(during(fromA, 5), begin(flow.SyncClaim), updated(1, 2), updated(2, 2), awaited(21, 1), end(flow.SyncClaim, 3))
	for _, count := range []uint64{4, 9} { // whole, and with a loss
		r.feed(during(fromB, 6), begin(0), updated(1, 1), updated(2, 1), updated(3, 1), awaited(21, 1), end(0, count))
	}
	r.signalled("gap")
	r.feed(fromB, ended(2))
	r.feed(during(fromB, 7), begin(flow.SyncQuiet), end(flow.SyncQuiet, 0)) // purged
	r.holds("1=2 by 192.168.100.1", "2=2 by 192.168.100.1", "x21=1 by 192.168.100.1")
	if n := r.cache.core.count.spared; n != 6 {
		t.Errorf("%d records spared", n)
	}
	r.feed(fromB, updated(1, 3)) // a conntrackd marks nothing: what it says live counts
	r.feed(fromA, ended(2))
	r.holds("1=3 by 192.168.100.2", "x21=1 by 192.168.100.1")
}
