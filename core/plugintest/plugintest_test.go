package plugintest_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugintest"
	"github.com/sluice-project/sluice/core/plugintest/kit"
)

// The plugins of these tests do what they should, or have one fault.
var (
	cacheDefinition = plugin.Definition{
		Kind: plugin.KindCache, Type: "faulty", Summary: "Keeps flows.", Config: func() any { return &cache{} },
	}
	sourceDefinition = plugin.Definition{
		Kind: plugin.KindSource, Type: "faulty", Summary: "Has a flow.", Config: func() any { return &source{} },
	}
	sinkDefinition = plugin.Definition{
		Kind: plugin.KindSink, Type: "faulty", Summary: "Keeps nothing.", Config: func() any { return &sink{} },
	}
)

func TestMain(m *testing.M) {
	plugintest.Main(m, cacheDefinition, sourceDefinition, sinkDefinition)
}

// cache is the least that a cache can be.
type cache struct {
	Fault string `hcl:"fault,optional" doc:"What it does wrong."`
	mu    sync.Mutex
	host  plugin.Host
	flows map[flow.Key]flow.Event
	named map[flow.Key]bool
}

func (c *cache) Traits() plugin.Traits { return plugin.Traits{Hold: c.Fault == "forwards"} }

func (c *cache) Open(_ context.Context, host plugin.Host) error {
	c.host, c.flows = host, map[flow.Key]flow.Event{}
	return nil
}

func (c *cache) Apply(b *flow.Batch, out *plugin.Output) error {
	out.Lock()
	defer out.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	var builder flow.Builder
	builder.Reset(flow.Header{Origin: b.Origin, Owner: b.Owner})
	if c.Fault == "marks" {
		builder.Reset(b.Header)
	}
	var e flow.Event
	for cur := b.Cursor(); cur.Next(&e); {
		switch e.Kind {
		case flow.SyncBegin:
			c.named = map[flow.Key]bool{}
		case flow.SyncEnd:
			c.sweep(&builder)
			if c.Fault != "reports" {
				c.host.Done(plugin.Report{Replay: b.Replay, Owner: b.Owner})
			}
		case flow.Destroy:
			delete(c.flows, e.Key())
		default:
			e.Tail = slices.Clone(e.Tail)
			c.flows[e.Key()] = e
			if b.Replay != 0 {
				c.named[e.Key()] = true
			}
		}
		if !e.IsMark() || c.Fault == "marks" {
			builder.Append(&e)
		}
	}
	return out.SendLocked(&builder)
}

func (c *cache) sweep(builder *flow.Builder) {
	for key, e := range c.flows {
		if c.named[key] || c.Fault == "sweeps" {
			continue
		}
		delete(c.flows, key)
		e.Kind = flow.Destroy
		if c.Fault != "destroys" {
			builder.Append(&e)
		}
	}
}

func (c *cache) Replay(ctx context.Context, r plugin.Replay, out *plugin.Output) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []flow.Event
	for _, e := range c.flows {
		if e.Kind = flow.Update; c.Fault == "kinds" {
			e.Kind = flow.New
		}
		if c.Fault == "attributes" {
			e.Tail = nil
		}
		list = append(list, e)
	}
	all := kit.Replayed(r.Flags, list...)
	if c.Fault == "counts" {
		all[len(all)-1].Sync.Count++
	}
	var b flow.Builder
	b.Reset(flow.Header{Replay: r.ID, Edge: r.Edge})
	for i := range all {
		if !b.Append(&all[i]) {
			if err := out.Send(&b); err != nil {
				return err
			}
			b.Reset(flow.Header{Replay: r.ID, Edge: r.Edge})
			b.Append(&all[i])
		}
	}
	return out.Send(&b)
}

// source has one flow.
type source struct {
	Fault string `hcl:"fault,optional" doc:"What it does wrong."`
}

func (s *source) Run(ctx context.Context, _ *plugin.Output) error {
	<-ctx.Done()
	if s.Fault == "drains" {
		select {}
	}
	return nil
}

func (s *source) Replay(_ context.Context, r plugin.Replay, out *plugin.Output) error {
	if s.Fault == "fails" {
		return fmt.Errorf("the well is dry")
	}
	var b flow.Builder
	b.Reset(flow.Header{Replay: r.ID, Edge: r.Edge})
	all := kit.Replayed(r.Flags, kit.Event(flow.Update, 1))
	for i := range all {
		if i > 0 || s.Fault != "begins" {
			b.Append(&all[i])
		}
	}
	return out.Send(&b)
}

// sink takes what comes.
type sink struct {
	Fault string `hcl:"fault,optional" doc:"What it does wrong."`
}

func (s *sink) Write(b *flow.Batch) error {
	if s.Fault == "marks" && b.Replay != 0 {
		select {}
	}
	return nil
}

func options(t *testing.T, d plugin.Definition, fault string) kit.Options {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := string(d.Kind) + "-" + d.Type
	return kit.Options{
		Path: path, Name: name, Args: []string{name, name}, Kind: d.Kind, Type: d.Type,
		Block: []byte(fmt.Sprintf("fault = %q", fault)), Patience: 4 * time.Second,
	}
}

func TestConformance(t *testing.T) {
	for _, d := range []plugin.Definition{cacheDefinition, sourceDefinition, sinkDefinition} {
		t.Run(string(d.Kind), func(t *testing.T) {
			t.Parallel()
			plugintest.Run(t, plugintest.Plugin{Definition: d})
		})
	}
}

// Each check finds the plugin that does what the check is for.
func TestFaultsAreFound(t *testing.T) {
	for _, c := range []struct {
		plugin        plugin.Definition
		fault, check  string
		detailHasThis string
	}{
		{cacheDefinition, "marks", "sweep", "a cache consumes marks"},
		{cacheDefinition, "sweeps", "sweep", "it still holds"},
		{cacheDefinition, "destroys", "sweep", "0 DESTROYs came out of the sweep, not 50"},
		{cacheDefinition, "reports", "sweep", "the report (signal replay-done)"},
		{cacheDefinition, "kinds", "replay", "records of replays are updates"},
		{cacheDefinition, "attributes", "replay", "it lost the attribute"},
		{cacheDefinition, "counts", "replay", "the end mark counts 201 records, and 200 stand"},
		{cacheDefinition, "forwards", "hold", "nobody committed"},
		{sourceDefinition, "fails", "source", "the well is dry"},
		{sourceDefinition, "begins", "source", "of the two marks of a replay 1 came out"},
		{sourceDefinition, "drains", "source", "it still runs"},
		{sinkDefinition, "marks", "report", "the report (signal replay-done)"},
	} {
		t.Run(string(c.plugin.Kind)+" "+c.fault, func(t *testing.T) {
			t.Parallel()
			o := options(t, c.plugin, c.fault)
			o.Only = []string{c.check}
			r, err := kit.Check(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			last := r.Results[len(r.Results)-1]
			if r.Conforms || last.Name != c.check || last.Outcome != kit.Failed || !strings.Contains(last.Detail, c.detailHasThis) {
				t.Errorf("%+v\nwant %s to fail with %q", r.Results, c.check, c.detailHasThis)
			}
		})
	}
}

// A stage in a test: what is fed comes out, and what is asked is answered.
func TestStage(t *testing.T) {
	s := plugintest.Start(t, plugintest.Plugin{Definition: cacheDefinition})
	s.Feed(kit.Events(0, 10, flow.New)...)
	if got := s.Collected(); len(got) != 10 {
		t.Errorf("%d events came out, not 10", len(got))
	}
	s.FeedReplay(7, kit.Events(0, 4, flow.Update)...)
	if _, err := s.AwaitDone(7); err != nil {
		t.Error(err)
	}
	if held := s.Replayed(8); len(held) != 4 {
		t.Errorf("it holds %d flows, not 4", len(held))
	}
	destroyed := 0
	for _, e := range s.Drain() {
		if e.Kind == flow.Destroy {
			destroyed++
		}
	}
	if destroyed != 6 {
		t.Errorf("%d DESTROYs, not 6", destroyed)
	}
}
