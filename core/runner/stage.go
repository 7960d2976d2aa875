package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
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
	address string
	place   atomic.Pointer[place]

	ports     [3]uint32 // netlink port ids, or 0: of its processes in turn, and of a purge
	replays   *replayer // of sources and caches
	signalLog *rate.Limiter

	swap sync.Mutex         // held while its process is started, or exchanged
	end  context.CancelFunc // ends its supervision; set once that has begun

	mu         sync.Mutex
	proc       *process
	port       uint32 // of proc
	planned    uint32 // processes that a reload started
	state      string
	since      time.Time
	generation uint32
	lastError  string
	statistics *stagepb.StatisticsReply // the process's last, maybe nil
	past       totals                   // of processes that are gone
	pastLines  uint64                   // of their logs that were dropped
	answered   time.Time                // when statistics came
	down       time.Time                // since when no process runs; zero: one does
}

func newStage(r *Runner, conf *pipeline.Stage) *stage {
	s := &stage{runner: r, address: conf.Address(), state: stateStarting, since: time.Now(), down: time.Now()}
	s.signalLog = rate.NewLimiter(signalRate, signalBurst)
	if conf.Kind == plugin.KindSource || conf.Kind == plugin.KindCache {
		s.replays = newReplayer(s)
	}
	return s
}

// launch starts a process, configures it, and lets it move data.
func (s *stage) launch(ctx context.Context) error {
	s.setState(stateStarting)
	c, err := s.prepare(ctx, s.at())
	if err == nil {
		err = c.start(ctx, false)
	}
	if err != nil {
		return s.failed(err)
	}
	s.install(c)
	return nil
}

// A candidate is a process that may become a stage's.
type candidate struct {
	*stage
	at         *place
	proc       *process
	generation uint32
	port       uint32 // its netlink port id, or 0
}

// prepare starts a process for the stage at a place and configures it.
func (s *stage) prepare(ctx context.Context, at *place) (*candidate, error) {
	conf := at.conf
	path, args, image, err := at.program(s.address)
	if err != nil {
		return nil, err
	}
	rules, err := s.rules(conf)
	if err != nil {
		return nil, err
	}
	at.warnUnlocked(s.runner.log)
	files, _, _ := at.descriptors()
	p, err := startProcess(ctx, s.runner.spawner, processConfig{
		name: s.address, path: path, args: args, kind: conf.Kind, typ: conf.Type, netns: conf.Traits.GetNetns(), files: files,
		log: s.runner.log.With("stage", s.address), level: s.runner.options.Level, rules: rules,
		image: image,
	})
	if err != nil {
		return nil, err
	}
	if err := configureStage(ctx, p, conf.Config); err != nil {
		return nil, p.giveUp(s.address, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &candidate{stage: s, at: at, proc: p, generation: s.generation + 1, port: s.ports[0]}
	if s.port == c.port {
		c.port = s.ports[1] // the process that it replaces may have the other one open
	}
	return c, nil
}

// start has the process open what it needs, and move data unless it is to wait
// for Resume. After an error nothing is left of it.
func (c *candidate) start(ctx context.Context, paused bool) error {
	_, inputs, outputs := c.at.descriptors()
	start := c.at.start
	err := startStage(ctx, c.proc, &stagepb.StartRequest{
		Node: c.at.graph.config.Runner.Name, Stage: c.address, Generation: c.generation,
		PortId: c.port, OwnPortIds: c.at.graph.ports,
		DropOwn: !start.WriteThrough, WriteThrough: start.WriteThrough, EveryFlow: start.EveryFlow,
		Inputs: inputs, Outputs: outputs, Screens: start.Screens, Paused: paused,
	})
	if err != nil {
		return c.proc.giveUp(c.address, err)
	}
	return nil
}

// giveUp ends a process that can't be the stage of an address.
func (p *process) giveUp(address string, err error) error {
	p.kill()
	err = fmt.Errorf("%s: %w", address, err)
	if tail := p.stderr.tail(); tail != "" && p.crashed() {
		err = fmt.Errorf("%w; it wrote: %s", err, tail)
	}
	return err
}

// install makes a candidate's process the stage's.
func (s *stage) install(c *candidate) {
	s.mu.Lock()
	s.proc, s.state, s.since, s.statistics = c.proc, stateRunning, time.Now(), nil
	s.generation, s.port = c.generation, c.port
	s.answered, s.down = s.since, time.Time{} // it answered to be started
	s.mu.Unlock()
	go s.readSignals(c.proc)
	go s.watch(c.proc)
	s.runner.log.Info("stage runs", "stage", s.address, "pid", c.proc.pid(), "generation", c.generation)
}

// descriptors returns the ends of the edges that the process inherits, and
// their numbers there.
func (p *place) descriptors() (files []*os.File, inputs, outputs []uint32) {
	if p.input != nil {
		files = append(files, p.input.read)
		inputs = append(inputs, firstFile)
	}
	for _, e := range p.outputs {
		outputs = append(outputs, uint32(firstFile+len(files)))
		files = append(files, e.write)
	}
	return files, inputs, outputs
}

// configureStage hands a process its configuration.
func configureStage(ctx context.Context, p *process, config []byte) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	configured, err := p.Configure(ctx, &stagepb.Configuration{Json: config})
	if err != nil {
		return fmt.Errorf("configure: %w", plain(err))
	}
	if len(configured.Diagnostics) > 0 {
		return fmt.Errorf("configure: %s", configured.Diagnostics[0].Detail)
	}
	return nil
}

// startStage starts the stage of a process that is configured.
func startStage(ctx context.Context, p *process, start *stagepb.StartRequest) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
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
	for ctx.Err() == nil {
		started := time.Now()
		if !s.awaitDeath(ctx) {
			continue
		}
		if time.Since(started) > longEnough {
			backoff = minBackoff
		}
		for again := true; again; {
			select {
			case <-ctx.Done():
				return
			case <-time.After(backoff):
			}
			backoff = min(2*backoff, maxBackoff)
			again = s.revive(ctx, backoff)
		}
	}
}

// awaitDeath waits until the stage's process has died, and notes it. It says
// false if that was meant: a reload has put another one in its place, or ctx has
// ended.
func (s *stage) awaitDeath(ctx context.Context) bool {
	p := s.process()
	if p != nil {
		select {
		case <-ctx.Done():
			return false
		case <-p.exited:
		}
	}
	s.swap.Lock()
	defer s.swap.Unlock()
	if ctx.Err() != nil || s.process() != p {
		return false
	}
	if p != nil {
		s.died(p)
	}
	return true
}

// revive starts the stage unless a reload has done so, and says whether to try
// again.
func (s *stage) revive(ctx context.Context, backoff time.Duration) (again bool) {
	s.swap.Lock()
	defer s.swap.Unlock()
	if ctx.Err() != nil || s.runs() {
		return false
	}
	if err := s.launch(ctx); err != nil {
		s.setState(stateWaiting)
		s.runner.log.Error("stage does not start", "stage", s.address, "error", err, "again_in", backoff)
		return true
	}
	s.runner.stageRestarted(s)
	return false
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
	s.down = s.since
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
