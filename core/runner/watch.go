package runner

import (
	"context"
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
)

// watch asks a process for its statistics all the time, and kills it when it
// does not answer, or when data waits in its input, the way below is free, and
// it makes no progress. Supervision then starts it again.
func (s *stage) watch(p *process) {
	answered, progressed := time.Now(), time.Now()
	var last uint64
	for {
		select {
		case <-p.exited:
			return
		case <-time.After(watchInterval):
		}
		ctx, cancel := context.WithTimeout(context.Background(), hangTimeout)
		reply, err := p.Statistics(ctx, &stagepb.Empty{})
		cancel()
		if err == nil {
			answered = time.Now()
			s.setStatistics(p, reply)
			if s.input == nil || reply.BatchesIn != last || reply.Sending || s.input.queued() == 0 {
				progressed, last = answered, reply.BatchesIn
			}
		}
		reason := ""
		switch {
		case time.Since(answered) >= hangTimeout:
			reason = "no answer on the control connection"
		case time.Since(progressed) >= stuckTimeout:
			reason = "data waits in its input and it does not read it"
		}
		if reason != "" {
			s.runner.log.Error("stage hangs and is killed", "stage", s.address, "pid", p.pid(), "reason", reason)
			p.kill()
			return
		}
	}
}

func (s *stage) setStatistics(p *process, reply *stagepb.StatisticsReply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == p {
		s.statistics = reply
	}
}
