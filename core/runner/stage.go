package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The states of a stage.
const (
	stateStarting = "starting"
	stateRunning  = "running"
	stateWaiting  = "waiting" // to be started again
	stateDrained  = "drained"
)

// How a dead stage is started again: at once the first time, then after a pause
// that doubles, until it has run for a while.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 30 * time.Second
	longEnough = 20 * time.Second
)

// How many of a stage's signals are logged; all are counted and acted on.
const (
	signalRate  = 1 // lines a second, after
	signalBurst = 100
)

// A stage is one stage of a pipeline and the process that is it at the moment.
type stage struct {
	runner  *Runner
	line    *line
	conf    *pipeline.Stage
	address string

	above      *stage
	below      []*stage
	input      *edge
	outputs    []*edge
	edgeNumber uint16 // of its edge where the pipeline fans out; else 0

	port, purgePort uint32    // netlink port ids, or 0
	replays         *replayer // of sources and caches
	signalLog       *rate.Limiter

	mu         sync.Mutex
	proc       *process
	state      string
	since      time.Time
	generation uint32
	lastError  string
	statistics *stagepb.StatisticsReply // the process's last, maybe nil
	past       totals                   // of processes that are gone
	pastLines  uint64                   // of their logs that were dropped
}

func newStage(r *Runner, l *line, conf *pipeline.Stage) *stage {
	s := &stage{runner: r, line: l, conf: conf, address: conf.Address(), state: stateStarting, since: time.Now()}
	s.signalLog = rate.NewLimiter(signalRate, signalBurst)
	if conf.Kind == plugin.KindSource || conf.Kind == plugin.KindCache {
		s.replays = newReplayer(s)
	}
	return s
}

// launch starts a process, configures it, and lets it move data.
func (s *stage) launch(ctx context.Context) error {
	s.setState(stateStarting)
	path, args, err := s.runner.options.Plugins.command(s.conf.Kind, s.conf.Type, s.address)
	if err != nil {
		return s.failed(err)
	}
	rules, err := s.rules()
	if err != nil {
		return s.failed(err)
	}
	files, inputs, outputs := s.descriptors()
	p, err := startProcess(ctx, s.runner.spawner, processConfig{
		name: s.address, path: path, args: args, kind: s.conf.Kind, typ: s.conf.Type, netns: s.conf.Traits.GetNetns(), files: files,
		log: s.runner.log.With("stage", s.address), level: s.runner.options.Level, rules: rules,
	})
	if err != nil {
		return s.failed(err)
	}
	s.mu.Lock()
	s.generation++
	generation := s.generation
	s.mu.Unlock()
	err = startStage(ctx, p, s.conf.Config, &stagepb.StartRequest{
		Node: s.runner.options.Config.Runner.Name, Stage: s.address, Generation: generation,
		PortId: s.port, OwnPortIds: s.runner.ports,
		DropOwn: !s.runner.writeThrough(), WriteThrough: s.runner.writeThrough(), EveryFlow: s.everyFlow(),
		Inputs: inputs, Outputs: outputs, Screens: s.screens(),
	})
	if err != nil {
		p.kill()
		err = fmt.Errorf("%s: %w", s.address, err)
		if tail := p.stderr.tail(); tail != "" && p.crashed() {
			err = fmt.Errorf("%w; it wrote: %s", err, tail)
		}
		return s.failed(err)
	}
	s.mu.Lock()
	s.proc, s.state, s.since, s.statistics = p, stateRunning, time.Now(), nil
	s.mu.Unlock()
	go s.readSignals(p)
	go s.watch(p)
	s.runner.log.Info("stage runs", "stage", s.address, "pid", p.pid(), "generation", generation)
	return nil
}

// screens returns those of the filters right below a source, up to the first that
// says nothing of itself: it may change what the next one looks at.
func (s *stage) screens() (screens []*stagepb.Screen) {
	if s.conf.Kind != plugin.KindSource {
		return nil
	}
	for at := s; len(at.below) == 1 && at.below[0].conf.Kind == plugin.KindFilter; {
		at = at.below[0]
		screen := at.conf.Traits.GetScreen()
		if screen == nil {
			break
		}
		screens = append(screens, screen)
	}
	return screens
}

// descriptors returns the ends of the edges that the process inherits, and
// their numbers there.
func (s *stage) descriptors() (files []*os.File, inputs, outputs []uint32) {
	if s.input != nil {
		files = append(files, s.input.read)
		inputs = append(inputs, firstFile)
	}
	for _, e := range s.outputs {
		outputs = append(outputs, uint32(firstFile+len(files)))
		files = append(files, e.write)
	}
	return files, inputs, outputs
}

// everyFlow says whether a stage below wants to hear of every flow.
func (s *stage) everyFlow() bool {
	return slices.ContainsFunc(s.below, func(b *stage) bool { return b.conf.Traits.GetEveryFlow() || b.everyFlow() })
}

// startStage configures and starts the stage of a process.
func startStage(ctx context.Context, p *process, config []byte, start *stagepb.StartRequest) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	configured, err := p.Configure(ctx, &stagepb.Configuration{Json: config})
	if err != nil {
		return fmt.Errorf("configure: %w", plain(err))
	}
	if len(configured.Diagnostics) > 0 {
		return fmt.Errorf("configure: %s", configured.Diagnostics[0].Detail)
	}
	started, err := p.Start(ctx, start)
	if err != nil {
		return fmt.Errorf("start: %w", plain(err))
	}
	if started.Error != "" {
		return errors.New(started.Error)
	}
	return nil
}

func (s *stage) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastError = err.Error()
	return err
}

func (s *stage) setState(state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.since = state, time.Now()
}

// process returns the process that runs, or nil.
func (s *stage) process() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc
}

func (s *stage) runs() bool { return s.process() != nil }

// supervise starts the stage again whenever it dies, until ctx ends.
func (s *stage) supervise(ctx context.Context) {
	backoff := minBackoff
	for {
		p := s.process()
		started := time.Now()
		select {
		case <-ctx.Done():
			return
		case <-p.exited:
		}
		if ctx.Err() != nil {
			return
		}
		s.died(p)
		if time.Since(started) > longEnough {
			backoff = minBackoff
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, maxBackoff)
			if ctx.Err() != nil {
				return
			}
			err := s.launch(ctx)
			if err == nil {
				break
			}
			s.setState(stateWaiting)
			s.runner.log.Error("stage does not start", "stage", s.address, "error", err, "again_in", backoff)
		}
		s.runner.stageRestarted(s)
	}
}

// died notes how a process ended and keeps what it had counted.
func (s *stage) died(p *process) {
	go p.client.Kill() // frees the connection
	reason := "exited"
	if p.err != nil {
		reason = p.err.Error()
	}
	if why := p.reason.Load(); why != nil {
		reason = "killed: " + *why
	}
	if tail := p.stderr.tail(); tail != "" {
		reason += "; it wrote: " + tail
	}
	s.mu.Lock()
	s.proc = nil
	s.state, s.since, s.lastError = stateWaiting, time.Now(), reason
	s.past.add(s.statistics)
	s.pastLines += p.stderr.droppedLines()
	s.statistics = nil
	s.mu.Unlock()
	s.runner.log.Error("stage died", "stage", s.address, "pid", p.pid(), "reason", reason)
	if s.replays != nil { // the next process knows nothing of it
		s.replays.breakOff(s.address + " died")
	}
}

// readSignals takes the process's signals until it ends. One that can't be
// heard any more is killed: nothing would repair what it loses, and no replay
// into it would ever end.
func (s *stage) readSignals(p *process) {
	err := s.takeSignals(p)
	select {
	case <-p.exited:
	case <-time.After(hangTimeout):
		s.runner.log.Error("stage's signals ended and it is killed", "stage", s.address, "pid", p.pid(), "error", err)
		p.killFor("its signals could not be read any more")
	}
}

func (s *stage) takeSignals(p *process) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-p.exited:
			cancel()
		case <-ctx.Done():
		}
	}()
	stream, err := p.Signals(ctx, &stagepb.Empty{})
	if err != nil {
		return err
	}
	for {
		signal, err := stream.Recv()
		if err != nil {
			return err
		}
		s.runner.signalled(s, signal)
	}
}

// drainSource tells a source to send what it holds and to end.
func (s *stage) drainSource(ctx context.Context) error {
	p := s.process()
	if p == nil {
		return nil // it died just now: what is below drains all the same
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := p.Drain(call, &stagepb.Empty{})
	if err == nil {
		return nil
	}
	select {
	case <-p.exited: // it was gone before its answer
		return nil
	case <-call.Done():
		return fmt.Errorf("drain: %s: %w", s.address, err)
	}
}

// awaitExit waits until the stage's process has exited.
func (s *stage) awaitExit(ctx context.Context) error {
	p := s.process()
	if p == nil {
		return nil
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		return errors.New("did not drain in time and was killed")
	}
	s.setState(stateDrained)
	go p.client.Kill()
	return p.err
}
