package cachememory

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// A fakeHost keeps what the cache told the runner.
type fakeHost struct {
	start plugin.Start

	mu      sync.Mutex
	signals []string
	reports []plugin.Report
}

func (h *fakeHost) Start() plugin.Start  { return h.start }
func (h *fakeHost) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (h *fakeHost) Signal(s plugin.Signal, detail string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signals = append(h.signals, fmt.Sprintf("%s: %s", s, detail))
}

func (h *fakeHost) Done(r plugin.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports = append(h.reports, r)
}

// An edge is an output that keeps batches, or hands them on.
type edge struct {
	sync.Mutex
	t     testing.TB
	to    func(p []byte) // instead of keeping
	sent  [][]byte
	block chan struct{} // not nil: sending waits until it is closed
}

func (e *edge) SendLocked(b *flow.Builder) error {
	if b.Len() == 0 {
		e.t.Error("an empty batch")
	}
	p := slices.Clone(b.Bytes())
	if _, err := flow.DecodeBatch(p); err != nil {
		e.t.Error(err)
	}
	if e.block != nil {
		<-e.block
	}
	if e.to != nil {
		e.to(p)
	} else {
		e.sent = append(e.sent, p)
	}
	return nil
}

func (e *edge) AwaitRoom(ctx context.Context, _ uint16) error { return ctx.Err() }

// A rig is a cache between a fake host and an edge.
type rig struct {
	t     testing.TB
	cache *Cache
	host  *fakeHost
	out   *edge
	now   uint32
}

type option func(*rig)

func withHold(r *rig)         { r.cache.config.Hold = true }
func withWriteThrough(r *rig) { r.host.start.WriteThrough = true }
func withLimit(n uint32) option {
	return func(r *rig) { r.cache.config.Limit = n }
}

func newRig(t testing.TB, options ...option) *rig {
	config := Definition.Config().(*Config)
	config.ReplayRate = 0
	r := &rig{t: t, cache: newCache(*config), host: &fakeHost{}, out: &edge{t: t}, now: 100}
	for _, o := range options {
		o(r)
	}
	r.cache.clock = func() uint32 { return r.now }
	if err := r.cache.Open(context.Background(), r.host); err != nil {
		t.Fatal(err)
	}
	return r
}

// Headers of the batches that tests send.
var (
	peerA = netip.MustParseAddr("192.168.100.1")
	peerB = netip.MustParseAddr("192.168.100.2")

	live  = flow.Header{}
	own   = flow.Header{Origin: flow.Own}
	fromA = flow.Header{Origin: flow.Peer, Owner: peerA}
	fromB = flow.Header{Origin: flow.Peer, Owner: peerB}
)

// during returns the header of a batch of a replay.
func during(h flow.Header, id uint64) flow.Header {
	h.Replay = id
	return h
}

// feed sends one batch into the cache.
func (r *rig) feed(h flow.Header, events ...flow.Event) {
	r.t.Helper()
	var b flow.Builder
	b.Reset(h)
	for i := range events {
		if !b.Append(&events[i]) {
			r.t.Fatal("too much for a batch")
		}
	}
	r.feedPacket(b.Bytes())
}

func (r *rig) feedPacket(p []byte) {
	r.t.Helper()
	b, err := flow.DecodeBatch(p)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.cache.apply(&b, r.out); err != nil {
		r.t.Fatal(err)
	}
	r.check()
}

// check compares the counters with the table.
func (r *rig) check() {
	c := r.cache.core
	var held, foreign [classes]int
	owned := make([][classes]int, len(c.owners.list))
	for slot := uint32(1); slot <= c.last; slot++ {
		e := c.at(slot)
		if e.has(flagPending | flagChanged | flagReplaced) {
			r.t.Errorf("slot %d was left with flags %b", slot, e.flags)
		}
		if !e.alive() {
			continue
		}
		held[e.class()]++
		owned[e.owner][e.class()]++
		if e.has(flagForeign) {
			foreign[e.class()]++
		}
	}
	for of, n := range c.count.of {
		if held[of] != n.held || foreign[of] != n.foreign {
			r.t.Errorf("%d %s, %d foreign; counted are %d, %d", held[of], class(of).noun(), foreign[of], n.held, n.foreign)
		}
	}
	for i, n := range owned {
		if c.owners.list[i].held != n {
			r.t.Errorf("owner %d has %v, counted are %v", i, n, c.owners.list[i].held)
		}
	}
}

func (r *rig) replay(flags flow.SyncFlags) error {
	r.t.Helper()
	err := r.cache.replay(context.Background(), plugin.Replay{ID: 77, Flags: flags, Edge: 3}, r.out)
	r.check()
	return err
}

// line writes an event in the short form of these tests: kind, key, mark, and
// what else matters.
func shortly(h *flow.Header, e *flow.Event) string {
	s := map[flow.Kind]string{
		flow.New: "new", flow.Update: "update", flow.Destroy: "destroy", flow.SyncBegin: "begin", flow.SyncEnd: "end",
		flow.Expect: "expect", flow.Unexpect: "unexpect",
	}[e.Kind]
	switch {
	case e.Kind == flow.SyncEnd:
		s += fmt.Sprintf(" %d", e.Sync.Count)
	case e.Kind != flow.SyncBegin:
		s += " " + content(e)
	}
	if h.Owner.IsValid() {
		s += " by " + h.Owner.String()
	}
	if h.Replay != 0 {
		s += fmt.Sprintf(" in %d", h.Replay)
	}
	return s
}

// content writes a flow as number=mark, and an expectation as x, number=class.
func content(e *flow.Event) string {
	if x, ok := e.Tail.Expectation(); ok {
		return fmt.Sprintf("x%d=%d", e.Original.DestinationPort, x.Class)
	}
	return fmt.Sprintf("%d=%d", e.Original.SourcePort, e.Mark)
}

// expect compares what the cache has sent since the last call.
func (r *rig) expect(want ...string) {
	r.t.Helper()
	var got []string
	for _, p := range r.out.sent {
		b, err := flow.DecodeBatch(p)
		if err != nil {
			r.t.Fatal(err)
		}
		var e flow.Event
		for c := b.Cursor(); c.Next(&e); {
			got = append(got, shortly(&b.Header, &e))
		}
	}
	r.out.sent = nil
	if !slices.Equal(got, want) {
		r.t.Errorf("sent:\n\t%s\nnot:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// holds compares the flows that are in the cache, as in "1=7 by … foreign".
func (r *rig) holds(want ...string) {
	r.t.Helper()
	got := []string{}
	for slot := uint32(1); slot <= r.cache.core.last; slot++ {
		e := r.cache.core.at(slot)
		if !e.alive() {
			continue
		}
		var ev flow.Event
		r.cache.core.table.event(e, &ev)
		s := content(&ev)
		if o := r.cache.core.owners.list[e.owner].address; o.IsValid() {
			s += " by " + o.String()
		}
		if e.has(flagForeign) {
			s += " foreign"
		}
		got = append(got, s)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Errorf("holds %q, not %q", got, want)
	}
}

// signalled compares the signals since the last call by their names.
func (r *rig) signalled(want ...string) {
	r.t.Helper()
	var got []string
	for _, s := range r.host.signals {
		name, _, _ := strings.Cut(s, ":")
		got = append(got, name)
	}
	r.host.signals = nil
	if !slices.Equal(got, want) {
		r.t.Errorf("signals %q, not %q", got, want)
	}
}

// reported compares the reports since the last call, as in
// "5: flows 2 new 1 changed 0 swept 1" or "5: failed".
func (r *rig) reported(want ...string) {
	r.t.Helper()
	var got []string
	for _, one := range r.host.reports {
		s := fmt.Sprintf("%d:", one.Replay)
		for _, c := range one.Counts {
			s += fmt.Sprintf(" %s %d", c.Name, c.Value)
		}
		if one.Failed != "" {
			s += " failed"
		}
		got = append(got, s)
	}
	r.host.reports = nil
	if !slices.Equal(got, want) {
		r.t.Errorf("reports %q, not %q", got, want)
	}
}

// event makes an event of the flow number key with a mark.
func event(kind flow.Kind, key uint16, mark uint32) flow.Event {
	e := flow.Event{Kind: kind, Flow: flow.Flow{Family: flow.IPv4, Protocol: flow.TCP, Mark: mark}}
	e.Original.Source, _ = flow.Bytes(netip.MustParseAddr("10.0.0.1"))
	e.Original.Destination, _ = flow.Bytes(netip.MustParseAddr("10.0.0.2"))
	e.Original.SourcePort, e.Original.DestinationPort = key, 443
	e.Reply = e.Original.Inverted(flow.TCP)
	e.Status, e.State, e.Timeout = flow.Confirmed, flow.TCPEstablished, 300
	e.Present = flow.HasReply | flow.HasStatus | flow.HasState | flow.HasTimeout | flow.HasMark
	return e
}

func added(key uint16, mark uint32) flow.Event   { return event(flow.New, key, mark) }
func updated(key uint16, mark uint32) flow.Event { return event(flow.Update, key, mark) }
func ended(key uint16) flow.Event                { return event(flow.Destroy, key, 0) }

// identified gives an event a CTA_ID.
func identified(e flow.Event, id uint32) flow.Event {
	e.ID, e.Present = id, e.Present|flow.HasID
	return e
}

// silent leaves out all attributes of an event.
func silent(e flow.Event) flow.Event {
	e.Present, e.Mark, e.State, e.Status, e.Timeout, e.Reply = 0, 0, 0, 0, 0, flow.Tuple{}
	return e
}

// expected gives an event a master.
func expected(e flow.Event) flow.Event {
	e.Tail = e.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP})
	return e
}

// awaits makes an event of the expectation number key with a class.
func awaits(kind flow.Kind, key uint16, class uint32) flow.Event {
	e := event(kind, 0, 0)
	e.Original.DestinationPort = key
	for i := range 4 {
		e.Reply.Source[i], e.Reply.Destination[i] = 0xff, 0xff
	}
	e.Reply.SourcePort, e.Reply.DestinationPort = 0, 0xffff
	e.Present, e.Mark, e.Status, e.State = flow.HasReply|flow.HasTimeout, 0, 0, 0
	master := added(1, 0)
	e.Tail = e.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original})
	e.Tail = e.Tail.Append(flow.AttrHelper, []byte("ftp"))
	e.Tail = e.Tail.AppendExpectation(&flow.Expectation{Class: class, HasClass: true})
	return e
}

func awaited(key uint16, class uint32) flow.Event { return awaits(flow.Expect, key, class) }
func met(key uint16) flow.Event                   { return awaits(flow.Unexpect, key, 0) }

func begin(flags flow.SyncFlags) flow.Event {
	return flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flags}}
}

func end(flags flow.SyncFlags, count uint64) flow.Event {
	return flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: flags, Count: count}}
}

// replayNow is a replay for an output of a test's own.
var replayNow = plugin.Replay{ID: 99}

// A between is an edge that does something before each wait for room, when no
// lock is held.
type between struct {
	*edge
	do func()
}

func (b *between) AwaitRoom(context.Context, uint16) error { b.do(); return nil }
