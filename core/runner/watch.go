package runner

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// How a stage that hangs is found. A stage is given more time than a busy
// machine ever made one wait, since killing it costs a replay.
const (
	watchInterval = 500 * time.Millisecond
	hangTimeout   = 3 * time.Second
	// stuckTimeout is for a stage that answers, but does not read its input.
	stuckTimeout = 10 * time.Second
	// idleInterval is how often a stage is asked that has nothing to do: waking
	// it costs more than all else that an idle node does. A source always is,
	// at sourceInterval, since nobody sees what waits for it in the kernel.
	idleInterval   = 10 * time.Second
	sourceInterval = time.Second
	// freshTimeout bounds how long status waits for a stage.
	freshTimeout = 500 * time.Millisecond
)

// A watcher watches one process.
type watcher struct {
	stage      *stage
	process    *process
	asked      time.Time
	failing    time.Time // when the first of a row of questions without answer was asked
	progressed time.Time
	batches    uint64 // read when it last progressed
	beats      uint64 // of a source, when it last beat
	busy       bool   // it progressed since it was asked before
}

// watch asks a process for its statistics while it has work, and kills it when
// it does not answer, or when data waits in its input, the way below is free,
// and it makes no progress. Supervision then starts it again.
func (s *stage) watch(p *process) {
	w := watcher{stage: s, process: p, progressed: time.Now()}
	for {
		select {
		case <-p.exited:
			return
		case <-time.After(watchInterval):
		}
		if !w.due() {
			continue
		}
		if reason := w.ask(); reason != "" {
			s.runner.log.Error("stage hangs and is killed", "stage", s.address, "pid", p.pid(), "reason", reason)
			p.killFor(reason)
			return
		}
	}
}

// due says whether it is time to ask.
func (w *watcher) due() bool {
	input, waited := w.stage.input, time.Since(w.asked)
	if input != nil && input.queued() == 0 {
		w.progressed = time.Now() // there is nothing to progress with
	}
	switch {
	case stopped(w.process.pid()): // it would not do what it does by the clock, either
		return true
	case w.busy || !w.failing.IsZero() || w.stage.runner.draining.Load():
		return true // a drain ends before an idle stage would be found to hang
	case input == nil:
		return waited >= sourceInterval
	}
	return input.queued() > 0 || waited >= idleInterval
}

// ask asks once and returns why the process is to be killed, or "".
func (w *watcher) ask() string {
	w.asked = time.Now()
	reply, err := w.stage.measure(w.process, hangTimeout)
	if err != nil {
		if w.failing.IsZero() {
			w.failing = w.asked
		}
		if time.Since(w.failing) >= hangTimeout {
			return "no answer on the control connection"
		}
		return ""
	}
	w.failing = time.Time{}
	done := reply.BatchesIn + reply.BatchesOut
	w.busy = done != w.batches
	if w.stage.input == nil {
		w.batches = done
		return w.beat(reply, time.Now())
	}
	if w.busy || reply.Sending || w.stage.input.queued() == 0 {
		w.progressed, w.batches = time.Now(), done
	}
	if time.Since(w.progressed) >= stuckTimeout {
		return "data waits in its input and it does not read it"
	}
	return ""
}

// beat judges a source by the beats of its loop, if it has any, and returns why
// it is to be killed, or "". While it drains it has no loop.
func (w *watcher) beat(reply *stagepb.StatisticsReply, now time.Time) string {
	if reply.Beats == 0 || reply.Beats != w.beats || reply.Sending || w.stage.runner.draining.Load() {
		w.progressed, w.beats = now, reply.Beats
	}
	if now.Sub(w.progressed) >= stuckTimeout {
		return "its loop stands still"
	}
	return ""
}

// measure asks a process of the stage for its statistics and keeps them.
func (s *stage) measure(p *process, timeout time.Duration) (*stagepb.StatisticsReply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	reply, err := p.Statistics(ctx, &stagepb.Empty{})
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == p {
		s.statistics = reply
	}
	return reply, nil
}

// refresh asks all stages, at once. One that does not answer in time is shown
// as it was when it last did.
func (r *Runner) refresh() {
	var wait sync.WaitGroup
	for _, s := range r.stages {
		if p := s.process(); p != nil {
			wait.Go(func() { _, _ = s.measure(p, freshTimeout) })
		}
	}
	wait.Wait()
}
