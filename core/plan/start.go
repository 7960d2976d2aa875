package plan

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A Start is what a stage is told of its neighbours and its node when it starts.
type Start struct {
	Screens      []*stagepb.Screen // of the filters right below a source
	EveryFlow    bool              // a stage below wants to hear of every flow
	WriteThrough bool              // peers' flows go into the kernel without a hold cache
	Writers      []string          // the stages that write to the kernel
}

// StartOf returns what the stage at index i of a pipeline is told.
func StartOf(c *pipeline.Configuration, p *pipeline.Pipeline, i int) Start {
	s := Start{EveryFlow: everyFlow(p, i), WriteThrough: writeThrough(c), Writers: writers(c)}
	if i == 0 {
		s.Screens = screens(p)
	}
	return s
}

// screens returns those of the filters right below a source, up to the first that
// says nothing of itself: it may change what the next one looks at.
func screens(p *pipeline.Pipeline) (screens []*stagepb.Screen) {
	for _, s := range p.Stages[1:] {
		screen := s.Traits.GetScreen()
		if s.Kind != plugin.KindFilter || screen == nil {
			break
		}
		screens = append(screens, screen)
	}
	return screens
}

// everyFlow: what is behind a stage in its pipeline is below it, if it is no sink.
func everyFlow(p *pipeline.Pipeline, i int) bool {
	return p.Stages[i].Kind != plugin.KindSink &&
		slices.ContainsFunc(p.Stages[i+1:], func(s *pipeline.Stage) bool { return s.Traits.GetEveryFlow() })
}

func writeThrough(c *pipeline.Configuration) bool {
	return slices.ContainsFunc(c.Pipelines, func(p *pipeline.Pipeline) bool {
		return slices.ContainsFunc(p.Stages, writesKernel) &&
			!slices.ContainsFunc(p.Stages, func(s *pipeline.Stage) bool { return s.Traits.GetHold() })
	})
}

func writesKernel(s *pipeline.Stage) bool {
	return s.Kind == plugin.KindSink && s.Traits.GetKernel()
}

func writers(c *pipeline.Configuration) (addresses []string) {
	for _, p := range c.Pipelines {
		for _, s := range p.Stages {
			if writesKernel(s) {
				addresses = append(addresses, s.Address())
			}
		}
	}
	return addresses
}

// compareStarts returns why a stage that goes on would know something wrong. What
// its kind does not look at is no reason: see plugin.Start.
func compareStarts(s *pipeline.Stage, old, next Start) (reasons []control.ReasonPlan) {
	say := func(text string) { reasons = append(reasons, control.ReasonPlan{Text: text}) }
	switch {
	case s.Kind == plugin.KindSource && s.Traits.GetScreened() && !slices.EqualFunc(old.Screens, next.Screens, sameScreen):
		say("the filters right below it have the kernel drop other events")
	case s.Kind == plugin.KindCache && old.EveryFlow != next.EveryFlow && next.EveryFlow:
		say("a sink below it wants to hear of every flow")
	case s.Kind == plugin.KindCache && old.EveryFlow != next.EveryFlow:
		say("no sink below it wants to hear of every flow any more")
	}
	if s.Kind != plugin.KindCache && !s.Traits.GetKernel() {
		return reasons
	}
	if old.WriteThrough != next.WriteThrough {
		say(map[bool]string{true: "peers' flows go into the kernel at once", false: "peers' flows no longer go into the kernel at once"}[next.WriteThrough])
	}
	if s.Kind == plugin.KindSource {
		for _, w := range next.Writers { // one too many does no harm: its port id is nobody's
			if !slices.Contains(old.Writers, w) {
				say(w + " will write to the kernel, and its events must be told from others")
			}
		}
	}
	return reasons
}

func sameScreen(a, b *stagepb.Screen) bool { return proto.Equal(a, b) }
