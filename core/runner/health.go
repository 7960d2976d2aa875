package runner

import (
	"fmt"
	"time"

	"github.com/sluice-project/sluice/core/control"
)

const (
	// downTimeout is how long a stage may not run before that counts as more
	// than the runner repairs by itself: longer than maxBackoff and a start.
	downTimeout = time.Minute
	// silentTimeout is how old a stage's last answer may be: much older than
	// that of an idle one gets, which is asked every idleInterval, and killed
	// hangTimeout later.
	silentTimeout = 2 * idleInterval
)

// Health says whether the node works, and whether it is in sync, by what is
// known: no stage is asked.
func (r *Runner) Health() control.Health {
	h := control.Health{Unhealthy: []string{}, Unready: append([]string{}, r.OutOfSync()...)}
	now := time.Now()
	for _, s := range r.graph().stages {
		if why := s.broken(now); why != "" {
			h.Unhealthy = append(h.Unhealthy, why)
		}
	}
	return h
}

// broken says what is wrong with a stage that the runner does not repair by
// itself, or "".
func (s *stage) broken(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	down, silent := now.Sub(s.down), now.Sub(s.answered)
	switch {
	case s.state == stateDrained:
	case !s.down.IsZero() && down > downTimeout:
		return fmt.Sprintf("%s has not run for %v: %s", s.address, down.Round(time.Second), printable(s.lastError))
	case s.down.IsZero() && silent > silentTimeout:
		return fmt.Sprintf("%s has not answered for %v", s.address, silent.Round(time.Second))
	}
	return ""
}
