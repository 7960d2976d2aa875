package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A result is all that was measured, as it is written to result.json.
type result struct {
	Date   string   `json:"date"`
	Kernel string   `json:"kernel"`
	CPUs   int      `json:"cpus"`
	Go     string   `json:"go"`
	Rounds int      `json:"rounds"`
	Series []series `json:"figures"`
}

// A series is one figure of one system.
type series struct {
	Figure string    `json:"figure"`
	At     string    `json:"at,omitempty"`
	System string    `json:"system"` // sluice, conntrackd, or kernel: its limit
	Values []float64 `json:"values"` // one a round
	Median float64   `json:"median"`
}

func newResult(rounds int) *result {
	var u unix.Utsname
	_ = unix.Uname(&u)
	return &result{
		Date: time.Now().UTC().Format(time.DateOnly), Kernel: unix.ByteSliceToString(u.Release[:]),
		CPUs: runtime.NumCPU(), Go: runtime.Version(), Rounds: rounds,
	}
}

func (r *result) add(system, figure, at string, v float64) {
	i := slices.IndexFunc(r.Series, func(s series) bool { return s.System == system && s.Figure == figure && s.At == at })
	if i < 0 {
		i = len(r.Series)
		r.Series = append(r.Series, series{Figure: figure, At: at, System: system})
	}
	s := &r.Series[i]
	s.Values = append(s.Values, v)
	s.Median = median(s.Values)
}

func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// find returns a system's figure, or one without values.
func (r *result) find(system, figure, at string) series {
	for _, s := range r.Series {
		if s.System == system && s.Figure == figure && s.At == at {
			return s
		}
	}
	return series{Median: math.NaN()}
}

// table is the report as a Markdown table: a row for each figure that any
// system has.
func (r *result) table() string {
	var b strings.Builder
	b.WriteString("| figure | at | Sluice | conntrackd | ratio | must reach | aim | |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	type row struct{ figure, at string }
	var done []row
	for _, s := range r.Series {
		if k := (row{s.Figure, s.At}); !slices.Contains(done, k) {
			done = append(done, k)
			r.row(&b, s.Figure, s.At)
		}
	}
	return b.String()
}

func (r *result) row(b *strings.Builder, figure, at string) {
	ours, theirs, limit := r.find("sluice", figure, at), r.find("conntrackd", figure, at), r.find("kernel", figure, at)
	ratio := ours.Median / theirs.Median
	i := slices.IndexFunc(targets, func(t target) bool { return t.figure == figure && t.at == at })
	unit, must, aim, verdict := "", "", "", ""
	if i >= 0 {
		t := &targets[i]
		unit = " " + t.unit
		must, aim = t.text(t.must), t.text(t.aim)
		judged := ours.Median
		if t.ratio {
			judged = ratio
		}
		verdict = t.verdict(judged)
	}
	if len(limit.Values) > 0 {
		verdict += fmt.Sprintf(" %.0f %% of the kernel's %s", 100*ours.Median/limit.Median, number(limit.Median))
	}
	fmt.Fprintf(b, "| %s | %s | %s%s | %s%s | %s | %s | %s | %s |\n", figure, at, ours, unit, theirs, unit, number(ratio), must, aim, strings.TrimSpace(verdict))
}

func (t *target) text(v float64) string {
	if v == 0 && t.figure != "bulk lost" {
		return ""
	}
	sign := "≤ "
	if t.higher {
		sign = "≥ "
	}
	if t.ratio {
		return sign + number(v) + " ×"
	}
	return sign + number(v)
}

func (t *target) verdict(v float64) string {
	reached := func(goal float64) bool { return t.higher && v >= goal || !t.higher && v <= goal }
	switch {
	case math.IsNaN(v):
		return ""
	case t.aim != 0 && reached(t.aim):
		return "aim reached"
	case reached(t.must):
		return "reached"
	}
	return "**missed**"
}

// String is the median with the spread of the rounds.
func (s series) String() string {
	if len(s.Values) == 0 {
		return "–"
	}
	if len(s.Values) == 1 {
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(slices.Min(s.Values)), number(slices.Max(s.Values)))
}

// number writes v with three digits that count, and thousands whole.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case a == 0 || a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// write writes the result into a folder; "" means nowhere.
func (r *result) write(folder string) error {
	if folder == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		os.MkdirAll(folder, 0o755),
		os.WriteFile(filepath.Join(folder, "result.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(folder, "result.md"), []byte(r.table()), 0o644),
	)
}
