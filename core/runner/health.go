package runner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
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

// restartedReason ends the reason of a replay that a restart made necessary.
const restartedReason = " was started again"

// kindOfReason returns a word for the reason of a replay, one of a few.
func kindOfReason(reason string) string {
	if strings.HasSuffix(reason, restartedReason) {
		return "restart"
	}
	return reason
}

// repairs says whether a replay that is asked for because of reason repairs
// something. The others are an administrator's, a peer's, or the clock's.
func repairs(reason string) bool {
	return slices.Contains([]string{
		"start", "restart", "reload", string(plugin.SignalOverrun), string(plugin.SignalEdgeFull), string(plugin.SignalGap), string(plugin.SignalLinkUp),
	}, kindOfReason(reason))
}

// note keeps in mind which repairs failed. The caller holds the lock.
func (p *replayer) note(r *replay, err error) {
	switch {
	case err != nil && r.repair:
		if p.failed == nil {
			p.failed = map[*stage]string{}
		}
		p.failed[r.into] = err.Error()
	case err == nil && r.into == nil:
		p.failed = nil
	case err == nil:
		delete(p.failed, r.into)
	}
}

// Health says whether the node works and is in sync, by what is known: no
// stage is asked.
func (r *Runner) Health() control.Health {
	h := control.Health{Unhealthy: []string{}, Unready: []string{}}
	switch {
	case r.draining.Load():
		h.Unready = append(h.Unready, "the runner drains")
	case !r.ready.Load():
		h.Unready = append(h.Unready, "the runner starts")
	case r.recovering.Load() > 0:
		h.Unready = append(h.Unready, "flows are replayed after a start")
	}
	if r.role.get() == "fault" {
		h.Unready = append(h.Unready, "the node was given the role fault")
	}
	now := time.Now()
	for _, s := range r.graph().stages {
		s.health(now, &h)
		if s.replays != nil {
			s.replays.health(&h)
		}
	}
	return h
}

func (s *stage) health(now time.Time, h *control.Health) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state == stateDrained {
		return
	}
	down, silent := now.Sub(s.down), now.Sub(s.answered)
	if !s.down.IsZero() {
		h.Unready = append(h.Unready, s.address+" does not run")
		if down > downTimeout {
			h.Unhealthy = append(h.Unhealthy, fmt.Sprintf("%s has not run for %v: %s", s.address, down.Round(time.Second), printable(s.lastError)))
		}
		return
	}
	if silent > silentTimeout {
		h.Unhealthy = append(h.Unhealthy, fmt.Sprintf("%s has not answered for %v", s.address, silent.Round(time.Second)))
	}
	if s.statistics != nil && s.statistics.Behind > 0 {
		h.Unready = append(h.Unready, fmt.Sprintf("%d of the edges below %s are full", s.statistics.Behind, s.address))
	}
}

func (p *replayer) health(h *control.Health) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(r *replay, what string) {
		if r != nil && r.repair {
			h.Unready = append(h.Unready, fmt.Sprintf("%s %s (%s)", p.stage.address, what, kindOfReason(r.reason)))
		}
	}
	add(p.current, "replays")
	for _, r := range p.waiting {
		add(r, "is to replay")
	}
	if p.owed != "" {
		h.Unready = append(h.Unready, fmt.Sprintf("%s can ask no peer yet (%s)", p.stage.address, kindOfReason(p.owed)))
	}
	for _, why := range p.failed {
		h.Unready = append(h.Unready, p.stage.address+" failed to replay: "+printable(why))
	}
}
