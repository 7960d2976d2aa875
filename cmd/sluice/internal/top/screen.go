package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/cmd/sluice/internal/console"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/rates"
)

// An order says how stages are sorted: the first is what has most.
type order struct {
	key, name string
	value     func(s *control.StageStatus, r rates.Rate) float64 // nil: as in the pipelines
}

// orders are those that there are, by their keys.
var orders = map[string]order{
	"o": {"o", "order of the pipelines", nil},
	"i": {"i", "events in", func(_ *control.StageStatus, r rates.Rate) float64 { return r.In }},
	"u": {"u", "events out", func(_ *control.StageStatus, r rates.Rate) float64 { return r.Out }},
	"l": {"l", "events lost", func(s *control.StageStatus, _ rates.Rate) float64 { return float64(s.Lost) }},
	"w": {"w", "bytes that wait", func(s *control.StageStatus, _ rates.Rate) float64 { return float64(s.QueueBytes) }},
	"c": {"c", "CPU", func(_ *control.StageStatus, r rates.Rate) float64 { return r.CPU }},
	"m": {"m", "memory", func(s *control.StageStatus, _ rates.Rate) float64 { return float64(s.MemoryBytes) }},
}

const help = "q quit p pause r reverse · sort: o order i in u out l lost w queue c CPU m mem"

// Lines beside the stages: two of the head, titles, one of help; and the
// signals with a blank line.
const (
	around  = 4
	signals = 3
)

// Styles; escape sequences of the terminal.
const (
	bold   = "\x1b[1m"
	faint  = "\x1b[2m"
	red    = "\x1b[31m"
	yellow = "\x1b[33m"
	green  = "\x1b[32m"
	reset  = "\x1b[0m"
)

func (m *Model) paint(text, style string) string {
	if !m.Color || style == "" {
		return text
	}
	return style + text + reset
}

// room is how many stages fit on the screen.
func (m *Model) room() int { return max(1, m.height-around-m.signalLines()) }

func (m *Model) signalLines() int {
	if m.status == nil || len(m.status.Signals) == 0 || m.height < 16 {
		return 0
	}
	return min(signals, len(m.status.Signals)) + 1
}

// stages are all of the node's, sorted.
func (m *Model) stages() (all []*control.StageStatus) {
	if m.status == nil {
		return nil
	}
	for i := range m.status.Pipelines {
		for j := range m.status.Pipelines[i].Stages {
			all = append(all, &m.status.Pipelines[i].Stages[j])
		}
	}
	if value := m.order.value; value != nil {
		slices.SortStableFunc(all, func(a, b *control.StageStatus) int {
			return cmp.Compare(value(b, m.rates[b.Address]), value(a, m.rates[a.Address]))
		})
	}
	if m.reverse {
		slices.Reverse(all)
	}
	return all
}

// screen is the whole text, no line wider than the screen and none too many.
func (m *Model) screen() string {
	lines := m.head()
	if m.status != nil {
		lines = append(lines, m.paint(m.line("STAGE", "STATE", "IN/s", "OUT/s", "LOST", "QUEUE", "CPU", "MEMORY"), bold))
		all := m.stages()
		shown := all[min(m.first, len(all)):min(m.first+m.room(), len(all))]
		for _, s := range shown {
			lines = append(lines, m.stage(s))
		}
		for range m.room() - len(shown) {
			lines = append(lines, "")
		}
		lines = append(lines, m.signals()...)
	}
	lines = append(lines, m.paint(console.Cut(help, m.width), faint))
	return strings.Join(lines[:min(len(lines), max(1, m.height))], "\n")
}

// head says of what node it is, and how it is sorted.
func (m *Model) head() []string {
	if m.status == nil {
		text := "asking the runner …"
		if m.err != nil {
			text = m.err.Error()
		}
		return []string{console.Cut(text, m.width)}
	}
	role := m.status.Role
	if role == "" {
		role = "none given"
	}
	node := fmt.Sprintf("node %s · role %s%s · up %s · sluice %s", m.status.Node, role, console.InSync(m.status.Health), console.Age(m.at.Sub(m.status.Started)), m.status.Version)
	sorted := orders["o"].name
	if m.order.value != nil {
		sorted = m.order.name
	}
	state := "sorted by " + sorted
	if m.reverse {
		state += ", reversed"
	}
	style := faint
	if wrong := slices.Concat(m.status.Unhealthy, m.status.Unready); len(wrong) > 0 {
		state, style = strings.Join(wrong, "; ")+" · "+state, yellow
	}
	switch {
	case m.err != nil:
		state, style = fmt.Sprintf("%s; this is of %s", m.err, m.at.Format("15:04:05")), red
	case m.paused:
		state, style = "PAUSED at "+m.at.Format("15:04:05")+" · "+state, yellow
	}
	return []string{m.paint(console.Cut(node, m.width), bold), m.paint(console.Cut(state, m.width), style)}
}

// line lays a row out: 54 columns of numbers, and the stage in the rest.
func (m *Model) line(stage, state string, numbers ...string) string {
	width := max(12, min(m.width-54, 44))
	text := fmt.Sprintf("%-*s %-8s", width, console.Cut(stage, width), console.Cut(state, 8))
	for i, n := range numbers {
		text += fmt.Sprintf(" %*s", []int{7, 7, 6, 7, 5, 7}[i], n)
	}
	return console.Cut(text, m.width)
}

// stage is a stage's row; what is unusual has a colour.
func (m *Model) stage(s *control.StageStatus) string {
	in, out, cpu, queue := "-", "-", "-", "-"
	if r, ok := m.rates[s.Address]; ok {
		in, out, cpu = console.Count(uint64(r.In+0.5)), console.Count(uint64(r.Out+0.5)), fmt.Sprintf("%.1f%%", r.CPU)
	}
	switch s.Kind { // a source takes nothing in, a sink lets nothing out
	case "source":
		in = "-"
	case "sink":
		out, queue = "-", console.Bytes(s.QueueBytes)
	default:
		queue = console.Bytes(s.QueueBytes)
	}
	style := ""
	switch {
	case s.State != "running":
		style = red
	case m.rates[s.Address].Lost > 0:
		style = red
	case s.Lost > 0 || s.Restarts > 0:
		style = yellow
	}
	return m.paint(m.line(s.Address, s.State, in, out, console.Count(s.Lost), queue, cpu, console.Bytes(s.MemoryBytes)), style)
}

// signals are the last ones, if there is room.
func (m *Model) signals() []string {
	n := m.signalLines()
	if n == 0 {
		return nil
	}
	all := slices.Clone(m.status.Signals)
	slices.SortStableFunc(all, func(a, b control.SignalStatus) int { return b.Last.Compare(a.Last) })
	lines := []string{m.paint(console.Cut("signals", m.width), bold)}
	for _, s := range all[:n-1] {
		text := fmt.Sprintf("%7s ago  %s %s", console.Age(m.at.Sub(s.Last)), s.Stage, s.Name)
		if s.Detail != "" {
			text += ": " + s.Detail
		}
		lines = append(lines, console.Cut(text, m.width))
	}
	return lines
}
