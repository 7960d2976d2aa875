package cases

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plan"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/core/plugintest/kit"
	"github.com/sluice-project/sluice/core/recording"
	"github.com/sluice-project/sluice/core/runner"
)

// A Bench is where tests run.
type Bench struct {
	Configuration *pipeline.Configuration
	Plugins       runner.Plugins
	Log           *slog.Logger  // what the stages log
	Patience      time.Duration // the longest that a stage may take for a step
}

// A Failure is what is wrong with a test, and where in its file that is stated.
type Failure struct {
	Line   int    `json:"line"`
	Detail string `json:"detail"`
}

// Error writes it for people.
func (f *Failure) Error() string { return fmt.Sprintf("line %d: %s", f.Line, f.Detail) }

// A chain is the stages of a test that runs, one behind the other.
type chain struct {
	bench   *Bench
	stages  []*link
	replays uint64 // so many were asked for, or fed
}

// A link is one of them.
type link struct {
	*kit.Stage
	conf *pipeline.Stage
	out  []event // since the step began
}

// Run runs a test. Its error is a *Failure, unless a stage could not be started, or
// did not do as every stage must.
func (b *Bench) Run(ctx context.Context, t *Test) error {
	stages, index, err := b.stages(t)
	if err != nil {
		return &Failure{t.Subject.Start.Line, err.Error()}
	}
	c := &chain{bench: b}
	defer c.close()
	for i, conf := range stages {
		if err := c.start(conf, index+i); err != nil {
			return fmt.Errorf("%s: %w", conf.Address(), err)
		}
	}
	for _, s := range t.Steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.step(s); err != nil {
			return err
		}
	}
	return nil
}

// stages returns what a test is of, and where in its pipeline that begins.
func (b *Bench) stages(t *Test) (stages []*pipeline.Stage, index int, err error) {
	if t.Pipeline != "" {
		p := b.Configuration.Pipeline(t.Pipeline)
		if p == nil {
			return nil, 0, fmt.Errorf("there is no pipeline %q: there are %s", t.Pipeline, b.names(func(p *pipeline.Pipeline) []string { return []string{p.Name} }))
		}
		for _, s := range p.Stages {
			if s.Kind == plugin.KindFilter || s.Kind == plugin.KindCache {
				stages = append(stages, s)
			}
		}
		if len(stages) == 0 {
			return nil, 0, fmt.Errorf("the pipeline %q has no filter and no cache: sources and sinks are not tested", t.Pipeline)
		}
		return stages, 1, nil
	}
	for _, p := range b.Configuration.Pipelines {
		for i, s := range p.Stages {
			if s.Address() != t.Stage {
				continue
			}
			if s.Kind == plugin.KindSource || s.Kind == plugin.KindSink {
				return nil, 0, fmt.Errorf("%s is a %s: tests are of filters, caches and pipelines", t.Stage, s.Kind)
			}
			return []*pipeline.Stage{s}, i, nil
		}
	}
	return nil, 0, fmt.Errorf("there is no stage %q: there are %s", t.Stage, b.names(func(p *pipeline.Pipeline) (all []string) {
		for _, s := range p.Stages {
			all = append(all, s.Address())
		}
		return all
	}))
}

func (b *Bench) names(of func(*pipeline.Pipeline) []string) string {
	var all []string
	for _, p := range b.Configuration.Pipelines {
		all = append(all, of(p)...)
	}
	return strings.Join(all, ", ")
}

// start starts a stage as a runner does, but for what is around it.
func (c *chain) start(conf *pipeline.Stage, index int) error {
	probe, err := runner.StageProbe(c.bench.Plugins, conf, c.bench.Log.With("stage", conf.Address()))
	if err != nil {
		return err
	}
	stage, err := kit.NewStage(probe, c.bench.Patience)
	if err != nil {
		return err
	}
	c.stages = append(c.stages, &link{Stage: stage, conf: conf})
	told := plan.StartOf(c.bench.Configuration, c.bench.Configuration.Pipeline(conf.Pipeline), index)
	if err := stage.Run(conf.Config, &stagepb.StartRequest{
		Node: c.bench.Configuration.Runner.Name, Stage: conf.Address(),
		DropOwn: !told.WriteThrough, WriteThrough: told.WriteThrough, EveryFlow: told.EveryFlow,
	}); err != nil {
		return err
	}
	stage.Collect(0)
	return nil
}

func (c *chain) close() {
	for _, s := range c.stages {
		s.Close()
	}
}

// step carries out a step and compares.
func (c *chain) step(s *Step) error {
	for _, l := range c.stages {
		l.out = nil
	}
	for _, in := range s.Inputs {
		if err := c.input(in); err != nil {
			return err
		}
	}
	if err := c.act(s); err != nil {
		return err
	}
	for _, x := range s.Expect {
		if err := c.expect(x); err != nil {
			return err
		}
	}
	return nil
}

// pass feeds packets to the stage at index i and what comes out to the next.
func (c *chain) pass(i int, packets [][]byte) error {
	for ; i < len(c.stages) && len(packets) > 0; i++ {
		l := c.stages[i]
		before := len(l.Packets(0))
		if err := l.Feed(packets...); err != nil {
			return fmt.Errorf("%s: %w", l.conf.Address(), err)
		}
		all, err := l.Collected()
		if err == nil {
			packets, err = l.take(all[before:])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", l.conf.Address(), err)
		}
	}
	return nil
}

// take notes what came out of a stage and returns it as it is.
func (l *link) take(packets []kit.Packet) (raw [][]byte, err error) {
	if _, err := kit.EventsOf(packets); err != nil {
		return nil, err
	}
	for _, p := range packets {
		raw = append(raw, p.Raw)
		for _, e := range p.Events {
			if e.IsMark() {
				continue
			}
			one, err := newEvent(&e, &p.Header)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", &e, err)
			}
			l.out = append(l.out, one)
		}
	}
	return raw, nil
}

// input feeds one input to the first stage.
func (c *chain) input(in *Input) error {
	if in.Recording != "" {
		packets, err := readRecording(in.Recording)
		if err != nil {
			return &Failure{in.Range.Start.Line, err.Error()}
		}
		return c.pass(0, packets)
	}
	h, events := in.Header, in.Events
	if in.Whole {
		c.replays++
		h.Replay = c.replays
		events = kit.Replayed(0, events...)
	}
	size := 1
	if in.Together {
		size = 0 // as many as fit
	}
	return c.pass(0, kit.Pack(h, size, events...))
}

// maxRecording bounds what a test holds in memory: bytes of batches.
const maxRecording = 256 << 20

func readRecording(path string) (packets [][]byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	r, err := recording.NewReader(file)
	for size := 0; err == nil; {
		var b recording.Batch
		if b, err = r.Read(); err == nil && b.Packet != nil {
			if size += len(b.Packet); size > maxRecording {
				return nil, fmt.Errorf("%s: more than %d bytes of events are too many for a test: take a part, with sluice record --from", path, maxRecording)
			}
			packets = append(packets, bytes.Clone(b.Packet))
		}
	}
	if err != io.EOF {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return packets, nil
}

// act does what a step says beside its input.
func (c *chain) act(s *Step) error {
	if s.Replay != "" {
		i, err := c.find(s.Replay, plugin.KindCache)
		if err != nil {
			return &Failure{s.Acts.Start.Line, err.Error()}
		}
		return c.replay(i, 0)
	}
	if s.Role != "primary" {
		return nil // a backup's caches go on as they are
	}
	for i, l := range c.stages {
		if !l.conf.Traits.GetHold() {
			continue
		}
		if err := c.replay(i, flow.SyncCommit); err != nil {
			return err
		}
		if _, err := l.Ask(&stagepb.CommandRequest{Name: "flush", Args: []string{"committed"}, Json: true}); err != nil {
			return fmt.Errorf("%s: flush of what was committed: %w", l.conf.Address(), err)
		}
	}
	return nil
}

// replay has a cache replay into what is below it.
func (c *chain) replay(i int, flags flow.SyncFlags) error {
	l := c.stages[i]
	c.replays++
	packets, err := l.Order(replayIDs+c.replays, flags)
	var raw [][]byte
	if err == nil {
		raw, err = l.take(packets)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", l.conf.Address(), err)
	}
	return c.pass(i+1, raw)
}

// replayIDs are above those of inputs, also recorded ones.
const replayIDs = 1 << 60

// find returns the place of a stage in the test.
func (c *chain) find(address string, kind plugin.Kind) (int, error) {
	var known []string
	for i, l := range c.stages {
		if kind != "" && l.conf.Kind != kind {
			continue
		}
		if l.conf.Address() == address {
			return i, nil
		}
		known = append(known, l.conf.Address())
	}
	what := "stage"
	if kind != "" {
		what = string(kind)
	}
	if len(known) == 0 {
		return 0, fmt.Errorf("there is no %s %q in this test", what, address)
	}
	return 0, fmt.Errorf("there is no %s %q in this test: there are %s", what, address, strings.Join(known, ", "))
}

// expect compares what came out with what is stated.
func (c *chain) expect(x *Expect) error {
	got, what, err := c.observed(x)
	if err != nil {
		return err
	}
	if text := x.compare(got); text != "" {
		return &Failure{x.Range.Start.Line, what + ": " + text}
	}
	return c.numbers(x)
}

// observed returns the events that an expectation is about.
func (c *chain) observed(x *Expect) (got []event, what string, err error) {
	if x.Cache != "" {
		i, err := c.find(x.Cache, plugin.KindCache)
		if err != nil {
			return nil, "", &Failure{x.Subject.Start.Line, err.Error()}
		}
		got, err := c.stages[i].holds()
		return got, "in " + x.Cache, err
	}
	i := len(c.stages) - 1
	if x.After != "" {
		if i, err = c.find(x.After, ""); err != nil {
			return nil, "", &Failure{x.Subject.Start.Line, err.Error()}
		}
	}
	return c.stages[i].out, "after " + c.stages[i].conf.Address(), nil
}

// holds asks a cache what it holds.
func (l *link) holds() (got []event, err error) {
	if !slices.Contains(l.conf.Traits.GetCommands(), "dump") {
		return nil, fmt.Errorf("%s can't be asked what it holds: it has no command dump", l.conf.Address())
	}
	text, err := l.Ask(&stagepb.CommandRequest{Name: "dump"})
	if err != nil {
		return nil, fmt.Errorf("%s: dump: %w", l.conf.Address(), err)
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		parsed, err := flow.ParseText(line)
		if err != nil {
			return nil, fmt.Errorf("%s: dump: %q: %w", l.conf.Address(), line, err)
		}
		got = append(got, event{parsed, line})
	}
	return got, nil
}

// numbers compares statistics.
func (c *chain) numbers(x *Expect) error {
	for _, n := range x.Numbers {
		i, err := c.find(n.Stage, "")
		if err != nil {
			return &Failure{x.Range.Start.Line, "statistics: " + err.Error()}
		}
		reply, err := c.stages[i].Numbers()
		if err != nil {
			return fmt.Errorf("%s: %w", n.Stage, err)
		}
		value, known := statistics(reply)[n.Name]
		if !known {
			return &Failure{x.Range.Start.Line, fmt.Sprintf("%s has no statistic %s", n.Stage, n.Name)}
		}
		if value != n.Value {
			return &Failure{x.Range.Start.Line, fmt.Sprintf("%s of %s is %d, not %d", n.Name, n.Stage, value, n.Value)}
		}
	}
	return nil
}

// statistics are a stage's numbers by the names that `sluice status` gives them.
func statistics(r *stagepb.StatisticsReply) map[string]uint64 {
	all := map[string]uint64{
		"batches_in": r.BatchesIn, "batches_out": r.BatchesOut, "events_in": r.EventsIn, "events_out": r.EventsOut, "malformed": r.Malformed,
	}
	for _, s := range r.Own {
		if s.Peer == "" {
			all[s.Name] = s.Value
		}
	}
	return all
}
