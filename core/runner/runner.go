package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
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

	// Load reads the configuration again, for a reload. Nil: there is none.
	Load func(context.Context) (*pipeline.Configuration, error)

	// Reloading is called when a reload begins, and what it returns when that has
	// ended. Nil: nobody wants to know.
	Reloading func() (ended func())

	// Reconfigure has what the runner block says beside stages, as where the log
	// goes, tried; commit makes it so. Nil: nothing is to be done.
	Reconfigure func(pipeline.Runner) (commit func(), err error)
	// Replayed is told of every replay that ended: of which stage, why it was
	// asked for (one of a few words), how long it took, and how it failed. It
	// returns at once. nil: nobody is told.
	Replayed func(stage, reason string, elapsed time.Duration, err error)
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

	current    atomic.Pointer[graph]
	portsTaken atomic.Uint32 // netlink port ids
	users      users

	running     context.Context // of Run, once all stages run
	supervisors sync.WaitGroup
	reloading   sync.Mutex   // held by a reload, and from the drain on
	takeovers   sync.RWMutex // held by what must see one graph from begin to end; a reload goes over with the lock
	reloads     reloadBook

	replayID atomic.Uint64
	signals  signalBook
	purges   purgeSchedule
	role     roleState

	recovering atomic.Int32  // chains of replays that go down a pipeline
	ready      atomic.Bool   // all stages run
	draining   atomic.Bool   // they are told to end
	stopping   chan struct{} // closed by Stop
	stopOnce   sync.Once
	done       chan struct{} // closed when Run returned
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
	w, err := r.wire(o.Config, func(string) *stage { return nil })
	if err != nil {
		s.close()
		return nil, err
	}
	w.install(r)
	r.restoreRole()
	return r, nil
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
	tellLacks(r.log, confine.LandlockVersion(), confine.SeccompSupported())
	if err := r.start(ctx); err != nil {
		r.killAll()
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	r.running = ctx
	for _, s := range r.graph().stages {
		r.attend(s)
	}
	r.log.Info("all stages run", "stages", len(r.graph().stages))
	r.replayAtStart()
	r.ready.Store(true)
	if ready != nil {
		ready()
	}
	<-ctx.Done()
	r.reloading.Lock() // for good: the graph stays as it is
	r.purges.cancel()
	r.draining.Store(true)
	r.supervisors.Wait() // no stage comes to life beside the drain
	return r.drain()
}

// attend begins to supervise a stage and to run its replays.
func (r *Runner) attend(s *stage) {
	ctx, cancel := context.WithCancel(r.running)
	s.end = cancel
	r.supervisors.Go(func() { s.supervise(ctx) })
	if s.replays != nil {
		go s.replays.run(ctx)
	}
}

// start starts the stages of each pipeline from the sinks up, so that nobody
// writes to an edge that nobody reads.
func (r *Runner) start(ctx context.Context) error {
	for _, l := range r.graph().pipelines {
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
	results := make(chan error, len(r.graph().pipelines))
	for _, l := range r.graph().pipelines {
		go func() { results <- l.drain(deadline) }()
	}
	var errs []error
	for range r.graph().pipelines {
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
		for _, e := range s.outputs() {
			e.end()
		}
	}
	return errors.Join(errs...)
}

func (r *Runner) killAll() {
	for _, s := range r.graph().stages {
		if p := s.process(); p != nil {
			p.kill()
		}
	}
}

func (r *Runner) close() {
	r.graph().close()
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
	for _, l := range r.graph().pipelines {
		if l.name == target {
			return l.stages, nil
		}
	}
	for _, s := range r.graph().stages {
		if s.address == target {
			return []*stage{s}, nil
		}
	}
	var names []string
	for _, l := range r.graph().pipelines {
		names = append(names, l.name)
	}
	return nil, fmt.Errorf("%w: no pipeline or stage %q: pipelines are %v, and `sluice status` lists the stages",
		control.ErrUnknown, target, names)
}
