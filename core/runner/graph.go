package runner

import (
	"os"
	"slices"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plan"
	"github.com/sluice-project/sluice/core/plugin"
)

// A graph is what runs: the stages of a configuration and how they are wired.
// It never changes. A reload makes another one, in which a stage that goes on is
// the same *stage at another place.
type graph struct {
	config    *pipeline.Configuration
	plugins   Plugins
	images    images
	facts     plan.Facts
	pipelines []*line
	stages    []*stage // all, pipelines in order, each from its source down
	ports     []uint32 // netlink port ids that this node writes with
}

// A line is a pipeline of a graph.
type line struct {
	name   string
	stages []*stage
	// writeThrough: what comes here goes into the kernel without a hold cache.
	kernelSink, hold bool
}

// A place is where a stage stands in a graph, and what it is there. It never
// changes.
type place struct {
	graph      *graph
	line       *line
	conf       *pipeline.Stage
	start      plan.Start // what it is told of its neighbours and of the node
	above      *stage
	below      []*stage
	input      *edge
	outputs    []*edge // of below, in that order
	edgeNumber uint16  // of its input where the pipeline fans out, from 1; else 0
	before     before
}

// What a stage is at the moment. Two calls may see two graphs, while a reload
// goes from one to the other; it breaks off what was begun in between.
func (s *stage) at() *place            { return s.place.Load() }
func (s *stage) line() *line           { return s.at().line }
func (s *stage) conf() *pipeline.Stage { return s.at().conf }
func (s *stage) above() *stage         { return s.at().above }
func (s *stage) below() []*stage       { return s.at().below }
func (s *stage) input() *edge          { return s.at().input }
func (s *stage) outputs() []*edge      { return s.at().outputs }
func (s *stage) edgeNumber() uint16    { return s.at().edgeNumber }

func (r *Runner) graph() *graph { return r.current.Load() }

// A wiring is a graph that is being made: nothing of it is in use yet.
type wiring struct {
	*graph
	places   map[*stage]*place
	newEdges []*edge
}

// wire lays out a configuration. of returns the stage that is to stand at an
// address if there is one already; with it comes its input, and what is queued
// there.
func (r *Runner) wire(config *pipeline.Configuration, of func(address string) *stage) (*wiring, error) {
	g := &graph{config: config, plugins: r.pluginsFor(config)}
	var err error
	if g.images, err = g.plugins.imagesOf(config, r.images()); err != nil {
		return nil, err
	}
	g.facts = g.images.facts()
	w := &wiring{graph: g, places: map[*stage]*place{}}
	for _, p := range config.Pipelines {
		if err := w.addLine(r, p, of); err != nil {
			w.abandon()
			return nil, err
		}
	}
	for _, s := range w.stages {
		if conf := w.places[s].conf; conf.Kind == plugin.KindSink && conf.Traits.GetKernel() {
			s.takePorts(w.ports)
			w.ports = append(w.ports, s.ports[:]...)
		}
	}
	return w, nil
}

// addLine lays out a pipeline: a chain, and from its last filter, cache or
// source an edge to each sink.
func (w *wiring) addLine(r *Runner, p *pipeline.Pipeline, of func(string) *stage) error {
	l := &line{name: p.Name}
	var last *stage
	for i, conf := range p.Stages {
		s := of(conf.Address())
		if s == nil {
			s = newStage(r, conf)
		}
		at := &place{graph: w.graph, line: l, conf: conf, start: plan.StartOf(w.config, p, i)}
		w.places[s] = at
		l.stages = append(l.stages, s)
		l.kernelSink = l.kernelSink || conf.Kind == plugin.KindSink && conf.Traits.GetKernel()
		l.hold = l.hold || conf.Traits.GetHold()
		if last != nil {
			if err := w.connect(last, s); err != nil {
				return err
			}
		}
		if conf.Kind != plugin.KindSink {
			last = s
		}
	}
	w.pipelines = append(w.pipelines, l)
	w.stages = append(w.stages, l.stages...)
	w.number(last)
	return nil
}

// connect joins two stages by the lower one's input. A stage keeps its input for
// as long as it lives, whoever is above it.
func (w *wiring) connect(above, below *stage) error {
	var e *edge
	if now := below.at(); now != nil && now.input != nil {
		e = now.input
	} else {
		var err error
		if e, err = newEdge(below.address); err != nil {
			return err
		}
		w.newEdges = append(w.newEdges, e)
	}
	a, b := w.places[above], w.places[below]
	a.below = append(a.below, below)
	b.above, b.input = above, e
	return nil
}

// number orders and numbers the edges of the stage above the sinks, which there
// is none of if the pipeline has a source only. Those that it has already come
// first, in their order: the order of the sinks in the file means nothing.
func (w *wiring) number(last *stage) {
	for _, s := range w.pipelines[len(w.pipelines)-1].stages {
		at := w.places[s]
		if now := s.at(); now != nil && s == last {
			rank := func(b *stage) int { return (slices.Index(now.below, b) + len(now.below) + 1) % (len(now.below) + 1) }
			slices.SortStableFunc(at.below, func(a, b *stage) int { return rank(a) - rank(b) })
		}
		for i, b := range at.below {
			at.outputs = append(at.outputs, w.places[b].input)
			if len(at.below) > 1 {
				w.places[b].edgeNumber = uint16(i + 1)
			}
		}
	}
}

// install makes the graph the one that runs.
func (w *wiring) install(r *Runner) {
	for s, at := range w.places {
		if now := s.at(); now != nil && slices.Equal(now.below, at.below) {
			at.before = now.before
		} else {
			s.countBefore(at)
		}
	}
	for s, at := range w.places {
		s.place.Store(at)
	}
	if old := r.current.Swap(w.graph); old != nil {
		old.images.close()
	}
}

// abandon closes what was made for the graph.
func (w *wiring) abandon() {
	for _, e := range w.newEdges {
		e.close()
	}
	w.images.close()
}

// close closes the edges, and the programs.
func (g *graph) close() {
	g.images.close()
	for _, s := range g.stages {
		if e := s.input(); e != nil {
			e.close()
		}
	}
}

// writeThrough says whether peers' flows go into the kernel at once somewhere,
// so that the flows this node carries must be told from those it was given.
func (r *Runner) writeThrough() bool {
	return slices.ContainsFunc(r.graph().pipelines, func(l *line) bool { return l.kernelSink && !l.hold })
}

// takePorts gives a stage that writes to the kernel its netlink port ids: for
// itself, for the process that replaces it while it still runs, and for the
// process that purges for it. The kernel's own choices are process ids and
// numbers from 2³¹ up, so these are free: they hold our process id above a
// counter, and bit 30.
//
// taken are ids of others beside those that run.
func (s *stage) takePorts(taken []uint32) {
	if s.ports[0] != 0 {
		return
	}
	if g := s.runner.graph(); g != nil {
		taken = slices.Concat(taken, g.ports)
	}
	first := uint32(1)<<30 | uint32(os.Getpid())<<8
	for i := range s.ports {
		for s.ports[i] == 0 || slices.Contains(taken, s.ports[i]) {
			s.ports[i] = first | s.runner.portsTaken.Add(1)&0xff
		}
	}
}

// pluginsFor returns the plugins that a configuration finds.
func (r *Runner) pluginsFor(config *pipeline.Configuration) Plugins {
	if r.graph() == nil {
		return r.options.Plugins // also in tests, whose configurations are no files
	}
	p := r.graph().plugins
	p.Path = config.Runner.PluginPath
	return p
}

// images are those of the graph that runs, if one does.
func (r *Runner) images() images {
	if g := r.graph(); g != nil {
		return g.images
	}
	return nil
}

// facts are what a graph's stages depend on and its configuration does not say.
func (m images) facts() plan.Facts {
	f := plan.Facts{Programs: map[string]string{}}
	for name, i := range m {
		f.Programs[name] = i.path + " " + i.sum
	}
	return f
}

// facts looks which programs a configuration would start. This runner's own is what
// it is until it ends.
func (p Plugins) facts(config *pipeline.Configuration) plan.Facts {
	f := plan.Facts{Programs: map[string]string{}}
	for _, l := range config.Pipelines {
		for _, s := range l.Stages {
			name := string(s.Kind) + "-" + s.Type
			if path, _, err := p.command(s.Kind, s.Type, ""); err == nil && path != ownExecutable && f.Programs[name] == "" {
				sum, _ := confine.Sum(path)
				f.Programs[name] = path + " " + sum
			}
		}
	}
	return f
}
