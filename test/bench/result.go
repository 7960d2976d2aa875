package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
)

// A result is all that was measured, as it is written to result.json. Tables,
// text and pictures are made of it alone.
type result struct {
	Machine machine  `json:"machine"`
	Rounds  int      `json:"rounds"`
	Scale   int      `json:"scale"` // what the sizes of tables were divided by: 1 is the real thing
	Series  []series `json:"figures"`
}

// A series is one figure of one system.
type series struct {
	Figure string    `json:"figure"`
	At     string    `json:"at,omitempty"`
	System string    `json:"system"` // sluice, conntrackd, or kernel: its limit
	Unit   string    `json:"unit,omitempty"`
	Values []float64 `json:"values"` // one a round
	Median float64   `json:"median"`
}

func (r *result) add(system, figure, at string, v float64) {
	i := slices.IndexFunc(r.Series, func(s series) bool { return s.System == system && s.Figure == figure && s.At == at })
	if i < 0 {
		i = len(r.Series)
		r.Series = append(r.Series, series{Figure: figure, At: at, System: system, Unit: units[figure]})
	}
	s := &r.Series[i]
	s.Values = append(s.Values, v)
	s.Median = median(s.Values)
}

// median is the middle one of some values, or the mean of the middle two.
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

// least and most are the spread of the rounds.
func (s series) least() float64 { return slices.Min(s.Values) }
func (s series) most() float64  { return slices.Max(s.Values) }

// String is the median with the spread of the rounds.
func (s series) String() string {
	switch len(s.Values) {
	case 0:
		return "–"
	case 1:
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.least()), number(s.most()))
}

// grow adds how much a figure that was measured by size is at the largest size,
// as a multiple of what it is at the smallest.
func (r *result) grow(figure, from string) {
	smallest, largest := flows(smallestOne/r.Scale), flows(largestOne/r.Scale)
	for _, system := range []string{nameConntrackd, nameSluice} {
		small, large := r.find(system, from, smallest), r.find(system, from, largest)
		at := growthAt(smallestOne/r.Scale, largestOne/r.Scale)
		if ratio := large.Median / small.Median; !math.IsNaN(ratio) && !math.IsInf(ratio, 0) && len(r.find(system, figure, at).Values) == 0 {
			r.add(system, figure, at, ratio)
		}
	}
}

// finish adds what is calculated.
func (r *result) finish() {
	r.grow(figCPUGrowth, figCPUBySize)
	r.grow(figMemoryGrowth, figMemoryBySize)
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

// write writes result.json, result.md and the pictures into a folder.
func (r *result) write(folder string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("result.json: %w", err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(folder, "result.json"), append(text, '\n'), 0o644),
		os.WriteFile(filepath.Join(folder, "result.md"), []byte(r.heading()+"\n"+r.table()), 0o644),
		draw(r, folder),
	)
}

// readResult reads a result.json.
func readResult(file string) (*result, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := &result{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if r.Scale < 1 || len(r.Series) == 0 {
		return nil, fmt.Errorf("%s: no result of this benchmark", file)
	}
	return r, nil
}
