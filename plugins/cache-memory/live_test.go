package cachememory

import (
	"net/netip"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

func TestLive(t *testing.T) {
	type events []flow.Event
	cases := []struct {
		name  string
		known []flow.Event // applied one by one before
		batch events
		sent  []string
		holds []string
	}{
		{"new", nil, events{added(1, 5)}, []string{"new 1=5"}, []string{"1=5"}},
		{"update of an unknown flow inserts", nil, events{updated(1, 5)}, []string{"new 1=5"}, []string{"1=5"}},
		{"update merges", events{added(1, 5)}, events{silent(updated(1, 0))}, []string{"update 1=5"}, []string{"1=5"}},
		{"update replaces what it has", events{added(1, 5)}, events{updated(1, 6)}, []string{"update 1=6"}, []string{"1=6"}},
		{"new replaces all", events{added(1, 5)}, events{silent(added(1, 0))}, []string{"new 1=0"}, []string{"1=0"}},
		{"destroy removes", events{added(1, 5)}, events{silent(ended(1))}, []string{"destroy 1=5"}, nil},
		{"destroy of an unknown flow passes", nil, events{ended(1)}, []string{"destroy 1=0"}, nil},
		{"new + update = new", nil, events{added(1, 5), updated(1, 6)}, []string{"new 1=6"}, []string{"1=6"}},
		{"update + update = update", events{added(1, 5)}, events{updated(1, 6), updated(1, 7)}, []string{"update 1=7"}, []string{"1=7"}},
		{"new + destroy vanish", nil, events{added(1, 5), ended(1)}, nil, nil},
		{"new + destroy of a known flow", events{added(1, 5)}, events{added(1, 6), silent(ended(1))}, []string{"destroy 1=6"}, nil},
		{"update + destroy = destroy", events{added(1, 5)}, events{updated(1, 6), silent(ended(1))}, []string{"destroy 1=6"}, nil},
		{"destroy + new = a new that replaces", events{added(1, 5)}, events{ended(1), added(1, 6)}, []string{"new 1=6"}, []string{"1=6"}},
		{"destroy + new + destroy", events{added(1, 5)}, events{ended(1), added(1, 6), silent(ended(1))}, []string{"destroy 1=6"}, nil},
		{"new + destroy + new", nil, events{added(1, 5), ended(1), added(1, 6)}, []string{"new 1=6"}, []string{"1=6"}},
		{"unknown destroy + new", nil, events{ended(1), added(1, 6)}, []string{"new 1=6"}, []string{"1=6"}},
		{
			"flows keep their order", events{added(2, 5)}, events{added(3, 1), updated(2, 6), added(1, 2), updated(3, 4)},
			[]string{"new 3=4", "update 2=6", "new 1=2"},
			[]string{"1=2", "2=6", "3=4"},
		},
		{
			"destroy of a predecessor is ignored", events{identified(added(1, 5), 10)}, events{identified(ended(1), 9)},
			nil, []string{"1=5"},
		},
		{"destroy with the entry's id", events{identified(added(1, 5), 10)}, events{identified(ended(1), 10)}, []string{"destroy 1=0"}, nil},
		{"destroy without id", events{identified(added(1, 5), 10)}, events{ended(1)}, []string{"destroy 1=0"}, nil},
		{"destroy with an id that is not known", events{added(1, 5)}, events{identified(ended(1), 9)}, []string{"destroy 1=0"}, nil},
		{
			"update with another id replaces", events{identified(added(1, 5), 10)}, events{identified(silent(updated(1, 0)), 11)},
			[]string{"new 1=0"},
			[]string{"1=0"},
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			for _, e := range c.known {
				r.feed(live, e)
			}
			r.out.sent = nil
			r.feed(live, c.batch...)
			r.expect(c.sent...)
			r.holds(c.holds...)
			if n := len(r.cache.core.replays.graves); n != 0 {
				t.Errorf("%d tombstones without a replay", n)
			}
		})
	}
}

// TestReopened checks that a peer's UPDATE after the close of a connection is of
// a new one: conntrackd says no more. The kernel would; its UPDATE merges.
func TestReopened(t *testing.T) {
	state := func(e flow.Event, state uint8) flow.Event { e.State = state; return e }
	for _, c := range []struct {
		name   string
		header flow.Header
		was    uint8
		batch  []flow.Event
		sent   string
	}{
		{"peer", fromA, flow.TCPClose, []flow.Event{updated(1, 6)}, "new 1=6"},
		{"peer, after TIME_WAIT", fromA, flow.TCPTimeWait, []flow.Event{state(updated(1, 6), flow.TCPSynSent)}, "new 1=6"},
		{"peer, in a replay", during(fromA, 3), flow.TCPClose, []flow.Event{begin(0), updated(1, 6), end(0, 1)}, "new 1=6"},
		{"peer, no state", fromA, flow.TCPClose, []flow.Event{silent(updated(1, 0))}, "update 1=5"},
		{"peer, still open", fromA, flow.TCPEstablished, []flow.Event{updated(1, 6)}, "update 1=6"},
		{"peer, goes on closing", fromA, flow.TCPLastAck, []flow.Event{state(updated(1, 6), flow.TCPTimeWait)}, "update 1=6"},
		{"another peer", fromB, flow.TCPClose, []flow.Event{updated(1, 6)}, "update 1=6"},
		{"kernel", live, flow.TCPClose, []flow.Event{updated(1, 6)}, "update 1=6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			before := c.header
			if before.Replay = 0; before.Owner == peerB {
				before = fromA
			}
			r.feed(before, state(added(1, 5), c.was))
			r.out.sent = nil
			r.feed(c.header, c.batch...)
			who := ""
			if c.header.Owner.IsValid() {
				who = " by " + c.header.Owner.String()
			}
			r.expect(c.sent + who)
		})
	}
}

// TestKeepsTail checks that what only NEW has stays through updates, and what
// is unknown too, and leaves with the flow.
func TestKeepsTail(t *testing.T) {
	r := newRig(t)
	e := added(1, 5)
	e.Tail = e.Tail.Append(flow.AttrLabels, make([]byte, 16)).Append(4242, []byte("unknown"))
	r.feed(live, e)
	r.out.sent = nil
	u := updated(1, 6)
	u.Tail = u.Tail.Append(flow.AttrHelper, []byte("ftp"))
	r.feed(live, u)
	b, _ := flow.DecodeBatch(r.out.sent[0])
	var got flow.Event
	c := b.Cursor()
	c.Next(&got)
	for _, a := range []flow.Attr{flow.AttrLabels, flow.AttrHelper, 4242} {
		if !got.Tail.Has(a) {
			t.Errorf("attribute %d is lost", a)
		}
	}
	if got.Mark != 6 {
		t.Errorf("mark %d", got.Mark)
	}
}

// TestDestroyIsNotDying checks that the end of a flow leaves with the state in
// which the flow was, since DYING is no state to restore.
func TestDestroyIsNotDying(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 5))
	r.out.sent = nil
	e := ended(1)
	e.Status |= flow.Dying
	r.feed(live, e)
	b, _ := flow.DecodeBatch(r.out.sent[0])
	var got flow.Event
	c := b.Cursor()
	c.Next(&got)
	if got.Kind != flow.Destroy || got.Status != flow.Confirmed {
		t.Error(&got)
	}
}

// TestHeaderPasses checks that batches leave as they came but live.
func TestHeaderPasses(t *testing.T) {
	r := newRig(t)
	h := flow.Header{Origin: flow.Peer, Owner: peerA, Time: 12345}
	r.feed(h, added(1, 1))
	got, err := flow.DecodeBatch(r.out.sent[0])
	if err != nil || got.Header != h {
		t.Errorf("%+v, %v", got.Header, err)
	}
}

// TestWholeFlowsOverflow checks that a batch whose flows grew by merging leaves
// as several.
func TestWholeFlowsOverflow(t *testing.T) {
	r := newRig(t)
	for key := range uint16(400) {
		e := added(key, 1)
		e.Tail = e.Tail.Append(4242, make([]byte, 1000))
		r.feed(live, e)
	}
	r.out.sent = nil
	var updates []flow.Event
	for key := range uint16(400) {
		updates = append(updates, updated(key, 2))
	}
	r.feed(live, updates...)
	n := 0
	for _, p := range r.out.sent {
		b, err := flow.DecodeBatch(p)
		if err != nil {
			t.Fatal(err)
		}
		n += b.Count
	}
	if n != 400 || len(r.out.sent) < 6 {
		t.Errorf("%d records in %d batches", n, len(r.out.sent))
	}
}

func TestLimit(t *testing.T) {
	r := newRig(t, withLimit(32))
	for key := range uint16(40) {
		r.feed(live, added(key, 1))
	}
	if c := r.cache.core.count.of[flows]; c.held != 32 || c.refused != 8 {
		t.Errorf("%d flows, %d refused", c.held, c.refused)
	}
	r.signalled("full") // once
	r.out.sent = nil
	r.feed(live, updated(3, 2), added(99, 1), ended(4), added(98, 1))
	r.expect("update 3=2", "destroy 4=0", "new 98=1")
	r.signalled()
	for key := range uint16(20) {
		r.feed(live, ended(key))
	}
	for key := range uint16(40) {
		r.feed(live, added(100+key, 1))
	}
	r.signalled("full") // again, after there was room
	r.feed(during(live, 5), begin(0), updated(3, 2), updated(200, 1), end(0, 2))
	r.signalled() // what is refused of a replay is no gap
}

func TestForeign(t *testing.T) {
	t.Run("own events", func(t *testing.T) {
		r := newRig(t, withWriteThrough)
		r.feed(own, added(1, 5), updated(2, 5))
		r.feed(own, updated(1, 6))
		r.expect()
		r.holds("1=6 foreign", "2=5 foreign")
		if err := r.replay(0); err != nil {
			t.Fatal(err)
		}
		r.expect("begin in 77", "end 0 in 77")
	})
	t.Run("a packet claims", func(t *testing.T) {
		r := newRig(t, withWriteThrough)
		r.feed(own, added(1, 5))
		r.feed(live, silent(updated(1, 0)))
		r.expect("new 1=5")
		r.holds("1=5")
		r.feed(live, ended(1))
		r.expect("destroy 1=0")
	})
	t.Run("its end is not told", func(t *testing.T) {
		r := newRig(t, withWriteThrough)
		r.feed(own, added(1, 5), added(2, 5))
		r.feed(live, ended(1))
		r.feed(own, ended(2))
		r.feed(live, ended(3)) // nothing is known of it, so it may have been foreign
		r.expect()
		r.holds()
	})
	t.Run("own changes of own flows are not told", func(t *testing.T) {
		r := newRig(t, withWriteThrough)
		r.feed(live, added(1, 5), added(2, 5))
		r.out.sent = nil
		r.feed(own, updated(1, 6), ended(2))
		r.expect()
		r.holds("1=6")
	})
	t.Run("replaced by an injection", func(t *testing.T) {
		r := newRig(t, withWriteThrough)
		r.feed(live, added(1, 5))
		r.out.sent = nil
		r.feed(own, ended(1), added(1, 6))
		r.expect()
		r.holds("1=6 foreign")
		r.feed(live, ended(1))
		r.expect()
	})
	t.Run("own events with hold caches", func(t *testing.T) {
		r := newRig(t)
		r.feed(own, added(1, 5), ended(9))
		r.expect()
		r.holds("1=5 foreign")
	})
}

func TestOwners(t *testing.T) {
	r := newRig(t)
	r.feed(fromA, added(1, 1), added(2, 1))
	r.feed(fromB, added(3, 1))
	r.out.sent = nil
	r.feed(fromB, ended(1))
	r.expect()
	r.holds("1=1 by 192.168.100.1", "2=1 by 192.168.100.1", "3=1 by 192.168.100.2")
	r.feed(fromB, updated(1, 2)) // takes it over
	r.expect("update 1=2 by 192.168.100.2")
	r.feed(fromA, ended(1))
	r.expect()
	r.feed(fromB, silent(ended(1)))
	r.expect("destroy 1=2 by 192.168.100.2")
	r.holds("2=1 by 192.168.100.1", "3=1 by 192.168.100.2")
	if got := r.cache.core.count.ignoredDestroys; got != 2 {
		t.Errorf("%d ignored", got)
	}
}

// TestOwnerTable checks that forged addresses can't fill memory, and that peers
// without flows make room.
func TestOwnerTable(t *testing.T) {
	r := newRig(t)
	header := func(i int) flow.Header {
		h := fromA
		a := h.Owner.As4()
		a[1], a[2], a[3] = byte(i>>16), byte(i>>8), byte(i)
		h.Owner = netip.AddrFrom4(a)
		return h
	}
	for i := range 5000 {
		r.feed(header(i), added(1, uint32(i)))
	}
	if n := len(r.cache.core.owners.list); n > maxOwners {
		t.Errorf("%d owners", n)
	}
	if n := len(r.cache.core.owners.index); n != len(r.cache.core.owners.list) {
		t.Errorf("%d addresses of %d owners", n, len(r.cache.core.owners.list))
	}
	for i := range maxOwners + 100 {
		r.feed(header(10000+i), added(uint16(100+i), 1))
	}
	if c := r.cache.core.count.of[flows]; c.held != maxOwners-1 && c.held != maxOwners || c.refused == 0 {
		t.Errorf("%d flows, %d refused", c.held, c.refused)
	}
}
