package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The bounds of a switch, in which a takeover waits.
const (
	// openTimeout bounds how long new processes may take to open what they need.
	openTimeout = 5 * time.Second
	// retireTimeout is how long a process that is to go may take for what it
	// holds; then it is killed. So may one that has edges to take.
	retireTimeout = 3 * time.Second
)

// A switchover leads from the graph that runs to another one:
//
//  1. prepare: start and configure the new processes, beside the old ones.
//  2. run: no takeover runs. The new processes open what they need, but wait.
//     Those that can't do so beside their predecessors do it after these have
//     ended. That is the last thing that can fail, and is taken back then.
//  3. Stages that get other edges below are paused, and then given them.
//  4. From each source down, what goes ends: what was replaced when the batch
//     that it works on is done, what was removed when its input is empty.
//  5. What is new begins, what was paused goes on.
//
// A stage's input is kept for as long as the stage is, so what is queued there is
// not lost, and its order stays.
type switchover struct {
	*Runner
	old    *graph
	wiring *wiring

	candidates []*candidate // for replaced and new stages, sources first
	replaced   []*stage
	rewired    []*stage
	removed    []*stage           // each pipeline's from its source down
	before     map[*stage][]*edge // outputs of the rewired
	gone       []*stage           // whose processes had to end before their successors' start
}

func (r *Runner) newSwitchover(p *control.Plan, next *pipeline.Configuration) (*switchover, error) {
	s := &switchover{Runner: r, old: r.graph(), before: map[*stage][]*edge{}}
	actions := map[string]control.StagePlan{}
	for _, one := range p.Stages {
		actions[one.Address] = one
	}
	for _, old := range s.old.stages {
		switch one := actions[old.address]; {
		case one.Action == control.Remove || one.Moved:
			s.removed = append(s.removed, old)
		case one.Action == control.Replace:
			s.replaced = append(s.replaced, old)
		case one.Action == control.Rewire:
			s.rewired = append(s.rewired, old)
		}
	}
	var err error
	s.wiring, err = r.wire(next, func(address string) *stage {
		if old := r.stageAt(address); !slices.Contains(s.removed, old) {
			return old
		}
		return nil
	})
	return s, err
}

// isNew says whether a stage was not there before.
func (s *switchover) isNew(one *stage) bool { return one.end == nil }

// isLate says whether a candidate can't open what it needs while another process
// runs.
func (s *switchover) isLate(c *candidate) bool {
	traits := c.at.conf.Traits
	return traits.GetExclusive() || !traits.GetHandover() && slices.Contains(s.replaced, c.stage)
}

// prepare starts the new processes. After an error nothing is left of them.
func (s *switchover) prepare(ctx context.Context) error {
	var wait sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	started := map[*stage]*candidate{}
	for _, one := range s.wiring.stages {
		if !s.isNew(one) && !slices.Contains(s.replaced, one) {
			continue
		}
		wait.Go(func() {
			c, err := one.prepare(ctx, s.wiring.places[one])
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			started[one] = c
		})
	}
	wait.Wait()
	for _, one := range s.wiring.stages {
		if c := started[one]; c != nil {
			s.candidates = append(s.candidates, c)
		}
	}
	if len(errs) > 0 {
		s.abandon()
	}
	return errors.Join(errs...)
}

// abandon ends what was started and closes what was made.
func (s *switchover) abandon() {
	for _, c := range s.candidates {
		c.proc.kill()
	}
	s.wiring.abandon()
}

// run does the rest. After an error all is as it was, but what it says.
func (s *switchover) run(ctx context.Context) error {
	s.takeovers.Lock()
	defer s.takeovers.Unlock()
	err := ctx.Err()
	if err == nil {
		err = s.openEarly(ctx)
	}
	if err != nil {
		s.abandon()
		return err
	}
	unlock := s.lock()
	defer unlock()
	if err := s.openLate(ctx); err != nil {
		return err
	}
	s.pause()
	s.wiring.install(s.Runner)
	s.rewire()
	s.retireAll()
	s.begin()
	s.forget()
	return nil
}

// lock keeps supervision from starting stages that are exchanged.
func (s *switchover) lock() (unlock func()) {
	touched := slices.Concat(s.replaced, s.rewired, s.removed)
	for _, one := range touched {
		one.swap.Lock()
	}
	return func() {
		for _, one := range touched {
			one.swap.Unlock()
		}
	}
}

// openEarly has the candidates open what they need that can do so beside others.
func (s *switchover) openEarly(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	errs := make([]error, len(s.candidates))
	var wait sync.WaitGroup
	for i, c := range s.candidates {
		if !s.isLate(c) {
			wait.Go(func() { errs[i] = c.start(ctx, true) })
		}
	}
	wait.Wait()
	return errors.Join(errs...)
}

// openLate ends those that have what candidates need, and has these open it. If
// one can't, the old ones are started again as they were.
func (s *switchover) openLate(ctx context.Context) error {
	late := slices.DeleteFunc(slices.Clone(s.candidates), func(c *candidate) bool { return !s.isLate(c) })
	if len(late) == 0 {
		return nil
	}
	for _, one := range slices.Concat(s.replaced, s.removed) {
		ofLate := slices.ContainsFunc(late, func(c *candidate) bool { return c.stage == one })
		if ofLate || one.conf().Traits.GetExclusive() {
			one.retire()
			s.gone = append(s.gone, one)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	for _, c := range late {
		if err := c.start(ctx, c.at.conf.Traits.GetHandover()); err != nil {
			s.abandon()
			return s.takeBack(err)
		}
	}
	return nil
}

// takeBack starts again what had to end for a candidate that then did not start.
func (s *switchover) takeBack(cause error) error {
	if len(s.gone) == 0 {
		return cause
	}
	var again []string
	for _, one := range s.gone {
		again = append(again, one.address)
		if one.launch(s.running) == nil {
			s.stageRestarted(one)
		} // else its supervisor goes on trying
	}
	return fmt.Errorf("%w: %w; started again as before: %v", errPartial, cause, again)
}

// pause holds up what stages send that get other edges. One that does not answer
// is killed, and started again with them.
func (s *switchover) pause() {
	for _, one := range s.rewired {
		s.before[one] = one.outputs()
		s.call(one, "pause", func(ctx context.Context, p *process) error {
			_, err := p.Pause(ctx, &stagepb.PauseRequest{})
			return err
		})
	}
}

func (s *switchover) call(one *stage, what string, f func(context.Context, *process) error) {
	p := one.process()
	if p == nil || p.hasExited() {
		return // it gets its edges when it is started again
	}
	ctx, cancel := context.WithTimeout(context.Background(), retireTimeout)
	defer cancel()
	if err := f(ctx, p); err != nil {
		s.log.Error("stage is killed: it does not take its edges", "stage", one.address, "call", what, "error", plain(err))
		p.kill()
	}
}

// rewire gives the paused stages their edges.
func (s *switchover) rewire() {
	for _, one := range s.rewired {
		s.call(one, "rewire", func(ctx context.Context, p *process) error {
			return p.rewire(ctx, s.before[one], one.outputs())
		})
	}
}

// rewireToken tells the packets of descriptors from each other.
var rewireToken atomic.Uint64

// rewire gives a process other outputs. Those that it has it knows by number.
func (p *process) rewire(ctx context.Context, has, gets []*edge) error {
	request := &stagepb.RewireRequest{Token: rewireToken.Add(1)}
	var fresh []*edge
	for _, e := range gets {
		i := slices.Index(has, e)
		if i < 0 {
			fresh = append(fresh, e)
		}
		request.Outputs = append(request.Outputs, uint32(i+1))
	}
	if err := p.pass(request.Token, fresh); err != nil {
		return err
	}
	_, err := p.Rewire(ctx, request)
	return err
}

// pass sends the writing ends of edges over the handover socket.
func (p *process) pass(token uint64, edges []*edge) error {
	if len(edges) == 0 {
		return nil
	}
	var fds []int
	for _, e := range edges {
		fds = append(fds, int(e.write.Fd()))
	}
	payload := binary.LittleEndian.AppendUint64(nil, token)
	var err error
	withFD(p.handover, func(fd int) {
		err = unix.Sendmsg(fd, payload, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	if err != nil {
		return fmt.Errorf("pass descriptors: %w", err)
	}
	return nil
}

// retireAll ends what goes, from each source down, so that what one still sends
// the next one takes.
func (s *switchover) retireAll() {
	for _, one := range s.old.stages {
		switch {
		case slices.Contains(s.gone, one):
		case slices.Contains(s.replaced, one):
			one.retire()
		case slices.Contains(s.removed, one):
			one.runDry()
		}
	}
}

// runDry ends a stage that is removed: one with an input when that is empty.
func (s *stage) runDry() {
	input := s.input()
	if p := s.process(); p != nil && input != nil {
		input.end()
		select {
		case <-p.exited:
		case <-time.After(retireTimeout):
		}
	}
	s.retire()
	if input == nil {
		return
	}
	if left := input.queued(); left > 0 {
		s.runner.log.Warn("removed stage left data in its input, which is lost", "stage", s.address, "bytes", left)
	}
}

// retire has the stage's process end after the batch that it works on, a source
// after what it holds, and keeps what it counted. The caller holds the swap lock.
func (s *stage) retire() {
	p := s.process()
	if p == nil {
		return
	}
	_, _ = s.measure(p, freshTimeout)
	ctx, cancel := context.WithTimeout(context.Background(), retireTimeout)
	defer cancel()
	if s.conf().Kind == plugin.KindSource || s.conf().Traits.GetHandover() {
		_, _ = p.Drain(ctx, &stagepb.Empty{}) // it may be gone before its answer
		select {
		case <-p.exited:
		case <-ctx.Done():
		}
	}
	if !p.hasExited() {
		s.runner.log.Warn("stage that is let go had to be killed: the batch that it worked on is lost", "stage", s.address, "pid", p.pid())
	}
	p.kill() // frees the connection in any case
	s.mu.Lock()
	defer s.mu.Unlock()
	s.past.add(s.statistics)
	s.pastLines += p.stderr.droppedLines()
	s.proc, s.statistics, s.lastError = nil, nil, ""
	s.state, s.since = stateWaiting, time.Now()
	s.down = s.since
}

// begin lets what is new move data, sinks first, and what was paused go on.
func (s *switchover) begin() {
	for _, c := range slices.Backward(s.candidates) {
		isNew := c.end == nil
		c.install(c)
		if isNew {
			s.attend(c.stage)
		} else {
			c.mu.Lock()
			c.planned++
			c.mu.Unlock()
		}
	}
	resume := func(ctx context.Context, p *process) error {
		_, err := p.Resume(ctx, &stagepb.Empty{})
		return err
	}
	for _, c := range slices.Backward(s.candidates) {
		if c.at.conf.Traits.GetHandover() {
			s.call(c.stage, "resume", resume)
		}
	}
	for _, one := range s.rewired {
		s.call(one, "resume", resume)
	}
}

// forget takes leave of what is gone, and has replays that passed what changed
// begin anew.
func (s *switchover) forget() {
	for _, one := range s.removed {
		one.end()
		s.purges.forget(one)
		s.signals.forget(one.address)
		one.setState(stateDrained)
		if e := one.input(); e != nil {
			e.close()
		}
	}
	touched := slices.Concat(s.replaced, s.rewired)
	for _, c := range s.candidates {
		touched = append(touched, c.stage)
	}
	for _, one := range touched {
		s.breakReplays(one, one.address+" was changed by a reload")
		if one.replays != nil && !slices.Contains(s.rewired, one) {
			one.replays.breakOff(one.address + " was replaced by a reload")
		}
	}
}
