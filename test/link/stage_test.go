package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/bundled"
	"github.com/sluice-project/sluice/internal/synclink"
	"github.com/sluice-project/sluice/internal/testbed"
)

const patience = 20 * time.Second

// A host records what a stage tells the runner.
type host struct {
	t    testing.TB
	name string

	mu      sync.Mutex
	signals []string
	reports []plugin.Report
}

func (h *host) Start() plugin.Start  { return plugin.Start{Node: h.name, Stage: h.name} }
func (h *host) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (h *host) Signal(s plugin.Signal, detail string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signals = append(h.signals, fmt.Sprintf("%s: %s", s, detail))
}

func (h *host) Done(r plugin.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports = append(h.reports, r)
}

// times returns how often a signal was given.
func (h *host) times(s plugin.Signal) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, one := range h.signals {
		if len(one) > len(s) && one[:len(s)+1] == string(s)+":" {
			n++
		}
	}
	return n
}

// given is a condition: a signal was given so many times.
func (h *host) given(s plugin.Signal, times int) func() error {
	return func() error {
		if h.times(s) >= times {
			return nil
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		return fmt.Errorf("no %s of %s among %q", s, h.name, h.signals)
	}
}

// configure makes a stage of a bundled plugin.
func configure(t testing.TB, kind plugin.Kind, typ, config string) any {
	t.Helper()
	i := slices.IndexFunc(bundled.Definitions, func(d plugin.Definition) bool { return d.Kind == kind && d.Type == typ })
	c := bundled.Definitions[i].Config()
	if d := plugin.Decode([]byte(config), c); len(d) > 0 {
		t.Fatal(d)
	}
	stage, err := c.(plugin.Builder).Build()
	if err != nil {
		t.Fatal(err)
	}
	return stage
}

// A sink is a stage that sends from a namespace.
type sink struct {
	*synclink.Transmitter
	*host
}

func newSink(t testing.TB, n *testbed.Namespace, typ, config string) *sink {
	t.Helper()
	s := &sink{configure(t, plugin.KindSink, typ, config).(*synclink.Transmitter), &host{t: t, name: "sink"}}
	s.Inside = n.Do
	if err := n.Do(func() error { return s.Open(t.Context(), s.host) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// write has the sink send a batch.
func (s *sink) write(h flow.Header, events ...flow.Event) {
	s.t.Helper()
	for len(events) > 0 {
		part := events[:min(len(events), 300)]
		events = events[len(part):]
		var b flow.Builder
		b.Reset(h)
		for i := range part {
			if !b.Append(&part[i]) {
				s.t.Fatal("batch is full")
			}
		}
		decoded, err := flow.DecodeBatch(slices.Clone(b.Bytes()))
		if err == nil {
			err = s.Write(&decoded)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// replay has the sink send a replay of flows.
func (s *sink) replay(id uint64, events ...flow.Event) {
	s.t.Helper()
	h := flow.Header{Replay: id}
	s.write(h, flow.Event{Kind: flow.SyncBegin})
	s.write(h, events...)
	s.write(h, flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Count: uint64(len(events))}})
}

// replayed says whether the last replay of this id succeeded.
func (h *host) replayed(id uint64) func() error {
	return func() error {
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, r := range slices.Backward(h.reports) {
			if r.Replay == id && r.Failed == "" && r.Unreached == "" {
				return nil
			}
		}
		return fmt.Errorf("replay %d: %+v", id, h.reports)
	}
}

// A source is a stage that receives in a namespace, and what it sent on.
type source struct {
	*synclink.Receiver
	*host
	stop func()

	mu    sync.Mutex
	flows map[flow.Tuple]netip.Addr // by owner
	marks []flow.Event
}

func newSource(t testing.TB, n *testbed.Namespace, typ, config string) *source {
	t.Helper()
	s := &source{
		Receiver: configure(t, plugin.KindSource, typ, config).(*synclink.Receiver), host: &host{t: t, name: "source"},
		flows: map[flow.Tuple]netip.Addr{},
	}
	s.Inside = n.Do
	if err := n.Do(func() error { return s.Open(t.Context(), s.host) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.RunInto(ctx, s) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	t.Cleanup(s.stop)
	return s
}

// Send takes what the source sends: a table of flows, as a cache would keep it.
func (s *source) Send(b *flow.Builder) error {
	batch, err := flow.DecodeBatch(slices.Clone(b.Bytes()))
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var e flow.Event
	for c := batch.Cursor(); c.Next(&e); {
		switch {
		case e.IsMark():
			s.marks = append(s.marks, e)
		case e.Kind == flow.Destroy:
			delete(s.flows, e.Original)
		default:
			s.flows[e.Original] = batch.Owner
		}
	}
	return nil
}

// has is a condition: the source knows so many flows, all of one owner.
func (s *source) has(count int, owner netip.Addr) func() error {
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.flows) != count {
			return fmt.Errorf("%d flows, want %d", len(s.flows), count)
		}
		for tuple, o := range s.flows {
			if o != owner {
				return fmt.Errorf("flow %v is of %v, want %v", tuple, o, owner)
			}
		}
		return nil
	}
}

// ended is a condition: a replay of so many flows came to its end.
func (s *source) ended(count uint64) func() error {
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, m := range s.marks {
			if m.Kind == flow.SyncEnd && m.Sync.Count == count {
				return nil
			}
		}
		return errors.New("no end of the replay")
	}
}

// statistic returns a number of a stage, summed over peers.
func statistic(t testing.TB, m plugin.Meter, name string) (sum uint64) {
	t.Helper()
	found := false
	for _, s := range m.Statistics() {
		if s.Name == name {
			sum, found = sum+s.Value, true
		}
	}
	if !found {
		t.Fatalf("no statistic %s", name)
	}
	return sum
}

// flowOf returns the flow i of a series: TCP, but for some of GRE, whose keys
// only the extension carries.
func flowOf(i int) flow.Event {
	e := flow.Event{Kind: flow.Update, Flow: flow.Flow{
		Present: flow.HasReply | flow.HasStatus | flow.HasState | flow.HasTimeout,
		Family:  flow.IPv4, Protocol: flow.TCP, State: 3, Timeout: 600,
		Status: flow.Confirmed | flow.SeenReply | flow.Assured,
	}}
	e.Original.Source, _ = flow.Bytes(netip.MustParseAddr("10.0.0.1"))
	e.Original.Destination, _ = flow.Bytes(netip.MustParseAddr("10.0.0.2"))
	e.Original.SourcePort, e.Original.DestinationPort = uint16(1024+i), 443
	if i%100 == 99 {
		e.Protocol, e.State, e.Present = flow.GRE, 0, flow.HasReply|flow.HasStatus
	}
	e.Reply = e.Original.Inverted(e.Protocol)
	return e
}

func flows(from, to int) (events []flow.Event) {
	for i := from; i < to; i++ {
		events = append(events, flowOf(i))
	}
	return events
}

func ended(e flow.Event) flow.Event {
	e.Kind = flow.Destroy
	return e
}
