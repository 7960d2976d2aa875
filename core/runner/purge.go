package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// purgeTimeout bounds one purge.
const purgeTimeout = 2 * time.Minute

// purgeSchedule holds the purges that wait for their time, by sink.
type purgeSchedule struct {
	mu      sync.Mutex
	waiting map[*stage]*scheduledPurge
}

type scheduledPurge struct {
	timer *time.Timer
	at    time.Time
	done  chan struct{}
	once  sync.Once
	step  control.Step
	err   error
}

// errCalledOff is how a purge ends that a takeover, or another, replaced.
var errCalledOff = errors.New("called off")

func (p *scheduledPurge) end(step control.Step, err error) {
	p.once.Do(func() {
		p.step, p.err = step, err
		close(p.done)
	})
}

// schedule has the sink's scope purged after a while, instead of when an
// earlier request would have had it.
func (b *purgeSchedule) schedule(r *Runner, s *stage, after time.Duration) *scheduledPurge {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.waiting[s]; last != nil && last.timer.Stop() {
		last.end(control.Step{}, fmt.Errorf("%w: scheduled anew", errCalledOff))
	}
	if b.waiting == nil {
		b.waiting = map[*stage]*scheduledPurge{}
	}
	p := &scheduledPurge{at: time.Now().Add(after), done: make(chan struct{})}
	p.timer = time.AfterFunc(after, func() { b.run(r, s, p) })
	b.waiting[s] = p
	return p
}

func (b *purgeSchedule) run(r *Runner, s *stage, p *scheduledPurge) {
	b.mu.Lock()
	due := b.waiting[s] == p
	if due {
		delete(b.waiting, s)
	}
	b.mu.Unlock()
	if !due {
		p.end(control.Step{}, errCalledOff)
		return
	}
	var last control.Step
	err := r.purge(steps{context.Background(), func(step control.Step) { last = step }}, s)
	if err != nil {
		r.log.Error("purge failed", "stage", s.address, "error", err)
	} else {
		r.log.Info("purged", "stage", s.address, "counts", fmt.Sprint(last.Counts), "elapsed", last.Elapsed)
	}
	p.end(last, err)
}

// cancel calls every purge off and says whether there was one.
func (b *purgeSchedule) cancel() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	any := len(b.waiting) > 0
	for s, p := range b.waiting {
		p.timer.Stop()
		p.end(control.Step{}, errCalledOff)
		delete(b.waiting, s)
	}
	return any
}

// next returns when the next purge is due, or nil.
func (b *purgeSchedule) next() (at *time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.waiting {
		if at == nil || p.at.Before(*at) {
			at = &p.at
		}
	}
	return at
}

// purgeLater schedules a purge and waits for it.
func (r *Runner) purgeLater(do steps, s *stage) error {
	after := time.Duration(s.conf.Traits.GetPurgeAfter())
	p := r.purges.schedule(r, s, after)
	do.report(control.Step{Name: "purge scheduled", Stage: s.address, Note: fmt.Sprintf("in %v", after)})
	select {
	case <-p.done:
	case <-do.ctx.Done():
		return fmt.Errorf("%s: the purge stays scheduled, but %w", s.address, do.ctx.Err())
	}
	if p.err != nil {
		return fmt.Errorf("%s: purge: %w", s.address, p.err)
	}
	do.report(p.step)
	return nil
}

// purge deletes from the kernel's table what the source and the filters of the
// sink's scope let through, then has that pipeline's cache sweep the same flows
// in silence: they live on elsewhere, and the peers must not hear of their end.
//
// It is done by a pipeline of one use: the scope's source and filters and the
// sink, each in a process of its own started as OneShot, in a row.
func (r *Runner) purge(do steps, sink *stage) error {
	scope, err := r.scopeOf(sink)
	if err != nil {
		return err
	}
	err = do.step("purge", sink.address, func() ([]control.Count, error) {
		ctx, cancel := context.WithTimeout(do.ctx, purgeTimeout)
		defer cancel()
		return r.runOnce(ctx, append(scope, sink))
	})
	if err != nil {
		return err
	}
	if err := do.replay("sweep", scope[0], 0, flow.SyncQuiet); err != nil {
		return err
	}
	return r.tellPeers(do, scope[0].line)
}

// tellPeers replays a pipeline's flows to the peers, whose caches then forget
// those of this node that were purged: no DESTROY has told them. Their kernels
// keep the flows, since nothing is swept across nodes.
func (r *Runner) tellPeers(do steps, l *line) error {
	var errs []error
	for _, s := range l.stages {
		if r.sendsBulk(s) {
			errs = append(errs, do.replay("bulk", s, 0, 0))
		}
	}
	return errors.Join(errs...)
}

// scopeOf returns the source and the filters of a sink's scope.
func (r *Runner) scopeOf(sink *stage) (scope []*stage, err error) {
	stages, err := r.find(sink.conf.Traits.GetScope())
	if err != nil {
		return nil, fmt.Errorf("%s: scope: %w", sink.address, err)
	}
	for _, s := range stages {
		if s.conf.Kind == plugin.KindSource || s.conf.Kind == plugin.KindFilter {
			scope = append(scope, s)
		}
	}
	return scope, nil
}

// A shot is a stage's second process, of one use.
type shot struct {
	*stage
	in, out *edge
	proc    *process
}

// runOnce runs the stages in a row, each in a new process, until the first has
// sent everything and the last has reported; and returns its report.
func (r *Runner) runOnce(ctx context.Context, stages []*stage) ([]control.Count, error) {
	shots := make([]*shot, len(stages))
	defer func() {
		for _, s := range shots {
			if s != nil {
				s.close()
			}
		}
	}()
	for i, s := range stages {
		shots[i] = &shot{stage: s}
		if i == 0 {
			continue
		}
		e, err := newEdge("purge: " + stages[i-1].address + " to " + s.address)
		if err != nil {
			return nil, err
		}
		shots[i-1].out, shots[i].in = e, e
	}
	for i := len(shots) - 1; i >= 0; i-- {
		if err := shots[i].start(ctx); err != nil {
			return nil, err
		}
	}
	last := shots[len(shots)-1]
	reports := make(chan *stagepb.Report, 1)
	go last.readReport(ctx, reports)
	for _, s := range shots[:len(shots)-1] {
		select {
		case <-s.proc.exited:
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", s.address, ctx.Err())
		}
		if s.proc.err != nil {
			return nil, fmt.Errorf("%s: %w: %s", s.address, s.proc.err, s.proc.stderr.tail())
		}
		if s != shots[len(shots)-2] { // the last edge stays open until the sink has reported
			s.out.end()
		}
	}
	select {
	case report := <-reports:
		return reportCounts(report), reportError(report)
	case <-last.proc.exited:
		return nil, fmt.Errorf("%s ended before it had reported: %s", last.address, last.proc.stderr.tail())
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: no report: %w", last.address, ctx.Err())
	}
}

func reportCounts(report *stagepb.Report) (counts []control.Count) {
	for _, c := range report.Counts {
		counts = append(counts, control.Count{Name: c.Name, Value: c.Value})
	}
	return counts
}

func reportError(report *stagepb.Report) error {
	if report.Failed != "" {
		return errors.New(report.Failed)
	}
	return nil
}

func (s *shot) start(ctx context.Context) error {
	r := s.runner
	path, args, err := r.options.Plugins.command(s.conf.Kind, s.conf.Type, s.address+"(purge)")
	if err != nil {
		return err
	}
	// The same descriptors as the stage itself would have, on other edges.
	like := &stage{input: s.in}
	if s.out != nil {
		like.outputs = []*edge{s.out}
	}
	files, inputs, outputs := like.descriptors()
	s.proc, err = startProcess(ctx, r.spawner, processConfig{
		name: s.address + " (purge)", path: path, args: args, netns: s.conf.Traits.GetNetns(), files: files,
		log: r.log.With("stage", s.address, "purge", true), level: r.options.Level,
	})
	if err != nil {
		return err
	}
	return startStage(ctx, s.proc, s.conf.Config, &stagepb.StartRequest{
		Node: r.options.Config.Runner.Name, Stage: s.address, Generation: 1, PortId: s.purgePort, OwnPortIds: r.ports,
		DropOwn: !r.writeThrough(), WriteThrough: r.writeThrough(), OneShot: true, Inputs: inputs, Outputs: outputs,
	})
}

// readReport passes on the report of the one replay that reaches the stage.
func (s *shot) readReport(ctx context.Context, reports chan<- *stagepb.Report) {
	stream, err := s.proc.Signals(ctx, &stagepb.Empty{})
	for err == nil {
		var signal *stagepb.Signal
		if signal, err = stream.Recv(); err == nil && signal.Done != nil {
			reports <- signal.Done
			return
		}
	}
	if !errors.Is(err, io.EOF) && ctx.Err() == nil {
		s.runner.log.Warn("purge: signals", "stage", s.address, "error", err)
	}
}

func (s *shot) close() {
	if s.proc != nil {
		s.proc.kill()
	}
	if s.in != nil {
		s.in.close()
	}
}
