package plugintest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/core/plugintest/kit"
	"github.com/sluice-project/sluice/core/runner"
)

// A Plugin says what to test.
type Plugin struct {
	// Definition is one of those that Main was given.
	Definition plugin.Definition
	// Block is what stands within the stage's block in a pipeline.
	Block string
	// Patience is the longest any step may take; 0: kit.DefaultPatience.
	Patience time.Duration
}

func (p Plugin) name() string { return string(p.Definition.Kind) + "-" + p.Definition.Type }

func (p Plugin) patience() time.Duration {
	if p.Patience == 0 {
		return kit.DefaultPatience
	}
	return p.Patience
}

// Main is for TestMain: it runs the tests, or becomes the plugin if this process
// was started as one.
func Main(m *testing.M, definitions ...plugin.Definition) {
	if os.Getenv(plugin.Handshake.MagicCookieKey) != plugin.Handshake.MagicCookieValue {
		os.Exit(m.Run())
	}
	for _, d := range definitions {
		if len(os.Args) > 1 && os.Args[1] == string(d.Kind)+"-"+d.Type {
			fmt.Fprintln(os.Stderr, plugin.Serve(d))
		}
	}
	fmt.Fprintf(os.Stderr, "plugintest: Main was not given the plugin %v\n", os.Args[1:])
	os.Exit(1)
}

// executable is this process's, which Main makes the plugin.
func executable(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// testLog writes what a plugin logs into the test's.
func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// Run runs the conformance kit, each check as a subtest.
func Run(t *testing.T, p Plugin) *kit.Report {
	t.Helper()
	report, err := kit.Check(t.Context(), kit.Options{
		Path: executable(t), Args: []string{"sluice-" + p.name(), p.name()}, Kind: p.Definition.Kind, Type: p.Definition.Type,
		Block: []byte(p.Block), Patience: p.patience(), Log: testLog(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		t.Run(r.Name, func(t *testing.T) {
			switch r.Outcome {
			case kit.Failed:
				t.Errorf("a plugin %s; this one: %s", r.Claim, r.Detail)
			case kit.Skipped:
				t.Skip(r.Detail)
			}
		})
	}
	return report
}

// A Stage is the plugin at work in a test. What goes wrong fails the test.
type Stage struct {
	*kit.Stage
	t testing.TB
}

// Start starts the plugin as a stage with one stage above (none for a source) and
// one below (none for a sink). The test's end ends it.
func Start(t testing.TB, p Plugin) *Stage {
	t.Helper()
	config := p.configure(t)
	outputs := 1
	if p.Definition.Kind == plugin.KindSink {
		outputs = 0
	}
	s, err := kit.NewStage(runner.ProbeConfig{
		Path: executable(t), Args: []string{"sluice-" + p.name(), p.name()}, Kind: p.Definition.Kind, Type: p.Definition.Type,
		Input: p.Definition.Kind != plugin.KindSource, Outputs: outputs, Log: testLog(t),
	}, p.patience())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	if err := s.Run(config, &stagepb.StartRequest{Node: "test", Stage: "test." + string(p.Definition.Kind) + "." + p.Definition.Type}); err != nil {
		t.Fatal(err)
	}
	for i := range outputs {
		s.Collect(i)
	}
	return &Stage{s, t}
}

// configure decodes the block as a runner does.
func (p Plugin) configure(t testing.TB) []byte {
	t.Helper()
	ask := func(_ context.Context, json []byte) (*stagepb.Configured, error) {
		_, reply := plugin.Configure(p.Definition, json)
		return reply, nil
	}
	config, _, _, diags := pipeline.LoadBlock(t.Context(), "block", []byte(p.Block), plugin.Describe(p.Definition).Schema, ask)
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return config
}

// Feed sends events as live ones of the kernel's.
func (s *Stage) Feed(events ...flow.Event) {
	s.t.Helper()
	s.must(s.FeedEvents(events...))
}

// FeedReplay sends a whole replay, with its marks.
func (s *Stage) FeedReplay(id uint64, events ...flow.Event) {
	s.t.Helper()
	s.must(s.Stage.Feed(kit.Pack(flow.Header{Replay: id}, 100, kit.Replayed(0, events...)...)...))
}

// Collected waits until the stage has read all that it was fed, and returns what
// has come out so far, marks included. A stage that sends later than it reads is
// better drained.
func (s *Stage) Collected() []flow.Event {
	s.t.Helper()
	packets, err := s.Stage.Collected()
	s.must(err)
	return s.events(packets)
}

// Drain ends the stage as a runner does, and returns all that came out of it.
func (s *Stage) Drain() []flow.Event {
	s.t.Helper()
	packets, err := s.Stage.Drain()
	s.must(err)
	return s.events(packets)
}

// Replayed has a source or a cache replay, and returns the records between the
// marks.
func (s *Stage) Replayed(id uint64) []flow.Event {
	s.t.Helper()
	packets, err := s.Order(id, 0)
	s.must(err)
	return slices.DeleteFunc(s.events(packets), func(e flow.Event) bool { return e.IsMark() })
}

func (s *Stage) events(packets []kit.Packet) []flow.Event {
	s.t.Helper()
	events, err := kit.EventsOf(packets)
	s.must(err)
	return events
}

func (s *Stage) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}
