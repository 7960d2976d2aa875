package observe

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-project/sluice/core/control"
)

func result(err error) string {
	if err != nil {
		return "failed"
	}
	return "done"
}

// Replayed counts a replay. It is runner.Options.Replayed.
func (s *Server) Replayed(stage, reason string, elapsed time.Duration, err error) {
	s.replays.WithLabelValues(stage, reason, result(err)).Observe(elapsed.Seconds())
}

// Commands returns a backend of the administrator's socket that counts the
// commands that b carries out.
func (s *Server) Commands(b control.Backend) control.Backend {
	return commands{b, s.commands}
}

type commands struct {
	control.Backend
	took *prometheus.HistogramVec
}

func (c commands) Do(ctx context.Context, r control.Request, report func(control.Step)) error {
	begin := time.Now()
	err := c.Backend.Do(ctx, r, report)
	c.took.WithLabelValues(commandOf(r), result(err)).Observe(time.Since(begin).Seconds())
	return err
}

// commandOf returns a command's name, a role's with the role: of these there
// are few, whatever the caller writes.
func commandOf(r control.Request) string {
	if r.Command == "role" && len(r.Targets) == 1 {
		for _, role := range roles {
			if role == r.Targets[0] {
				return "role " + role
			}
		}
	}
	return r.Command
}
