package picture

import (
	"fmt"
	"strings"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/rates"
)

// A Graph is what a picture shows.
type Graph struct {
	Title     string     `json:"title"` // of the whole, for readers who can't see it
	Pipelines []Pipeline `json:"pipelines"`
}

// A Pipeline is a source, then filters and caches, then sinks.
type Pipeline struct {
	Name   string  `json:"name"`
	Note   string  `json:"note,omitempty"` // beside the name
	Stages []Stage `json:"stages"`
}

// A Stage is a box.
type Stage struct {
	Address string   `json:"address"` // as in local.cache.memory; unique
	Kind    string   `json:"kind"`
	Name    string   `json:"name"` // its type, or its own name
	Notes   []string `json:"notes,omitempty"`
	Trouble bool     `json:"trouble,omitempty"` // it is drawn as broken
	In      string   `json:"in,omitempty"`      // what passes the edge into it; "" draws a bare edge
	Detail  string   `json:"detail,omitempty"`  // what a pointer that rests on it shows; "" is the address
	Link    string   `json:"-"`                 // where a click leads; "" is nowhere
}

const (
	sink         = "sink"
	stateRunning = "running"
)

// edges calls each for every edge of a pipeline: between neighbours, and from
// the last stage that is no sink to each sink.
func (p *Pipeline) edges(each func(from, to int)) {
	last := 0
	for i := range p.Stages {
		if i > 0 {
			each(last, i)
		}
		if p.Stages[i].Kind != sink {
			last = i
		}
	}
}

// name is a stage's name within its pipeline: what follows pipeline and kind.
func name(address string) string {
	parts := strings.SplitN(address, ".", 3)
	return parts[len(parts)-1]
}

// Configured is the graph of a configuration.
func Configured(c *pipeline.Configuration) *Graph {
	g := &Graph{Title: "Pipelines of " + c.Runner.Name}
	for _, p := range c.Pipelines {
		one := Pipeline{Name: p.Name}
		for _, s := range p.Stages {
			stage := Stage{Address: s.Address(), Kind: string(s.Kind), Name: s.Name}
			if s.Name != s.Type {
				stage.Notes = []string{s.Type}
			}
			one.Stages = append(one.Stages, stage)
		}
		g.Pipelines = append(g.Pipelines, one)
	}
	return g
}

// Running is the graph of a node as it is. Without rates (nil) edges are bare.
func Running(s *control.Status, r rates.Rates) *Graph {
	g := &Graph{Title: "Pipelines of " + s.Node}
	for _, p := range s.Pipelines {
		one := Pipeline{Name: p.Name}
		for i := range p.Stages {
			one.Stages = append(one.Stages, running(&p.Stages[i], r))
		}
		g.Pipelines = append(g.Pipelines, one)
	}
	return g
}

func running(s *control.StageStatus, r rates.Rates) Stage {
	stage := Stage{Address: s.Address, Kind: s.Kind, Name: name(s.Address), Trouble: s.State != stateRunning}
	stage.Notes = append(stage.Notes, s.State)
	rate, known := r[s.Address]
	if known {
		if s.State == stateRunning {
			stage.Notes[0] += fmt.Sprintf(" · %.1f %% CPU", rate.CPU)
		}
		if s.Kind != "source" {
			stage.In = PerSecond(rate.In)
		}
	}
	if s.Lost > 0 {
		stage.Notes = append(stage.Notes, fmt.Sprintf("%d lost", s.Lost))
		stage.Trouble = stage.Trouble || rate.Lost > 0
	}
	stage.Detail = fmt.Sprintf("%s: %s, process %d, %d events in, %d out, %d lost, %d restarts",
		s.Address, s.State, s.PID, s.EventsIn, s.EventsOut, s.Lost, s.Restarts)
	if s.LastError != "" {
		stage.Detail += "; " + s.LastError
	}
	return stage
}

// PerSecond writes a rate in at most seven characters: 0/s, 0.5/s, 12/s,
// 1.5k/s, 230k/s, 1.2M/s.
func PerSecond(v float64) string {
	switch {
	case v <= 0:
		return "0/s"
	case v < 9.95:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + "/s"
	case v < 999.5:
		return fmt.Sprintf("%.0f/s", v)
	case v < 99950:
		return fmt.Sprintf("%.1fk/s", v/1e3)
	case v < 999500:
		return fmt.Sprintf("%.0fk/s", v/1e3)
	}
	return fmt.Sprintf("%.1fM/s", v/1e6)
}
