package runner

import (
	"slices"
	"strings"

	"github.com/sluice-project/sluice/core/plugin"
)

// OutOfSync says why this node, or what it tells its peers, may lack flows at the
// moment; nothing means that it is in sync. No stage is asked.
func (r *Runner) OutOfSync() (missing []string) {
	switch {
	case r.draining.Load():
		missing = append(missing, "the runner drains")
	case !r.ready.Load():
		missing = append(missing, "the runner starts")
	}
	if r.role.get() == "fault" {
		missing = append(missing, "the node was given the role fault")
	}
	for _, s := range r.graph().stages {
		if !s.runs() {
			missing = append(missing, s.address+" does not run")
		}
		if s.replays != nil {
			missing = append(missing, s.replays.missing()...)
		}
	}
	return missing
}

// missing tells of replays that repair something: those that run or wait, and the
// last one of each source or cache, if it failed.
func (p *replayer) missing() (missing []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	add := func(r *replay, what string) {
		if r != nil && mends(r.reason) {
			missing = append(missing, p.stage.address+" "+what+" ("+r.reason+")")
		}
	}
	add(p.current, "replays")
	for _, r := range p.waiting {
		add(r, "is to replay")
	}
	if n := len(p.last); n > 0 && p.last[n-1].err != nil {
		add(p.last[n-1], "failed to replay")
	}
	return missing
}

// mends says whether a replay that is asked for because of reason repairs
// something. The others are an administrator's, a peer's, or the clock's.
func mends(reason string) bool {
	return strings.HasSuffix(reason, " was started again") || slices.Contains([]string{
		"start", "reload", string(plugin.SignalOverrun), string(plugin.SignalEdgeFull), string(plugin.SignalGap), string(plugin.SignalLinkUp),
	}, reason)
}
