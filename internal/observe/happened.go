package observe

import (
	"context"
	"sync"
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

// reloads remembers how the last load of a configuration ended.
type reloads struct {
	mu   sync.Mutex
	good bool
	used time.Time // since when the configuration in use is
}

// Reloaded notes that a configuration was loaded again; err says why it is not
// in use. The first is noted by Listen.
func (s *Server) Reloaded(err error) {
	s.reload.mu.Lock()
	defer s.reload.mu.Unlock()
	if s.reload.good = err == nil; s.reload.good {
		s.reload.used = time.Now()
	}
}

// Describe implements prometheus.Collector.
func (r *reloads) Describe(out chan<- *prometheus.Desc) {
	out <- metricReloaded.desc
	out <- metricReloadTime.desc
}

// Collect implements prometheus.Collector.
func (r *reloads) Collect(out chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	metricReloaded.set(out, truth(r.good))
	metricReloadTime.set(out, seconds(r.used))
}
