package console

import (
	"fmt"
	"io"
	"strings"

	"github.com/sluice-project/sluice/core/control"
)

// actionStyles are those of what becomes of a stage.
var actionStyles = map[control.Action]style{
	control.Keep: faint, control.Rewire: yellow, control.Replace: yellow, control.Add: green, control.Remove: red,
}

// Plan writes for people what a reload would do.
func Plan(out io.Writer, p *control.Plan, color bool) error {
	s := &screen{out: out, color: color}
	if !p.Changes() {
		s.printf("nothing to change: %s\n", stages(len(p.Stages)))
		return s.err
	}
	if len(p.Settings) > 0 {
		s.printf("%s\n", s.paint("runner", bold))
		s.settings(p.Settings)
	}
	pipeline := ""
	for _, stage := range p.Stages {
		if stage.Pipeline != pipeline {
			pipeline = stage.Pipeline
			s.printf("%s\n", s.paint("pipeline "+cut(pipeline, 60), bold))
		}
		s.planned(stage)
	}
	s.plannedReplays(p.Replays)
	changed := 0
	for _, stage := range p.Stages {
		if stage.Action != control.Keep {
			changed++
		}
	}
	s.printf("%s, %d of them with a change\n", stages(len(p.Stages)), changed)
	return s.err
}

func stages(n int) string {
	if n == 1 {
		return "1 stage"
	}
	return fmt.Sprintf("%d stages", n)
}

func (s *screen) settings(all []control.SettingPlan) {
	for _, one := range all {
		action, st := "change", yellow
		if one.Refused != "" {
			action, st = "refuse", red
		}
		s.printf("  %s  %s: %s\n", s.paint(fmt.Sprintf("%-7s", action), st), clean(one.Name), change(one.Old, one.New))
		if one.Refused != "" {
			s.printf("           %s\n", clean(one.Refused))
		}
	}
}

func (s *screen) planned(p control.StagePlan) {
	s.printf("  %s  %s\n", s.paint(fmt.Sprintf("%-7s", p.Action), actionStyles[p.Action]),
		clean(strings.TrimPrefix(p.Address, p.Pipeline+".")))
	for _, r := range p.Reasons {
		text := r.Text
		if r.Attribute != "" {
			text = r.Attribute + ": " + change(r.Old, r.New)
		} else if r.Old+r.New != "" {
			text += ": " + change(r.Old, r.New)
		}
		s.printf("           %s\n", clean(text))
	}
	for _, cost := range p.Cost {
		s.printf("           %s\n", s.paint("cost: "+clean(cost), yellow))
	}
}

// maxValue is the widest a value is shown, in columns.
const maxValue = 48

// change writes what was and what will be.
func change(old, next string) string {
	value := func(text string) string {
		if text == "" {
			return "(not given)"
		}
		return cut(text, maxValue)
	}
	return value(old) + " → " + value(next)
}

// what a replay reads.
var readings = map[string]string{
	"kernel": "reads the kernel's table again", "peers": "asks the peers for everything", "memory": "sends what it holds",
	"source": "sends all that it has",
}

func (s *screen) plannedReplays(all []control.ReplayPlan) {
	if len(all) > 0 {
		s.printf("%s\n", s.paint("replays", bold))
	}
	for _, one := range all {
		text := readings[one.From]
		if one.Into != "" {
			text += ", into " + one.Into + " alone"
		}
		if one.Down {
			text += ", then the caches below it send theirs"
		}
		s.printf("  %s %s\n", clean(one.Stage), text)
	}
}
