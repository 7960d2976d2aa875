package cachememory

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

// A world is a kernel's table and the queue of its events, as a netlink source
// sees them: a dump may read an entry before or after the source has read the
// events about it, and sends what it read later.
type world struct {
	r      *rand.Rand
	h      flow.Header // of its live batches
	keys   uint16      // flows are numbered from first; every fifth is an expectation
	first  uint16
	table  map[uint16]flow.Event
	queue  []flow.Event
	nextID uint32

	dump  *dump
	dumps uint64
}

// A dump is a replay of a world under way.
type dump struct {
	id    uint64
	next  uint16       // key to read next
	read  []flow.Event // read, not yet sent
	sent  uint64
	begun bool
}

func newWorld(r *rand.Rand, h flow.Header, first uint16) *world {
	return &world{r: r, h: h, first: first, keys: 40, table: map[uint16]flow.Event{}}
}

// turn lets something happen to a flow.
func (w *world) turn() {
	key := w.first + uint16(w.r.IntN(int(w.keys)))
	if key%5 == 0 {
		w.queue = append(w.queue, w.turnExpectation(key))
		return
	}
	e, known := w.table[key]
	switch n := w.r.IntN(4); {
	case !known:
		w.nextID++
		e = identified(added(key, w.r.Uint32N(1000)), w.nextID)
		if n == 0 {
			e.Tail = e.Tail.Append(flow.AttrHelper, []byte("ftp"))
		}
		w.table[key] = e
	case n < 2:
		e.Kind, e.Mark, e.Tail = flow.Update, w.r.Uint32N(1000), nil
		kept := e
		kept.Tail = w.table[key].Tail
		w.table[key] = kept
	default:
		e.Kind, e.Tail = flow.Destroy, nil
		delete(w.table, key)
	}
	w.queue = append(w.queue, e)
}

func (w *world) turnExpectation(key uint16) flow.Event {
	e, known := w.table[key]
	if known && w.r.IntN(2) == 0 {
		e.Kind = flow.Unexpect
		delete(w.table, key)
		return e
	}
	w.nextID++
	e = identified(awaited(key, w.r.Uint32N(3)), w.nextID)
	w.table[key] = e
	return e
}

// deliver sends some of the queue to the cache, or loses it.
func (w *world) deliver(to *rig, lose bool) {
	n := min(len(w.queue), 1+w.r.IntN(10))
	if n > 0 && !lose {
		to.feed(w.h, w.queue[:n]...)
	}
	w.queue = w.queue[n:]
}

// step lets the dump begin, read some flows, or send some of what it read; at
// its end it says so.
func (w *world) step(to *rig, lose bool) (ended bool) {
	if w.dump == nil {
		w.dumps++
		w.dump = &dump{id: w.dumps, next: w.first}
	}
	d := w.dump
	h := during(w.h, d.id)
	switch {
	case !d.begun:
		d.begun = true
		if !lose {
			to.feed(h, begin(0))
		}
	case d.next < w.first+w.keys && (len(d.read) == 0 || w.r.IntN(2) == 0):
		for range 1 + w.r.IntN(10) {
			if e, ok := w.table[d.next]; ok {
				if !e.IsExpectation() {
					e.Kind = flow.Update
				}
				d.read = append(d.read, e)
			}
			d.next++
		}
	case len(d.read) > 0:
		n := 1 + w.r.IntN(len(d.read))
		d.sent += uint64(n)
		if !lose {
			to.feed(h, d.read[:n]...)
		}
		d.read = d.read[n:]
	case d.next >= w.first+w.keys:
		w.dump = nil
		if !lose {
			to.feed(h, end(0, d.sent))
		}
		return true
	}
	return false
}

// flows returns what a world has, or a cache, to be compared.
func (w *world) flows() map[uint16]string {
	m := map[uint16]string{}
	for key, e := range w.table {
		m[key] = describe(&e)
	}
	return m
}

func (r *rig) flows() map[uint16]string {
	m := map[uint16]string{}
	for slot := uint32(1); slot <= r.cache.core.last; slot++ {
		if e := r.cache.core.at(slot); e.alive() {
			var ev flow.Event
			r.cache.core.table.event(e, &ev)
			if ev.IsExpectation() {
				m[ev.Original.DestinationPort] = describe(&ev)
			} else {
				m[ev.Original.SourcePort] = describe(&ev)
			}
		}
	}
	return m
}

func describe(e *flow.Event) string {
	if e.IsExpectation() {
		return fmt.Sprintf("id %d %s", e.ID, e.AppendExpectation(nil))
	}
	return fmt.Sprintf("id %d %s", e.ID, e.Flow.String())
}

// same fails unless two tables are equal.
func same(t *testing.T, what string, got, want map[uint16]string) {
	t.Helper()
	if maps.Equal(got, want) {
		return
	}
	for key, s := range got {
		if want[key] != s {
			t.Errorf("%s: flow %d is %q, not %q", what, key, s, want[key])
		}
	}
	for key := range want {
		if got[key] == "" {
			t.Errorf("%s: flow %d is missing", what, key)
		}
	}
	t.FailNow()
}

// TestConverges lets flows come and go, loses batches of all kinds, replays in
// between, and compares: after one complete replay, with live events before,
// in and behind it, the cache is what the world is; and so is the cache below
// it after a replay of this one, taken while changes go on.
func TestConverges(t *testing.T) {
	for seed := range uint64(300) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 7))
			worlds := []*world{newWorld(r, live, 0)}
			if seed%2 == 1 { // the peers' pipeline
				worlds = []*world{newWorld(r, fromA, 0), newWorld(r, fromB, 1000)}
			}
			converge(t, r, worlds)
		})
	}
}

func converge(t *testing.T, r *rand.Rand, worlds []*world) {
	below, cache := newRig(t), newRig(t)
	loseBelow := true
	cache.out.to = func(p []byte) {
		if loseBelow && r.IntN(5) == 0 {
			return
		}
		below.feedPacket(p)
	}
	lossy := func() bool { return r.IntN(10) == 0 }
	for range 300 {
		w := worlds[r.IntN(len(worlds))]
		switch r.IntN(6) {
		case 0, 1, 2:
			w.turn()
		case 3, 4:
			w.deliver(cache, lossy())
		default:
			w.step(cache, lossy())
		}
		if r.IntN(100) == 0 {
			if err := cache.replay(0); err != nil {
				t.Fatal(err)
			}
		}
	}
	// What is lost above is lost for good: from here on nothing is.
	for _, w := range worlds {
		w.dump = nil
		w.deliver(cache, true)
	}
	for i := range worlds {
		settle(r, worlds, i, cache)
	}
	want := map[uint16]string{}
	for _, w := range worlds {
		for len(w.queue) > 0 {
			w.deliver(cache, false)
		}
		maps.Copy(want, w.flows())
	}
	same(t, "cache", cache.flows(), want)

	loseBelow = false
	replayWhileChanging(t, r, worlds, cache)
	want = map[uint16]string{}
	for _, w := range worlds {
		for len(w.queue) > 0 {
			w.deliver(cache, false)
		}
		maps.Copy(want, w.flows())
	}
	same(t, "cache", cache.flows(), want)
	same(t, "cache below", below.flows(), want)
	checkPopulation(t, cache.cache.core)
	checkPopulation(t, below.cache.core)
	cache.cache.reap()
	if c := cache.cache.core; c.index.used != len(want) {
		t.Errorf("%d entries for %d flows", c.index.used, len(want))
	}
}

// checkPopulation compares what is counted with what is there.
func checkPopulation(t *testing.T, c *core) {
	t.Helper()
	var p population
	for slot := uint32(1); slot <= c.last; slot++ {
		if e := c.at(slot); e.alive() && e.class() == flows {
			p.add(e.head[:])
		}
	}
	if p.held != c.population.held {
		t.Errorf("counted %v, there are %v", c.population.statistics(), p.statistics())
	}
}

// settle carries a dump of one world to its end while all of them change.
func settle(r *rand.Rand, worlds []*world, i int, cache *rig) {
	for done := false; !done; {
		w := worlds[r.IntN(len(worlds))]
		switch r.IntN(4) {
		case 0, 1:
			w.turn()
		case 2:
			w.deliver(cache, false)
		default:
			done = worlds[i].step(cache, false)
		}
	}
}

// replayWhileChanging replays the cache while events come between any two of
// its batches.
func replayWhileChanging(t *testing.T, r *rand.Rand, worlds []*world, cache *rig) {
	between := &between{edge: cache.out, do: func() {
		for range r.IntN(5) {
			w := worlds[r.IntN(len(worlds))]
			w.turn()
			w.deliver(cache, false)
		}
	}}
	if err := cache.cache.replay(t.Context(), replayNow, between); err != nil {
		t.Fatal(err)
	}
}

// TestLostBatchesAreNoticed: whatever batch of a replay is lost, either the
// replay fails and nothing is swept, or nothing of it is missing.
func TestLostBatchesAreNoticed(t *testing.T) {
	for lost := range 5 {
		r := newRig(t)
		r.feed(live, added(1, 1), added(2, 1), added(9, 1))
		batches := [][]flow.Event{{begin(0)}, {updated(1, 1)}, {updated(2, 1)}, {end(0, 2)}, nil}
		for _, b := range slices.Delete(batches, lost, lost+1) {
			if len(b) > 0 {
				r.feed(during(live, 5), b...)
			}
		}
		want := map[bool][]string{true: {"1=1", "2=1"}, false: {"1=1", "2=1", "9=1"}}[lost == 4]
		r.holds(want...)
	}
}
