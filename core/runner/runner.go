package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
)

// Options configure a Runner.
type Options struct {
	Config  *pipeline.Configuration
	Plugins Plugins
	Version string
	Log     *slog.Logger
	Level   slog.Leveler // of the stages' logs; nil: info
	Reopen  func() error // opens Log's file again; nil: there is none

	// RoleFile is where the role is kept over a restart; "": it is not.
	RoleFile string
}

// DrainTimeout bounds the end of a run: what has not drained by then is killed.
const DrainTimeout = 10 * time.Second

// A Runner runs the pipelines of one configuration. It implements
// control.Backend.
type Runner struct {
	options Options
	log     *slog.Logger
	spawner *spawner
	started time.Time

	pipelines []*line
	stages    []*stage // all, pipelines in order, each from its source down
	ports     []uint32 // netlink port ids that this node writes with
	users     users

	replayID atomic.Uint64
	signals  signalBook
	purges   purgeSchedule
	role     roleState

	ready    atomic.Bool   // all stages run
	draining atomic.Bool   // they are told to end
	stopping chan struct{} // closed by Stop
	stopOnce sync.Once
	done     chan struct{} // closed when Run returned
}

// A line is a pipeline at work: its stages, and the edges between them.
type line struct {
	name   string
	stages []*stage
	edges  []*edge
	// writeThrough: what comes here goes into the kernel without a hold cache.
	kernelSink, hold bool
}

// New prepares a runner: sockets, but no process yet. Run must follow.
func New(o Options) (*Runner, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := newSpawner()
	if err != nil {
		return nil, err
	}
	r := &Runner{options: o, log: o.Log, spawner: s, started: time.Now(), stopping: make(chan struct{}), done: make(chan struct{})}
	// Ids that no earlier life of this node used: peers remember them.
	r.replayID.Store(uint64(time.Now().UnixNano()))
	for _, p := range o.Config.Pipelines {
		l, err := r.newLine(p)
		if err != nil {
			r.close()
			return nil, err
		}
		r.pipelines = append(r.pipelines, l)
		r.stages = append(r.stages, l.stages...)
	}
	r.assignPorts()
	r.restoreRole()
	return r, nil
}

// newLine makes the stages of a pipeline and the edges between them: a chain,
// and from its last filter, cache or source an edge to each sink.
func (r *Runner) newLine(p *pipeline.Pipeline) (*line, error) {
	l := &line{name: p.Name}
	var last *stage
	for _, conf := range p.Stages {
		s := newStage(r, l, conf)
		l.stages = append(l.stages, s)
		l.kernelSink = l.kernelSink || conf.Kind == plugin.KindSink && conf.Traits.GetKernel()
		l.hold = l.hold || conf.Traits.GetHold()
		if last != nil {
			if err := l.connect(last, s); err != nil {
				l.close()
				return nil, err
			}
		}
		if conf.Kind != plugin.KindSink {
			last = s
		}
	}
	if last != nil && len(last.below) > 1 {
		for i, sink := range last.below {
			sink.edgeNumber = uint16(i + 1)
		}
	}
	return l, nil
}

func (l *line) connect(above, below *stage) error {
	e, err := newEdge(above.address + " to " + below.address)
	if err != nil {
		return err
	}
	l.edges = append(l.edges, e)
	above.below, above.outputs = append(above.below, below), append(above.outputs, e)
	below.above, below.input = above, e
	return nil
}

func (l *line) close() {
	for _, e := range l.edges {
		e.close()
	}
}

// assignPorts gives each stage that writes to the kernel two netlink port ids,
// for itself and for the process that purges for it. The kernel's own choices
// are process ids and numbers from 2³¹ up, so these are free: they hold our
// process id above a counter, and bit 30.
func (r *Runner) assignPorts() {
	next := uint32(1)<<30 | uint32(os.Getpid())<<8
	for _, s := range r.stages {
		if s.conf.Kind == plugin.KindSink && s.conf.Traits.GetKernel() {
			s.port, s.purgePort = next, next+1
			r.ports = append(r.ports, s.port, s.purgePort)
			next += 2
		}
	}
}

// writeThrough says whether peers' flows go into the kernel at once somewhere,
// so that the flows this node carries must be told from those it was given.
func (r *Runner) writeThrough() bool {
	for _, l := range r.pipelines {
		if l.kernelSink && !l.hold {
			return true
		}
	}
	return false
}

// Run starts every stage, runs until ctx ends or Stop is called, drains, and
// leaves nothing behind. It returns an error if the start fails, or if a stage
// had to be killed at the end; an end that is asked for during the start is
// none. ready, if not nil, is called once all stages run.
func (r *Runner) Run(ctx context.Context, ready func()) error {
	defer close(r.done)
	defer r.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	r.setScheduler()
	if err := r.start(ctx); err != nil {
		r.killAll()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var supervisors sync.WaitGroup
	for _, s := range r.stages {
		supervisors.Go(func() { s.supervise(ctx) })
		if s.replays != nil {
			go s.replays.run(ctx)
		}
	}
	r.log.Info("all stages run", "stages", len(r.stages))
	r.replayAtStart()
	r.ready.Store(true)
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	r.purges.cancel()
	r.draining.Store(true)
	supervisors.Wait() // no stage comes to life beside the drain
	return r.drain()
}

// start starts the stages of each pipeline from the sinks up, so that nobody
// writes to an edge that nobody reads.
func (r *Runner) start(ctx context.Context) error {
	for _, l := range r.pipelines {
		for i := len(l.stages) - 1; i >= 0; i-- {
			if err := l.stages[i].launch(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// drain ends each pipeline from its source down: a stage that has exited has
// sent all that it held, so its edges can be ended.
func (r *Runner) drain() error {
	deadline, cancel := context.WithTimeout(context.Background(), DrainTimeout)
	defer cancel()
	results := make(chan error, len(r.pipelines))
	for _, l := range r.pipelines {
		go func() { results <- l.drain(deadline) }()
	}
	var errs []error
	for range r.pipelines {
		errs = append(errs, <-results)
	}
	r.killAll()
	err := errors.Join(errs...)
	r.log.Info("drained", "clean", err == nil)
	return err
}

// drain goes on below a stage that failed: what is queued there is still good.
func (l *line) drain(deadline context.Context) error {
	errs := []error{l.stages[0].drainSource(deadline)}
	for _, s := range l.stages {
		if err := s.awaitExit(deadline); err != nil {
			errs = append(errs, fmt.Errorf("drain: %s: %w", s.address, err))
		}
		for _, e := range s.outputs {
			e.end()
		}
	}
	return errors.Join(errs...)
}

func (r *Runner) killAll() {
	for _, s := range r.stages {
		if p := s.process(); p != nil {
			p.kill()
		}
	}
}

func (r *Runner) close() {
	for _, l := range r.pipelines {
		l.close()
	}
	r.spawner.close()
}

// Stop makes Run drain and return, and waits for it until ctx ends.
func (r *Runner) Stop(ctx context.Context) error {
	r.stopOnce.Do(func() { close(r.stopping) })
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// find returns the stages that a target names: a pipeline's, or one.
func (r *Runner) find(target string) ([]*stage, error) {
	for _, l := range r.pipelines {
		if l.name == target {
			return l.stages, nil
		}
	}
	for _, s := range r.stages {
		if s.address == target {
			return []*stage{s}, nil
		}
	}
	var names []string
	for _, l := range r.pipelines {
		names = append(names, l.name)
	}
	return nil, fmt.Errorf("%w: no pipeline or stage %q: pipelines are %v, and `sluice status` lists the stages",
		control.ErrUnknown, target, names)
}
