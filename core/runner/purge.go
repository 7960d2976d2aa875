package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// purgeTimeout bounds one purge.
const purgeTimeout = 2 * time.Minute

// purgeSchedule holds the purges that wait for their time and those that run,
// by sink.
type purgeSchedule struct {
	mu      sync.Mutex
	waiting map[*stage]*scheduledPurge
	running map[*stage]runningPurge
}

type runningPurge struct {
	callOff context.CancelCauseFunc
	done    chan struct{} // closed when nothing of it is left
}

type scheduledPurge struct {
	timer *time.Timer
	at    time.Time
	done  chan struct{}
	once  sync.Once
	steps []control.Step
	err   error
}

// errCalledOff is how a purge ends that a takeover, or another, replaced.
var errCalledOff = errors.New("called off")

func (p *scheduledPurge) end(steps []control.Step, err error) {
	p.once.Do(func() {
		p.steps, p.err = steps, err
		close(p.done)
	})
}

// schedule has the sink's scope purged after a while, instead of when an
// earlier request would have had it.
func (b *purgeSchedule) schedule(r *Runner, s *stage, after time.Duration) *scheduledPurge {
	b.mu.Lock()
	defer b.mu.Unlock()
	if last := b.waiting[s]; last != nil && last.timer.Stop() {
		last.end(nil, fmt.Errorf("%w: scheduled anew", errCalledOff))
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
	var done []control.Step
	err := r.purgeNow(steps{context.Background(), func(step control.Step) { done = append(done, step) }}, s, p)
	for _, step := range done {
		r.log.Info("purged", "stage", step.Stage, "step", step.Name, "counts", fmt.Sprint(step.Counts), "elapsed", step.Elapsed)
	}
	if err != nil && !errors.Is(err, errCalledOff) {
		r.log.Error("purge failed", "stage", s.address, "error", err)
	}
	p.end(done, err)
}

// begin notes that a sink is being purged until end is called, or refuses: p,
// if it is not nil, may have been called off meanwhile.
func (b *purgeSchedule) begin(ctx context.Context, s *stage, p *scheduledPurge) (_ context.Context, end func(), err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p != nil {
		if b.waiting[s] != p {
			return nil, nil, errCalledOff
		}
		delete(b.waiting, s)
	}
	if _, running := b.running[s]; running { // it has the netlink port id
		return nil, nil, fmt.Errorf("%s: a purge runs already", s.address)
	}
	if b.running == nil {
		b.running = map[*stage]runningPurge{}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	b.running[s] = runningPurge{cancel, done}
	return ctx, func() {
		cancel(nil)
		b.mu.Lock()
		delete(b.running, s)
		b.mu.Unlock()
		close(done)
	}, nil
}

// cancel calls every purge off, ends those that run, and says whether there was
// one: when it returns nothing deletes flows any more.
func (b *purgeSchedule) cancel() bool {
	b.mu.Lock()
	any := len(b.waiting)+len(b.running) > 0
	for s, p := range b.waiting {
		p.timer.Stop()
		p.end(nil, errCalledOff)
		delete(b.waiting, s)
	}
	running := slices.Collect(maps.Values(b.running))
	b.mu.Unlock()
	for _, one := range running {
		one.callOff(errCalledOff)
		<-one.done
	}
	return any
}

// forget calls off what is scheduled or runs for a sink that is gone.
func (b *purgeSchedule) forget(s *stage) {
	b.mu.Lock()
	if p := b.waiting[s]; p != nil {
		p.timer.Stop()
		p.end(nil, errCalledOff)
		delete(b.waiting, s)
	}
	running, runs := b.running[s]
	b.mu.Unlock()
	if runs {
		running.callOff(errCalledOff)
		<-running.done
	}
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
	after := time.Duration(s.conf().Traits.GetPurgeAfter())
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
	for _, step := range p.steps {
		do.report(step)
	}
	return nil
}

// purgeNow purges a sink's scope, unless a takeover calls it off. p is the
// schedule that it comes from, or nil.
func (r *Runner) purgeNow(do steps, sink *stage, p *scheduledPurge) error {
	ctx, end, err := r.purges.begin(do.ctx, sink, p)
	if err != nil {
		return err
	}
	defer end()
	err = r.purge(steps{ctx, do.report}, sink)
	if err != nil && errors.Is(context.Cause(ctx), errCalledOff) {
		return fmt.Errorf("%s: purge: %w", sink.address, errCalledOff)
	}
	return err
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
	if err := do.replay("sweep", scope[0], nil, flow.SyncQuiet); err != nil {
		return err
	}
	return r.tellPeers(do, scope[0].line())
}

// tellPeers replays a pipeline's flows to the peers, whose caches then forget
// those of this node that were purged: no DESTROY has told them. Their kernels
// keep the flows, since nothing is swept across nodes.
func (r *Runner) tellPeers(do steps, l *line) error {
	var errs []error
	for _, s := range l.stages {
		if r.sendsBulk(s) {
			errs = append(errs, do.replay("bulk", s, nil, 0))
		}
	}
	return errors.Join(errs...)
}

// scopeOf returns the source and the filters of a sink's scope.
func (r *Runner) scopeOf(sink *stage) (scope []*stage, err error) {
	stages, err := r.find(sink.conf().Traits.GetScope())
	if err != nil {
		return nil, fmt.Errorf("%s: scope: %w", sink.address, err)
	}
	for _, s := range stages {
		if s.conf().Kind == plugin.KindSource || s.conf().Kind == plugin.KindFilter {
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
	path, args, image, err := s.at().program(s.address + "(purge)")
	if err != nil {
		return err
	}
	// The same descriptors as the stage itself would have, on other edges.
	like := &place{input: s.in}
	if s.out != nil {
		like.outputs = []*edge{s.out}
	}
	rules, err := s.rules(s.conf())
	if err != nil {
		return err
	}
	files, inputs, outputs := like.descriptors()
	s.proc, err = startProcess(ctx, r.spawner, processConfig{
		name: s.address + " (purge)", path: path, args: args, netns: s.conf().Traits.GetNetns(), files: files,
		log: r.log.With("stage", s.address, "purge", true), level: r.options.Level, rules: rules, image: image,
	})
	if err != nil {
		return err
	}
	if err := configureStage(ctx, s.proc, s.conf().Config); err != nil {
		return err
	}
	return startStage(ctx, s.proc, &stagepb.StartRequest{
		Node: r.graph().config.Runner.Name, Stage: s.address, Generation: 1, PortId: s.ports[2], OwnPortIds: r.graph().ports,
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
