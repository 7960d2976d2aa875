package runner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/core/plugin"
)

// OutOfSync says why this node, or what it tells its peers, may lack flows at the
// moment; nothing means that it is in sync. No stage is asked. It is what
// /readyz, the track file and the service manager are told.
func (r *Runner) OutOfSync() (missing []string) {
	switch {
	case r.draining.Load():
		missing = append(missing, "the runner drains")
	case !r.ready.Load():
		missing = append(missing, "the runner starts")
	case r.recovering.Load() > 0:
		missing = append(missing, "flows are replayed after a start")
	}
	if r.role.get() == "fault" {
		missing = append(missing, "the node was given the role fault")
	}
	for _, s := range r.graph().stages {
		missing = append(missing, s.missing()...)
		if s.replays != nil {
			missing = append(missing, s.replays.missing()...)
		}
	}
	return missing
}

func (s *stage) missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.state == stateDrained:
		return nil
	case !s.down.IsZero():
		return []string{s.address + " does not run"}
	case s.statistics != nil && s.statistics.Behind > 0:
		return []string{fmt.Sprintf("%d of the edges below %s are full", s.statistics.Behind, s.address)}
	}
	return nil
}

// missing tells of replays that repair something: those that run or wait, and
// those that failed.
func (p *replayer) missing() (missing []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(r *replay, what string) {
		if r != nil && r.repair {
			missing = append(missing, p.stage.address+" "+what+" ("+kindOfReason(r.reason)+")")
		}
	}
	add(p.current, "replays")
	for _, r := range p.waiting {
		add(r, "is to replay")
	}
	if p.owed != "" {
		missing = append(missing, p.stage.address+" can ask no peer yet ("+kindOfReason(p.owed)+")")
	}
	var failed []string
	for into, why := range p.failed {
		if into != nil && into.drained() {
			continue // a reload took it away
		}
		failed = append(failed, p.stage.address+" failed to replay: "+printable(why))
	}
	slices.Sort(failed) // the same each time that nothing has changed
	return append(missing, failed...)
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

func (s *stage) drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state == stateDrained
}

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
		"start", "restart", "reload",
		string(plugin.SignalOverrun), string(plugin.SignalEdgeFull), string(plugin.SignalGap), string(plugin.SignalLinkUp),
	}, kindOfReason(reason))
}
