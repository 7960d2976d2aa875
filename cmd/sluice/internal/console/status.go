package console

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluice-project/sluice/core/control"
)

// maxStage is the widest a stage's name is shown, in columns.
const maxStage = 30

// Options say how to show a status.
type Options struct {
	Now     time.Time
	Color   bool
	Verbose bool // with the stages' own statistics
}

// Status writes a node's status for people.
func Status(out io.Writer, st *control.Status, o Options) error {
	s := &screen{out: out, color: o.Color}
	s.head(st, o.Now)
	for _, p := range st.Pipelines {
		s.printf("\n%s\n", s.paint("pipeline "+cut(p.Name, 60), bold))
		s.pipeline(p, o)
	}
	s.permissions(st.Pipelines)
	if len(st.Signals) > 0 {
		s.printf("\n%s\n", s.paint("signals", bold))
		s.signals(st.Signals, o.Now)
	}
	if len(st.Replays) > 0 {
		s.printf("\n%s\n", s.paint("replays", bold))
		s.replays(st.Replays, o.Now)
	}
	return s.err
}

func (s *screen) head(st *control.Status, now time.Time) {
	role := st.Role
	if role == "" {
		role = "none given"
	}
	if st.Purge != nil {
		role += ", purge in " + Age(st.Purge.Sub(now))
	}
	if st.Scheduler != "" {
		role += " · " + st.Scheduler
	}
	node := cut(st.Node, 40)
	defer func() {
		s.wrong(st.Health)
		s.reload(st.Reload, now)
	}()
	rest := fmt.Sprintf(" · role %s%s · up %s · pid %d · sluice %s", role, InSync(st.Health), Age(now.Sub(st.Started)), st.PID, st.Version)
	s.printf("node %s%s\n", s.paint(node, bold), cut(rest, Width-len("node ")-utf8.RuneCountInString(node)))
}

// InSync says in the middle of a line whether a node is in sync; nothing of a
// runner that does not tell.
func InSync(h control.Health) string {
	switch {
	case h.Unready == nil:
		return ""
	case len(h.Unready) == 0:
		return " · in sync"
	}
	return " · not in sync"
}

// wrong writes what a node lacks. None of it is cut.
func (s *screen) wrong(h control.Health) {
	for _, why := range h.Unhealthy {
		s.printf("%s\n", s.paint(clean("needs somebody: "+why), red))
	}
	for _, why := range h.Unready {
		s.printf("%s\n", s.paint(clean("not in sync: "+why), yellow))
	}
}

// reload writes how the last one ended, if there was one.
func (s *screen) reload(r *control.ReloadStatus, now time.Time) {
	if r == nil {
		return
	}
	text, st := fmt.Sprintf("reload %s %s ago in %s", r.Result, Age(now.Sub(r.Time)), Elapsed(r.Elapsed)), plain
	switch {
	case r.Error != "":
		text, st = text+": "+r.Error, red
	case len(r.Changes) == 0:
		text += ": nothing to change"
	default:
		text += ": " + strings.Join(r.Changes, "; ")
	}
	// An error is not cut: it says what to do.
	if st == plain {
		text = cut(text, Width)
	}
	s.printf("%s\n", s.paint(clean(text), st))
}

// styles of the states of stages and replays.
var styles = map[string]style{
	"running": green, "done": green, "starting": yellow, "waiting": yellow, "failed": red,
}

func (s *screen) pipeline(p control.PipelineStatus, o Options) {
	t := &table{
		titles: []string{"STAGE", "STATE", "PID", "SINCE", "RESTARTS", "IN", "OUT", "LOST", "QUEUE", "CPU", "MEMORY"},
		right:  map[int]bool{2: true, 3: true, 4: true, 5: true, 6: true, 7: true, 8: true, 9: true, 10: true},
	}
	for _, stage := range p.Stages {
		t.add(stageRow(stage, p.Name, o.Now)...)
		if stage.Program != nil {
			t.add(programLine(stage.Program))
		}
		if stage.LastError != "" {
			t.add(cell{"    last error: " + stage.LastError, red})
		}
		if stage.Note != "" {
			t.add(cell{"    " + stage.Note, plain})
		}
		if o.Verbose {
			statistics(t, stage.Statistics)
		}
	}
	s.table(t)
}

// programLine says of a vendor's stage whether a lock file vouches for what it executes.
func programLine(p *control.Program) cell {
	sum := p.SHA256[:min(12, len(p.SHA256))] // as `sluice plugin list` has it
	if p.Lock == "locked" {
		return cell{"    locked: " + sum, plain}
	}
	return cell{fmt.Sprintf("    %s: %s of %s", p.Lock, sum, p.Path), yellow}
}

func stageRow(stage control.StageStatus, pipeline string, now time.Time) []cell {
	name := strings.TrimPrefix(stage.Address, pipeline+".")
	row := cells(cut(name, maxStage), stage.State, "-", Age(now.Sub(stage.Since)), Count(stage.Restarts),
		Count(stage.EventsIn), Count(stage.EventsOut), Count(stage.Lost), Bytes(stage.QueueBytes),
		seconds(stage.CPUSeconds), Bytes(stage.MemoryBytes))
	row[1].style = styles[stage.State]
	if stage.Since.IsZero() { // its pipeline starts from the sinks up
		row[3].text = "-"
	}
	if stage.PID != 0 {
		row[2].text = strconv.Itoa(stage.PID)
	}
	switch stage.Kind { // a source takes nothing in, a sink lets nothing out
	case "source":
		row[5].text, row[8].text = "-", "-"
	case "sink":
		row[6].text = "-"
	}
	if stage.Restarts > 0 {
		row[4].style = yellow
	}
	if stage.Lost > 0 {
		row[7].style = red
	}
	return row
}

// statistics adds a line for each number of a stage's own.
func statistics(t *table, all []control.Statistic) {
	width := 0
	for _, one := range all {
		width = max(width, len(statisticName(one)))
	}
	for _, one := range all {
		st := plain
		if one.Type == "loss" && one.Value > 0 {
			st = red
		}
		t.add(cell{fmt.Sprintf("    %-*s  %14d  %s", width, statisticName(one), one.Value, one.Help), st})
	}
}

func statisticName(s control.Statistic) string {
	about := []string{}
	if s.Peer != "" {
		about = append(about, s.Peer)
	}
	for _, label := range slices.Sorted(maps.Keys(s.Labels)) {
		if s.Labels[label] != "" {
			about = append(about, s.Labels[label])
		}
	}
	if len(about) == 0 {
		return s.Name
	}
	return s.Name + " (" + strings.Join(about, " ") + ")"
}

func (s *screen) signals(all []control.SignalStatus, now time.Time) {
	t := &table{titles: []string{"STAGE", "SIGNAL", "TIMES", "LAST", "DETAIL"}, right: map[int]bool{2: true}}
	for _, one := range all {
		t.add(cells(cut(one.Stage, maxStage), one.Name, Count(one.Times), Age(now.Sub(one.Last))+" ago", one.Detail)...)
	}
	s.table(t)
}

func (s *screen) replays(all []control.ReplayStatus, now time.Time) {
	t := &table{titles: []string{"STAGE", "REASON", "STATE", "STARTED", "TOOK", "RESULT"}, right: map[int]bool{4: true}}
	for _, one := range all {
		row := cells(cut(one.Stage, maxStage), cut(one.Reason, maxStage), one.State, Age(now.Sub(one.Started))+" ago",
			Elapsed(one.Elapsed), Counts(one.Counts))
		row[2].style = styles[one.State]
		if one.Error != "" {
			row[5] = cell{one.Error, red}
		}
		t.add(row...)
	}
	s.table(t)
}
