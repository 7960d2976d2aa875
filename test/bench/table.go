package main

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// heading says where and how a result was measured.
func (r *result) heading() string {
	m := r.Machine
	text := fmt.Sprintf("Measured on %s: %s, %d cores, Linux %s, %s, conntrackd %s, Sluice %s. Medians of %s",
		m.Date, m.CPU, m.Cores, m.Kernel, m.Go, m.Conntrackd, m.Commit, plural(r.Rounds, "round"))
	if r.Rounds > 1 {
		text += ", least and most in brackets"
	}
	text += ".\n"
	if r.Scale != 1 {
		text += fmt.Sprintf("\n**A trial**: tables are a %s of their size, so these figures show that the benchmark works, and not how fast anything is.\n", ordinal(r.Scale))
	}
	return text
}

func plural(n int, what string) string {
	if n == 1 {
		return "one " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		switch n % 10 {
		case 1:
			suffix = "st"
		case 2:
			suffix = "nd"
		case 3:
			suffix = "rd"
		}
	}
	return fmt.Sprintf("%d%s", n, suffix)
}

// A row is one line of the report.
type row struct {
	figure, at     string
	ours, theirs   series
	limit          series
	ratio          float64 // of ours to theirs
	target         *target
	against        string // what theirs is, if it is not the same as ours
	met, aimed     bool   // what the target says is reached
	judged, toMeet bool   // there is a target and a value; it says what must be reached
}

// rows are the report: a row for each figure that any system has, and one more
// where both were measured under the ordinary scheduler too.
func (r *result) rows() (all []row) {
	goals := targets(r.Scale)
	type key struct{ figure, at string }
	var done []key
	for _, s := range r.Series {
		k := key{s.Figure, s.At}
		if slices.Contains(done, k) {
			continue
		}
		done = append(done, k)
		i := slices.IndexFunc(goals, func(t target) bool { return t.figure == s.Figure && t.at == s.At })
		var t *target
		if i >= 0 {
			t = &goals[i]
		}
		all = append(all, r.row(s.Figure, s.At, t))
		if other := r.find(nameOrdinary, s.Figure, s.At); len(other.Values) > 0 {
			ours := r.find(nameSluiceOrdinary, s.Figure, s.At)
			all = append(all, row{
				figure: s.Figure, at: s.At + ", ordinary scheduler", ours: ours, theirs: other, ratio: ours.Median / other.Median,
			})
		}
	}
	return all
}

func (r *result) row(figure, at string, t *target) row {
	w := row{figure: figure, at: at, ours: r.find(nameSluice, figure, at), limit: r.find(nameKernel, figure, at), target: t}
	other := at
	if t != nil && t.against != "" {
		other, w.against = t.against, t.against
	}
	w.theirs = r.find(nameConntrackd, figure, other)
	w.ratio = w.ours.Median / w.theirs.Median
	if t == nil {
		return w
	}
	v := w.ours.Median
	if t.ratio {
		v = w.ratio
	}
	w.judged, w.toMeet = !math.IsNaN(v), !math.IsNaN(t.must)
	w.met = t.reached(v, t.must)
	w.aimed = t.reached(v, t.aim)
	if t.ofLimit > 0 {
		w.aimed = w.ours.Median >= t.ofLimit*w.limit.Median
	}
	if t.unlost != "" {
		w.aimed = r.find(nameSluice, t.unlost, at).Median == 0
	}
	w.met = w.met || w.aimed
	return w
}

// reached tells whether v is as good as a goal; no goal is never reached.
func (t *target) reached(v, goal float64) bool {
	if t.higher {
		return v >= goal
	}
	return v <= goal
}

// missed tells whether something that must be reached is not.
func (w *row) missed() bool { return w.judged && w.toMeet && !w.met }

// verdict is the last column.
func (w *row) verdict() string {
	switch {
	case !w.judged:
		return ""
	case w.aimed:
		return "✓ aim met"
	case w.missed():
		return "✗ **missed**"
	case w.met:
		return "✓ met"
	}
	return "aim not met"
}

// table is the report as a Markdown table.
func (r *result) table() string {
	var b strings.Builder
	b.WriteString("| figure | at | unit | Sluice | conntrackd | ratio | must reach | aim | |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, w := range r.rows() {
		must, aim := "", ""
		if w.target != nil {
			must, aim = w.target.text(w.target.must), w.target.aimText()
		}
		theirs := w.theirs.String()
		if w.against != "" && len(w.theirs.Values) > 0 {
			theirs += ", " + w.against
		}
		cells := []string{w.figure, w.at, units[w.figure], w.ours.String(), theirs, number(w.ratio), must, aim, w.verdict() + w.ofLimit()}
		fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | "))
	}
	return b.String()
}

// ofLimit says how near to what the kernel allows it is.
func (w *row) ofLimit() string {
	if len(w.limit.Values) == 0 {
		return ""
	}
	share := w.ours.Median / w.limit.Median
	if math.IsNaN(share) {
		return "the kernel's: " + number(w.limit.Median)
	}
	return fmt.Sprintf(", %.0f %% of the kernel's %s", 100*share, number(w.limit.Median))
}

// text is a goal as a column.
func (t *target) text(goal float64) string {
	if math.IsNaN(goal) {
		return ""
	}
	sign, times := "≤ ", ""
	if t.higher {
		sign = "≥ "
	}
	if t.ratio {
		times = " ×"
	}
	return sign + strings.TrimRight(strings.TrimRight(fmt.Sprintf("%.3f", goal), "0"), ".") + times
}

func (t *target) aimText() string {
	switch {
	case t.ofLimit > 0:
		return fmt.Sprintf("≥ %.0f %% of the kernel's", 100*t.ofLimit)
	case t.unlost != "":
		return "the generator's limit"
	}
	return t.text(t.aim)
}

// missedList says by how much targets are missed, a line each.
func (r *result) missedList() string {
	var b strings.Builder
	for _, w := range r.rows() {
		if !w.missed() {
			continue
		}
		v, what := w.ours.Median, units[w.figure]
		if w.target.ratio {
			v, what = w.ratio, "× conntrackd's"
		}
		fmt.Fprintf(&b, "- **%s**: %s %s, and must be %s.\n", w.title(), number(v), what, w.target.text(w.target.must))
	}
	if b.Len() == 0 {
		return "No target is missed.\n"
	}
	return b.String()
}

// title names a row.
func (w *row) title() string {
	if w.at == "" {
		return w.figure
	}
	return w.figure + ", " + w.at
}
