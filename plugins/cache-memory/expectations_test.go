package cachememory

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// within gives an expectation another master.
func within(e flow.Event, port uint16) flow.Event {
	m, _ := e.Tail.Master()
	m.Tuple.SourcePort = port
	e.Tail = e.Tail.Without(flow.AttrMaster, nil).AppendMaster(&m)
	return e
}

func TestExpectationsLive(t *testing.T) {
	later, less, more := awaited(21, 1), awaited(21, 1), awaited(21, 1)
	later.Timeout = 17
	less.Tail = less.Tail.Without(flow.AttrHelper, nil)
	more.Tail = more.Tail.Append(flow.AttrFunction, []byte("nat"))
	cases := []struct {
		name        string
		h           flow.Header
		events      []flow.Event
		sent, holds []string
	}{
		{"new", live, []flow.Event{awaited(22, 1)}, []string{"expect x22=1"}, []string{"x21=1", "x22=1"}},
		{"changed", live, []flow.Event{awaited(21, 2)}, []string{"expect x21=2"}, []string{"x21=2"}},
		{"nothing new", live, []flow.Event{awaited(21, 1)}, nil, []string{"x21=1"}},
		{"nothing but the timeout", live, []flow.Event{later}, nil, []string{"x21=1"}},
		{"less than before", live, []flow.Event{less}, []string{"expect x21=1"}, []string{"x21=1"}},
		{"more than before", live, []flow.Event{more}, []string{"expect x21=1"}, []string{"x21=1"}},
		{"less in a replay", during(live, 5), []flow.Event{begin(0), less}, []string{"expect x21=1"}, []string{"x21=1"}},
		{"nothing new in a replay", during(live, 5), []flow.Event{begin(0), later}, nil, []string{"x21=1"}},
		{"renewed", live, []flow.Event{met(21), awaited(21, 1)}, []string{"expect x21=1"}, []string{"x21=1"}},
		{"met", live, []flow.Event{met(21)}, []string{"unexpect x21=0"}, nil},
		{"met, and not known", live, []flow.Event{met(9)}, []string{"unexpect x9=0"}, []string{"x21=1"}},
		{"came and went", live, []flow.Event{awaited(9, 1), met(9)}, nil, []string{"x21=1"}},
		{"met at another node", fromA, []flow.Event{met(21)}, nil, []string{"x21=1"}},
		{"another node's now", fromA, []flow.Event{awaited(21, 1)}, []string{"expect x21=1 by 192.168.100.1"}, []string{"x21=1 by 192.168.100.1"}},
		{"our own", own, []flow.Event{awaited(22, 1), met(21)}, nil, []string{"x22=1 foreign"}},
		{"beside a flow of the same tuple", live, []flow.Event{event(flow.New, 0, 5)}, []string{"new 0=5"}, []string{"x21=1", "0=5"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.feed(live, awaited(21, 1))
			r.out.sent = nil
			r.feed(c.h, c.events...)
			r.expect(c.sent...)
			r.holds(c.holds...)
		})
	}
}

// TestExpectationIdentity: who expects what; each part of it counts.
func TestExpectationIdentity(t *testing.T) {
	r := newRig(t)
	masked, zoned := awaited(21, 3), awaited(21, 4)
	masked.Reply.SourcePort = 0xffff
	zoned.Zone = 7
	r.feed(live, awaited(21, 1), within(awaited(21, 2), 99), masked, zoned)
	r.expect("expect x21=1", "expect x21=2", "expect x21=3", "expect x21=4")
	r.feed(live, within(met(21), 99))
	r.holds("x21=1", "x21=3", "x21=4")
}

// TestExpectationAgain: another expectation of the kernel's in place of one whose
// end was lost is told, and its predecessor's end is not its own.
func TestExpectationAgain(t *testing.T) {
	r := newRig(t)
	r.feed(live, identified(awaited(21, 1), 5))
	r.feed(live, identified(awaited(21, 1), 6))
	r.feed(live, identified(met(21), 5))
	r.expect("expect x21=1", "expect x21=1")
	r.holds("x21=1")
	r.feed(live, identified(met(21), 6))
	r.holds()
}

func TestExpectationsForeign(t *testing.T) {
	r := newRig(t, withWriteThrough)
	r.feed(own, awaited(21, 1))
	r.feed(during(live, 5), begin(0), updated(1, 1), awaited(21, 1), awaited(22, 1), end(0, 3))
	r.expect()
	r.holds("x21=1 foreign", "x22=1 foreign", "1=1 foreign")
	r.reported("5: flows 1 expectations 2 new 2 changed 0 swept 0")
	if err := r.replay(0); err != nil {
		t.Fatal(err)
	}
	r.expect("begin in 77", "end 0 in 77")
	r.feed(live, awaited(21, 1))
	r.expect("expect x21=1")
	r.holds("x21=1", "x22=1 foreign", "1=1 foreign")
	r.feed(during(live, 6), begin(flow.SyncClaim), awaited(22, 1), end(flow.SyncClaim, 1))
	r.expect("expect x22=1", "unexpect x21=1")
}

func TestExpectationsReplayed(t *testing.T) {
	r := newRig(t)
	r.feed(live, awaited(21, 1), awaited(22, 1), awaited(23, 1), added(1, 1))
	r.feed(fromA, awaited(31, 1))
	r.out.sent = nil
	r.feed(during(live, 5), begin(0))
	r.feed(live, met(21), awaited(24, 1), met(99))
	r.expect("unexpect x21=0", "expect x24=1", "unexpect x99=0")
	r.feed(during(live, 5), updated(1, 1), awaited(21, 1), awaited(22, 1), awaited(23, 2), awaited(99, 1))
	r.expect("expect x23=2")
	r.feed(during(live, 5), end(0, 5))
	r.expect()
	r.holds("1=1", "x22=1", "x23=2", "x24=1", "x31=1 by 192.168.100.1")
	r.feed(during(live, 6), begin(0), updated(1, 1), end(0, 1))
	r.expect("unexpect x22=1", "unexpect x23=2", "unexpect x24=1")
	r.holds("1=1", "x31=1 by 192.168.100.1")
	r.feed(during(fromA, 7), begin(flow.SyncQuiet), end(flow.SyncQuiet, 0))
	r.expect()
	r.holds("1=1")
	r.reported("5: flows 1 expectations 4 new 0 changed 1 swept 0", "6: flows 1 new 0 changed 0 swept 3", "7: flows 0 new 0 changed 0 swept 1")
	r.feed(during(live, 8), begin(0), awaited(22, 1), end(0, 2))
	r.signalled("gap")
}

// TestExpectationsSent: a replay sends them behind all flows.
func TestExpectationsSent(t *testing.T) {
	r := newRig(t)
	r.feed(live, awaited(21, 1), expected(added(1, 1)), added(2, 1))
	r.out.sent = nil
	if err := r.replay(0); err != nil {
		t.Fatal(err)
	}
	r.expect("begin in 77", "update 1=1 in 77", "update 2=1 in 77", "expect x21=1 in 77", "end 3 in 77")
}

func TestExpectationsCommitted(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, awaited(21, 1), expected(added(1, 1)), added(2, 1), awaited(22, 1))
	r.now += 299
	r.expect()
	if err := r.replay(flow.SyncCommit); err != nil {
		t.Fatal(err)
	}
	a := " by 192.168.100.1"
	r.expect("begin in 77", "update 2=1"+a+" in 77", "update 1=1"+a+" in 77", "expect x21=1"+a+" in 77", "expect x22=1"+a+" in 77", "end 4 in 77")
	r.feed(fromA, met(21), awaited(22, 2), awaited(23, 1))
	r.expect("unexpect x21=0"+a, "expect x22=2"+a)
	if got := r.answer(plugin.Command{Name: "flush", Args: []string{"committed"}, JSON: true}); strings.TrimSpace(got) != `{"expectations":1,"flows":2,"left":1}` {
		t.Error(got)
	}
	r.holds("x23=1" + a)
}

// TestExpectationsDuringCommit: as TestCommitPassesBy, for the last pass.
func TestExpectationsDuringCommit(t *testing.T) {
	r := newRig(t, withHold)
	r.feed(fromA, added(1, 1), awaited(21, 1), awaited(22, 1))
	r.feed(fromA, ended(1)) // its slot is free
	waits := 0
	out := &between{edge: r.out, do: func() {
		waits++
		r.out.sent = nil
		switch waits {
		case 4: // the mark, and the passes of flows
			r.feed(fromA, added(2, 1), awaited(23, 1))
			r.expect("new 2=1 by 192.168.100.1")
		case 5: // that of expectations too
			r.feed(fromA, awaited(22, 2), expected(added(3, 1)), met(23))
			r.expect("expect x22=2 by 192.168.100.1", "new 3=1 by 192.168.100.1", "unexpect x23=0 by 192.168.100.1")
		}
	}}
	if err := r.cache.replay(t.Context(), plugin.Replay{ID: 77, Flags: flow.SyncCommit}, out); err != nil {
		t.Fatal(err)
	}
	if waits != 5 {
		t.Errorf("%d batches", waits)
	}
}

// TestExpectationsTimeLeft: unlike a flow's, an expectation's time runs out whatever
// happens, so a commit does not prolong it.
func TestExpectationsTimeLeft(t *testing.T) {
	for age, want := range map[uint32]uint32{0: 300, 100: 200, 299: 1, 300: 1, 5000: 1} {
		r := newRig(t, withHold)
		r.feed(fromA, awaited(21, 1))
		r.now += age
		if err := r.replay(flow.SyncCommit); err != nil {
			t.Fatal(err)
		}
		b, _ := flow.DecodeBatch(r.out.sent[1])
		var got flow.Event
		cursor := b.Cursor()
		if cursor.Next(&got); got.Timeout != want || got.Kind != flow.Expect {
			t.Errorf("after %d seconds: %v", age, &got)
		}
	}
}

// TestExpectationLimit: theirs is another than the flows'.
func TestExpectationLimit(t *testing.T) {
	r := newRig(t, withLimit(1), func(r *rig) { r.cache.config.ExpectationLimit = 2 })
	r.feed(live, awaited(21, 1), awaited(22, 1), added(1, 1))
	r.signalled()
	r.feed(live, awaited(23, 1), awaited(21, 2))
	r.signalled("full")
	r.feed(during(live, 5), begin(0), awaited(24, 1), end(0, 1))
	r.signalled() // once
	r.feed(live, added(2, 1), awaited(24, 1))
	r.signalled()
	r.feed(live, added(3, 1))
	r.signalled("full")
	r.holds("2=1", "x24=1")
	statistics := map[string]uint64{}
	for _, s := range r.cache.Statistics() {
		statistics[s.Name] = s.Value
	}
	for name, want := range map[string]uint64{
		"expectations": 1, "expectations_limit": 2, "expectations_inserted": 3, "expectations_updated": 1, "expectations_swept": 2,
		"expectations_refused": 2, "flows": 1, "inserted": 2, "refused": 1, "swept": 1, "updated": 0,
	} {
		if statistics[name] != want {
			t.Errorf("%s is %d, not %d", name, statistics[name], want)
		}
	}
}

func TestExpectationsDump(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1), awaited(21, 1))
	r.now += 5
	r.feed(fromA, awaited(22, 1))
	r.now += 2
	if got := r.command("dump"); strings.Count(got, "\n") != 1 {
		t.Error(got)
	}
	text := func(port string) string {
		return "300 proto=6 src=10.0.0.1 dst=10.0.0.2 sport=0 dport=" + port + " mask-src=255.255.255.255 mask-dst=255.255.255.255" +
			" sport=0 dport=65535 master-src=10.0.0.1 master-dst=10.0.0.2 sport=1 dport=443 class=1 helper=ftp"
	}
	if got, want := r.command("dump", "expectations"), text("21")+"\n"+text("22")+" owner=192.168.100.1\n"; got != want {
		t.Errorf("\n%snot\n%s", got, want)
	}
	var got struct {
		Kind, Owner, Helper string
		Age, Active         uint32
		Mask                map[string]any
		Reply               any
	}
	line := r.answer(plugin.Command{Name: "dump", Args: []string{"expectations", "owner=192.168.100.1"}, JSON: true})
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != "" || got.Owner != "192.168.100.1" || got.Helper != "ftp" || got.Age != 2 || got.Active != 2 || got.Reply != nil || len(got.Mask) == 0 {
		t.Errorf("%+v", got)
	}
}

// TestActive: a flow's age counts from the last event, and how long it is active
// from the first.
func TestActive(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1))
	r.now += 5
	r.feed(live, updated(1, 2))
	r.now += 2
	if got := r.answer(plugin.Command{Name: "dump", JSON: true}); !strings.Contains(got, `"age":2,"active":7`) {
		t.Error(got)
	}
	r.feed(live, ended(1), added(1, 1))
	if got := r.answer(plugin.Command{Name: "dump", JSON: true}); !strings.Contains(got, `"age":0,"active":0`) {
		t.Error(got)
	}
}

func TestExpectationsFlush(t *testing.T) {
	r := newRig(t)
	r.feed(live, added(1, 1), awaited(21, 1), awaited(22, 1))
	r.out.sent = nil
	if got := r.command("flush", "expectations"); strings.Join(strings.Fields(got), " ") != "expectations 2" {
		t.Error(got)
	}
	r.holds("1=1")
	r.feed(live, awaited(21, 1))
	if got := r.command("flush"); strings.Join(strings.Fields(got), " ") != "expectations 1 flows 1" {
		t.Error(got)
	}
	r.holds()
	r.expect("expect x21=1")
}

// TestExpectationsFillTheTails: what an expectation has is longer than an entry's
// head, and none of it is left behind.
func TestExpectationsFillTheTails(t *testing.T) {
	r := newRig(t)
	for round := range uint32(3) {
		for key := range uint16(100) {
			r.feed(live, awaited(key, round))
		}
		if round == 1 {
			for key := range uint16(100) {
				r.feed(live, met(key))
			}
		}
	}
	before := r.cache.core.bytes()
	for key := range uint16(100) {
		r.feed(live, awaited(key, 9), met(key), awaited(key, 8))
	}
	if after := r.cache.core.bytes(); after != before {
		t.Errorf("%d bytes more", after-before)
	}
	want := map[uint16]string{}
	for key := range uint16(100) {
		e := awaited(key, 8)
		want[key] = describe(&e)
	}
	if got := r.expectations(); !maps.Equal(got, want) {
		t.Error(slices.Sorted(maps.Values(got)))
	}
}

func (r *rig) expectations() map[uint16]string {
	m := map[uint16]string{}
	for slot := uint32(1); slot <= r.cache.core.last; slot++ {
		if e := r.cache.core.at(slot); e.alive() && e.class() == expectations {
			var ev flow.Event
			r.cache.core.table.event(e, &ev)
			m[ev.Original.DestinationPort] = describe(&ev)
		}
	}
	return m
}
