package runner

import (
	"fmt"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// supervisionTimeout is how long a stage may neither answer, nor run, nor be tried
// to be started: much longer than the runner itself takes to kill a stage that
// hangs (hangTimeout, stuckTimeout) or waits between two starts (maxBackoff).
const supervisionTimeout = 2 * time.Minute

// A sighting is what was seen of a stage, and since when it has been so.
type sighting struct {
	state      string
	entered    time.Time
	statistics *stagepb.StatisticsReply // another one with each answer
	since      time.Time
}

// Supervision returns a function that says which stages the runner has ceased to
// look after; none is good. It is called now and then, by one goroutine. It is for
// whoever can start the runner again, as systemd's watchdog does: a stage that
// merely does not start, since its interface is gone, is no case for that. No
// stage is asked.
func (r *Runner) Supervision() func() []string {
	seen := map[*stage]sighting{}
	return func() []string { return r.unsupervised(seen, time.Now()) }
}

func (r *Runner) unsupervised(seen map[*stage]sighting, now time.Time) (stuck []string) {
	for _, s := range r.graph().stages {
		s.mu.Lock()
		is := sighting{state: s.state, entered: s.since, statistics: s.statistics, since: now}
		s.mu.Unlock()
		was, known := seen[s]
		if known && was.state == is.state && was.entered.Equal(is.entered) && was.statistics == is.statistics {
			is.since = was.since
		}
		seen[s] = is
		silent := now.Sub(is.since).Round(time.Second)
		switch {
		case silent <= supervisionTimeout || is.state == stateDrained:
		case is.state == stateRunning:
			stuck = append(stuck, fmt.Sprintf("%s has not answered for %v, and was not killed", s.address, silent))
		default:
			stuck = append(stuck, fmt.Sprintf("%s has not been started for %v, nor was it tried", s.address, silent))
		}
	}
	return stuck
}

// Role returns the role that the node was given last: primary, backup, fault or "".
func (r *Runner) Role() string { return r.role.get() }
