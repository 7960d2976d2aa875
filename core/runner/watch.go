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
	watchInterval = time.Second
	hangTimeout   = 3 * time.Second
	// stuckTimeout is for a stage that answers, but does not read its input.
	stuckTimeout = 10 * time.Second
	// idleInterval is how often a stage is asked that leaves nothing in its
	// input: waking it costs more than all else that an idle node does. A source
	// is at sourceInterval, since nobody sees what waits for it in the kernel.
	idleInterval   = 10 * time.Second
	sourceInterval = 3 * time.Second
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
	queued     bool   // there was data in the input when it was last looked at
}

// watch asks a process for its statistics now and then, and when data stays in
// its input, and kills it when it does not answer, or makes no progress though
// the way below is free. Supervision then starts it again.
func (s *stage) watch(p *process) {
	w := watcher{stage: s, process: p, progressed: time.Now()}
	for {
		select {
		case <-p.exited:
			return
		case <-time.After(untilLook()):
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

// began is when the process did: all stages are looked at in the same moments,
// since each time that a sleeping process wakes costs more than the looking.
var began = time.Now()

func untilLook() time.Duration { return watchInterval - time.Since(began)%watchInterval }

// due says whether it is time to ask.
func (w *watcher) due() bool {
	input, waited := w.stage.input(), time.Since(w.asked)
	stays := false
	if input != nil {
		queued := input.queued() > 0
		stays, w.queued = queued && w.queued, queued
		if !queued {
			w.progressed = time.Now() // there is nothing to progress with
		}
	}
	switch {
	case stopped(w.process.pid()): // it would not do what it does by the clock, either
		return true
	case stays || !w.failing.IsZero() || w.stage.runner.draining.Load():
		return true // a drain ends before an idle stage would be found to hang
	case input == nil:
		return waited >= sourceInterval
	}
	return waited >= idleInterval
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
	if w.stage.input() == nil {
		return w.beat(reply, time.Now())
	}
	done := reply.BatchesIn + reply.BatchesOut
	if done != w.batches || reply.Sending || w.stage.input().queued() == 0 {
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
		s.statistics, s.answered = reply, time.Now()
	}
	return reply, nil
}

// refresh asks all stages, at once. One that does not answer in time is shown
// as it was when it last did.
func (r *Runner) refresh() {
	var wait sync.WaitGroup
	for _, s := range r.graph().stages {
		if p := s.process(); p != nil {
			wait.Go(func() { _, _ = s.measure(p, freshTimeout) })
		}
	}
	wait.Wait()
}
