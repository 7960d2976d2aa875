package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	vgdraw "gonum.org/v1/plot/vg/draw"
)

// panel is an empty panel with a title and a unit.
func panel(title, unit string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.Y.Label.Text = title, unit
	p.Title.Padding = vg.Points(6)
	p.Y.Padding, p.X.Padding = vg.Points(2), vg.Points(2)
	p.Legend.Top, p.Legend.ThumbnailWidth, p.Legend.TextStyle.Font.Size = true, vg.Points(18), 9
	p.X.Label.TextStyle.Font.Size, p.Y.Label.TextStyle.Font.Size = 10, 10
	p.X.Tick.Label.Font.Size, p.Y.Tick.Label.Font.Size = 9, 9
	p.X.Tick.Marker, p.Y.Tick.Marker = shortTicks{}, shortTicks{}
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	p.Add(grid)
	return p
}

// A point is a series at a number.
type point struct {
	x float64
	series
}

// along are a system's series of a figure, by the number that "at" begins with.
func (r *result) along(system, figure string) (all []point) {
	for _, s := range r.Series {
		digits, _, _ := strings.Cut(s.At, " ")
		if x, err := strconv.ParseFloat(digits, 64); err == nil && s.System == system && s.Figure == figure {
			all = append(all, point{x, s})
		}
	}
	return all
}

// points are what is drawn: medians, with the spread as an error.
type points []point

func (p points) Len() int                { return len(p) }
func (p points) XY(i int) (x, y float64) { return p[i].x, p[i].Median }
func (p points) YError(i int) (low, high float64) {
	return p[i].Median - p[i].least(), p[i].most() - p[i].Median
}

// lines adds a line for each system that has the figure, and tells whether
// there was any.
func lines(p *plot.Plot, r *result, figure string) bool {
	found := false
	for _, l := range looks {
		all := points(r.along(l.system, figure))
		if len(all) == 0 {
			continue
		}
		line, dots, err := plotter.NewLinePoints(all)
		if err != nil {
			continue
		}
		found = true
		line.Color, line.Width = l.color, vg.Points(2)
		dots.Color, dots.Shape, dots.Radius = l.color, vgdraw.CircleGlyph{}, vg.Points(3)
		p.Add(line, dots)
		p.Legend.Add(l.label, line, dots)
		spread(p, all, l)
	}
	p.Y.Min = 0
	p.Y.Max *= 1.4 // room for the legend
	return found
}

// spread adds the least and the most of several rounds.
func spread(p *plot.Plot, all points, l look) {
	if len(all[0].Values) < 2 {
		return
	}
	if bars, err := plotter.NewYErrorBars(all); err == nil {
		bars.Color = l.color
		p.Add(bars)
	}
}

func cpuPanels(r *result) (all []*plot.Plot) {
	for _, figure := range []string{figSender, figReceiver} {
		p := panel(figure, units[figure])
		p.X.Label.Text = "events a second"
		p.X.Min = 0
		if lines(p, r, figure) {
			p.X.Min = 0
			all = append(all, p)
		}
	}
	return all
}

func growthPanels(r *result) (all []*plot.Plot) {
	for _, figure := range []string{figCPUBySize, figMemoryBySize} {
		p := panel(figure, units[figure])
		p.X.Label.Text = "flows"
		if !lines(p, r, figure) {
			continue
		}
		p.X.Scale, p.X.Tick.Marker = plot.LogScale{}, plot.ConstantTicks(sizeTicks(r, figure))
		all = append(all, p)
	}
	return all
}

// sizeTicks are the sizes that were measured, as in 10k and 2M.
func sizeTicks(r *result, figure string) (ticks []plot.Tick) {
	seen := map[float64]bool{}
	for _, l := range looks {
		for _, pt := range r.along(l.system, figure) {
			if !seen[pt.x] {
				seen[pt.x] = true
				ticks = append(ticks, plot.Tick{Value: pt.x, Label: short(pt.x)})
			}
		}
	}
	return ticks
}

// shortTicks are the usual ticks with short numbers.
type shortTicks struct{}

func (shortTicks) Ticks(least, most float64) []plot.Tick {
	ticks := plot.DefaultTicks{}.Ticks(least, most)
	for i, t := range ticks {
		if t.Label != "" {
			ticks[i].Label = short(t.Value)
		}
	}
	return ticks
}

// short writes a number for an axis.
func short(v float64) string {
	switch {
	case v >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 4, 64) + "M"
	case v >= 1e3:
		return strconv.FormatFloat(v/1e3, 'g', 4, 64) + "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64)
}

// barPanels are a panel a figure: each has a unit of its own.
func barPanels(r *result) (all []*plot.Plot) {
	big, translated := flows(bigTable/r.Scale), flows(bigSNAT/r.Scale)+withSNAT
	for _, b := range []struct{ figure, at, better string }{
		{figCommit, big, "more is better"},
		{figCommit, translated, "more is better"},
		{figWriteThrough, "", "more is better"},
		{figRate, "", "more is better"},
		{figBulk, big, "less is better"},
		{figMemory, big, "less is better"},
	} {
		w := row{figure: b.figure, at: b.at}
		p := panel(w.title(), units[b.figure]+", "+b.better)
		if bars(p, r, b.figure, b.at) {
			all = append(all, p)
		}
	}
	return all
}

// bars adds a bar for each system that has the figure.
func bars(p *plot.Plot, r *result, figure, at string) bool {
	var names []string
	for _, l := range looks {
		s := r.find(l.system, figure, at)
		if len(s.Values) == 0 {
			continue
		}
		x := float64(len(names))
		bar, err := plotter.NewBarChart(plotter.Values{s.Median}, vg.Points(38))
		if err != nil {
			continue
		}
		bar.XMin, bar.Color, bar.LineStyle.Width = x, l.color, 0
		p.Add(bar)
		spread(p, points{{x, s}}, look{color: plotter.DefaultLineStyle.Color})
		names = append(names, fmt.Sprintf("%s\n%s", l.short, number(s.Median)))
	}
	if len(names) == 0 {
		return false
	}
	p.NominalX(names...)
	p.X.Min, p.X.Max, p.Y.Min = -0.6, float64(len(names))-0.4, 0
	p.Y.Max *= 1.1
	return true
}

// delayPanels are a panel a condition, on a logarithmic scale: a stroke from
// the median to the 99th percentile.
func delayPanels(r *result) (all []*plot.Plot) {
	for _, at := range []string{atQuiet, atLoad} {
		p := panel("delay, "+at+": p50 to p99", "ms")
		if strokes(p, r, at) {
			all = append(all, p)
		}
	}
	return all
}

func strokes(p *plot.Plot, r *result, at string) bool {
	var names []string
	low, high := math.Inf(1), 0.0
	add := func(l look, label, at string) {
		half, most := r.find(l.system, figP50, at), r.find(l.system, figP99, at)
		if len(half.Values) == 0 || len(most.Values) == 0 || half.Median <= 0 || most.Median <= 0 {
			return
		}
		x := float64(len(names))
		line, dots, err := plotter.NewLinePoints(plotter.XYs{{X: x, Y: half.Median}, {X: x, Y: most.Median}})
		if err != nil {
			return
		}
		line.Color, line.Width = l.color, vg.Points(7)
		dots.Color, dots.Shape, dots.Radius = l.color, vgdraw.CircleGlyph{}, vg.Points(5)
		p.Add(line, dots)
		low, high = min(low, half.Median), max(high, most.Median)
		names = append(names, fmt.Sprintf("%s\n%s–%s", label, number(half.Median), number(most.Median)))
	}
	for _, l := range looks {
		add(l, l.short, at)
		if l.system == nameSluice {
			add(l, "Sluice, 0s", at+notWaiting)
		}
	}
	if len(names) == 0 {
		return false
	}
	p.NominalX(names...)
	p.X.Tick.Label.Font.Size = 8
	p.X.Min, p.X.Max = -0.6, float64(len(names))-0.4
	p.Y.Scale, p.Y.Tick.Marker = plot.LogScale{}, plot.LogTicks{Prec: -1}
	p.Y.Min, p.Y.Max = math.Pow(10, math.Floor(math.Log10(low))), math.Pow(10, math.Ceil(math.Log10(high)))
	return true
}
