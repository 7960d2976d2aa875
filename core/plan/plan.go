package plan

import (
	"reflect"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
)

// Facts are what a configuration does not say and a stage depends on.
type Facts struct {
	// Programs identifies, by plugin as in "filter-basic", the program that
	// would be started, by its path and its bytes; what a stage is locked to says
	// no more. A plugin that is not named is the same.
	Programs map[string]string
}

func (f Facts) program(s *pipeline.Stage) string { return f.Programs[string(s.Kind)+"-"+s.Type] }

// Compare returns what leads from old to next.
func Compare(old, next *pipeline.Configuration, was, is Facts) *control.Plan {
	c := &comparison{old: old, next: next, was: was, is: is, plan: &control.Plan{Settings: compareSettings(&old.Runner, &next.Runner)}}
	for _, p := range next.Pipelines {
		c.pipeline(old.Pipeline(p.Name), p)
	}
	for _, p := range old.Pipelines {
		if next.Pipeline(p.Name) == nil {
			c.removePipeline(p)
		}
	}
	c.planReplays()
	return c.plan
}

type comparison struct {
	old, next *pipeline.Configuration
	was, is   Facts
	plan      *control.Plan
	asked     []control.ReplayPlan // before they are put together
}

func (c *comparison) add(s control.StagePlan) { c.plan.Stages = append(c.plan.Stages, s) }

func (c *comparison) removePipeline(p *pipeline.Pipeline) {
	for _, s := range p.Stages {
		c.add(control.StagePlan{Address: s.Address(), Pipeline: p.Name, Action: control.Remove, Reasons: because("its pipeline is gone")})
	}
}

// pipeline compares one; old may be nil.
func (c *comparison) pipeline(old, next *pipeline.Pipeline) {
	if old == nil {
		for _, s := range next.Stages {
			c.add(control.StagePlan{Address: s.Address(), Pipeline: next.Name, Action: control.Add, Reasons: because("its pipeline is new")})
		}
		c.replayNewPipeline(next)
		return
	}
	stay := stays(old, next)
	actions := map[string]control.Action{}
	for i, s := range next.Stages {
		one := c.stage(old, next, i, stay)
		actions[s.Address()] = one.Action
		c.add(one)
	}
	for _, s := range old.Stages {
		if find(next, s.Address()) < 0 {
			c.add(control.StagePlan{Address: s.Address(), Pipeline: next.Name, Action: control.Remove, Cost: costOfRemoval(s)})
		}
	}
	c.replayChanged(old, next, stay, actions)
}

// stage compares one stage of a pipeline that there was before.
func (c *comparison) stage(old, next *pipeline.Pipeline, i int, stay map[string]bool) control.StagePlan {
	s := next.Stages[i]
	one := control.StagePlan{Address: s.Address(), Pipeline: next.Name, Action: control.Keep}
	at := find(old, s.Address())
	switch {
	case at < 0:
		one.Action = control.Add
		return one
	case !stay[s.Address()]:
		one.Action, one.Moved = control.Replace, true
		one.Reasons = because("it stands elsewhere in its pipeline")
		one.Cost = costOfReplacement(s)
		return one
	}
	before := old.Stages[at]
	one.Reasons = c.reasons(before, s, StartOf(c.old, old, at), StartOf(c.next, next, i))
	rewired := !slices.Equal(below(old, at, stay, "before"), below(next, i, stay, "after"))
	switch {
	case len(one.Reasons) > 0:
		one.Action = control.Replace
	case rewired && before.Traits.GetHandover():
		one.Action, one.Reasons = control.Rewire, because("it has other stages below it")
	case rewired:
		one.Action, one.Reasons = control.Replace, because("it has other stages below it, and its plugin can't take edges while it runs")
	}
	if one.Action == control.Replace {
		one.Cost = costOfReplacement(before)
	}
	return one
}

// reasons returns why the process of a stage can't go on.
func (c *comparison) reasons(old, next *pipeline.Stage, was, is Start) (reasons []control.ReasonPlan) {
	if old.Type != next.Type {
		reasons = append(reasons, control.ReasonPlan{Text: "it is of another plugin", Old: string(old.Kind) + "-" + old.Type, New: string(next.Kind) + "-" + next.Type})
		return reasons
	}
	reasons = append(reasons, compareConfigs(old.Config, next.Config)...)
	if !reflect.DeepEqual(old.Grant, next.Grant) {
		reasons = append(reasons, because("it is granted something else")...)
	}
	if len(reasons) == 0 && !proto.Equal(old.Traits, next.Traits) {
		reasons = because("its plugin makes something else of the same configuration")
	}
	if c.was.program(old) != c.is.program(next) {
		reasons = append(reasons, because("its plugin's program is another one")...)
	}
	return append(reasons, compareStarts(next, was, is)...)
}

func because(text string) []control.ReasonPlan { return []control.ReasonPlan{{Text: text}} }

// find returns the index of a stage, or -1.
func find(p *pipeline.Pipeline, address string) int {
	return slices.IndexFunc(p.Stages, func(s *pipeline.Stage) bool { return s.Address() == address })
}

// stays returns the stages that stand where they stood: all sinks that there were,
// and of the others the longest row that comes in the same order.
func stays(old, next *pipeline.Pipeline) map[string]bool {
	stay := map[string]bool{}
	var a, b []string
	for _, s := range old.Stages {
		if s.Kind != plugin.KindSink {
			a = append(a, s.Address())
		} else if find(next, s.Address()) >= 0 {
			stay[s.Address()] = true
		}
	}
	for _, s := range next.Stages {
		if s.Kind != plugin.KindSink {
			b = append(b, s.Address())
		}
	}
	for _, address := range longestCommon(a, b) {
		stay[address] = true
	}
	return stay
}

// longestCommon returns the longest row of strings that both have in this order.
func longestCommon(a, b []string) (row []string) {
	length := make([][]int, len(a)+1) // of what a[i:] and b[j:] have in common
	for i := range length {
		length[i] = make([]int, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				length[i][j] = length[i+1][j+1] + 1
			} else {
				length[i][j] = max(length[i+1][j], length[i][j+1])
			}
		}
	}
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i] == b[j]:
			row = append(row, a[i])
			i, j = i+1, j+1
		case length[i+1][j] >= length[i][j+1]:
			i++
		default:
			j++
		}
	}
	return row
}

// below names the stages right below one, in an order of its own: that of sinks
// means nothing. One that does not stay is none of the other side's.
func below(p *pipeline.Pipeline, i int, stay map[string]bool, side string) (names []string) {
	if p.Stages[i].Kind == plugin.KindSink {
		return nil
	}
	for _, s := range p.Stages[i+1:] {
		if s.Kind != plugin.KindSink && len(names) > 0 {
			break
		}
		name := s.Address()
		if !stay[name] {
			name += " " + side
		}
		names = append(names, name)
		if s.Kind != plugin.KindSink {
			break
		}
	}
	slices.Sort(names)
	return names
}

// costOfReplacement says what a process takes with it, for people.
func costOfReplacement(s *pipeline.Stage) (cost []string) {
	switch {
	case s.Kind == plugin.KindCache && s.Traits.GetHold():
		cost = append(cost, "it forgets the peers' flows: until they have sent them again, a takeover commits less")
	case s.Kind == plugin.KindCache:
		cost = append(cost, "it forgets its flows, and learns them again")
	case s.Kind == plugin.KindSink && s.Traits.GetLink() != "":
		cost = append(cost, "its peers see a new sender")
	}
	switch {
	case !s.Traits.GetHandover():
		cost = append(cost, "its plugin can't hand over: the batch that it works on is lost, and it is away for a moment")
	case s.Traits.GetExclusive():
		cost = append(cost, "it is away for a moment: only one process can have what it opens")
	}
	return cost
}

func costOfRemoval(s *pipeline.Stage) []string {
	if s.Kind == plugin.KindCache {
		return []string{"its flows are forgotten"}
	}
	return nil
}
