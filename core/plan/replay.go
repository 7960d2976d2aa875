package plan

import (
	"slices"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
)

// The replays that changes ask for are those of a stage that was started again
// (docs/architecture.md): whoever holds state above it replays. A stage that is
// new counts as one that was started again, and so does what is below one that
// is gone.

func replays(s *pipeline.Stage) bool {
	return s.Kind == plugin.KindSource || s.Kind == plugin.KindCache
}

// ask notes a replay of a stage, unless it is a hold cache: that replays to
// `commit` alone.
func (c *comparison) ask(s *pipeline.Stage, into string, down bool) {
	if s.Traits.GetHold() {
		return
	}
	c.asked = append(c.asked, control.ReplayPlan{Stage: s.Address(), Into: into, Down: down, From: reads(s)})
}

func reads(s *pipeline.Stage) string {
	switch {
	case s.Kind == plugin.KindCache:
		return "memory"
	case s.Traits.GetLink() != "":
		return "peers"
	case s.Traits.GetKernel():
		return "kernel"
	}
	return "source"
}

// replayNewPipeline: as when the runner starts.
func (c *comparison) replayNewPipeline(p *pipeline.Pipeline) {
	source := p.Stages[0]
	if source.Traits.GetLink() == "" || source.Traits.GetRequestResync() {
		c.ask(source, "", true)
	}
}

// replayChanged asks for what the changes of a pipeline need.
func (c *comparison) replayChanged(old, next *pipeline.Pipeline, stay map[string]bool, actions map[string]control.Action) {
	for i, s := range next.Stages {
		if a := actions[s.Address()]; a == control.Keep || a == control.Rewire {
			continue
		}
		above := replayerAbove(next, i)
		switch {
		case s.Kind == plugin.KindSource:
			c.ask(s, "", false)
		case s.Kind == plugin.KindCache:
			c.ask(above, "", true)
		case s.Kind == plugin.KindFilter:
			c.ask(above, "", false)
		default:
			c.ask(above, s.Address(), false)
		}
	}
	for i, s := range old.Stages {
		if stay[s.Address()] || s.Kind != plugin.KindFilter && s.Kind != plugin.KindCache {
			continue
		}
		// What it kept to itself goes on now; and what it held is nowhere.
		c.ask(c.survivorAbove(old, i, next, stay), "", s.Kind == plugin.KindCache)
	}
}

// replayerAbove returns the nearest source or cache above a stage, or the source.
func replayerAbove(p *pipeline.Pipeline, i int) *pipeline.Stage {
	for i--; i > 0; i-- {
		if replays(p.Stages[i]) {
			return p.Stages[i]
		}
	}
	return p.Stages[0]
}

// survivorAbove returns the nearest source or cache that stood above a stage and
// stays, or the source.
func (c *comparison) survivorAbove(old *pipeline.Pipeline, i int, next *pipeline.Pipeline, stay map[string]bool) *pipeline.Stage {
	for i--; i >= 0; i-- {
		s := old.Stages[i]
		if at := find(next, s.Address()); replays(s) && stay[s.Address()] && at >= 0 {
			return next.Stages[at]
		}
	}
	return next.Stages[0]
}

// planReplays puts together what was asked for: a replay into everything serves
// for one into one sink, and one that goes on downwards for those of the caches
// below it.
func (c *comparison) planReplays() {
	covers := func(a, b control.ReplayPlan) bool {
		switch {
		case a == b:
			return false
		case a.Stage == b.Stage:
			return a.Into == "" && (b.Into != "" || a.Down && !b.Down)
		}
		return a.Down && c.isBelow(b.Stage, a.Stage)
	}
	for i, r := range c.asked {
		if slices.Contains(c.asked[:i], r) || slices.ContainsFunc(c.asked, func(other control.ReplayPlan) bool { return covers(other, r) }) {
			continue
		}
		c.plan.Replays = append(c.plan.Replays, r)
	}
}

// isBelow says whether a stage is below another one in the same pipeline.
func (c *comparison) isBelow(below, above string) bool {
	for _, p := range c.next.Pipelines {
		if i, k := find(p, below), find(p, above); i >= 0 && k >= 0 {
			return i > k
		}
	}
	return false
}
