package runner

import (
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// replayAtStart fills the caches: those of this node from the kernel, and then
// the peers' from them; those of the peers by asking, where the source wants it.
func (r *Runner) replayAtStart() {
	for _, l := range r.graph().pipelines {
		source := l.stages[0]
		if source.conf().Traits.GetLink() != "" && !source.conf().Traits.GetRequestResync() {
			continue
		}
		r.replayDown(source, "start")
	}
}

// replayDown replays s, then the caches below it one after another: each sends
// what it has learnt between marks, so that what ended meanwhile is swept below.
func (r *Runner) replayDown(s *stage, reason string) {
	r.recovering.Add(1) // until what is below has been asked
	first := s.replays.request(nil, 0, reason, false)
	go func() {
		defer r.recovering.Add(-1)
		<-first.done
		if first.err != nil {
			return
		}
		for _, below := range s.receivers(nil) {
			if below.replays != nil && !below.conf().Traits.GetHold() {
				r.replayDown(below, reason)
			}
		}
	}()
}

// stageRestarted repairs what was lost when a stage died: the nearest stage
// above it that has state replays. DESIGN of the table: docs/architecture.md.
func (r *Runner) stageRestarted(s *stage) {
	reason := s.address + restartedReason
	r.breakReplays(s, reason)
	switch s.conf().Kind {
	case plugin.KindSource:
		r.requestOf(s, nil, reason)
	case plugin.KindFilter:
		r.requestOf(s.replayerAbove(), nil, reason)
	case plugin.KindSink:
		r.requestOf(s.replayerAbove(), s, reason)
	case plugin.KindCache:
		// What ended while it was away is nowhere in the replay it gets, so what
		// is below must be told by a replay of its own.
		above := s.replayerAbove()
		if above == nil {
			return
		}
		r.replayDown(above, reason)
	}
}

func (r *Runner) requestOf(s, into *stage, reason string) {
	if s != nil {
		s.replays.request(into, flow.SyncFlags(0), reason, false)
	}
}
