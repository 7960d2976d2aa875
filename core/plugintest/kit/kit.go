package kit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/core/runner"
)

// Options say what to check.
type Options struct {
	Path string      // of the executable
	Name string      // for the report; "": the path's last element
	Args []string    // with args[0]; nil: the path
	Kind plugin.Kind // that its file's name says; "": any
	Type string      // of a Kind

	// Block is what stands within the stage's block in a pipeline, and BlockName
	// its file's name for diagnostics.
	Block     []byte
	BlockName string

	// Confined has it run as a vendor's plugin does in a pipeline: with what the
	// block's grant block says, and no more.
	Confined bool

	// Kernel allows a sink that changes the kernel's table to be fed: what the kit
	// makes up then goes there.
	Kernel bool

	Patience time.Duration // the longest any step but a start may take; 0: DefaultPatience
	Only     []string      // names of checks to run, without those that they follow; none: all
	Log      *slog.Logger  // what the plugin writes; nil: nowhere
	Progress func(Result)  // called as each check ends; may be nil
}

// DefaultPatience is what a runner has: it kills a stage that does not read its
// input for so long.
const DefaultPatience = 10 * time.Second

// ErrKernel says that a check would change the kernel's table.
var ErrKernel = errors.New("the plugin changes the kernel's table of flows, and would put the kit's there")

// A BlockError says that the block that was given does not fit the plugin.
type BlockError struct {
	Files       pipeline.Files
	Diagnostics hcl.Diagnostics
}

func (e *BlockError) Error() string {
	return "the block for the plugin is wrong: " + e.Diagnostics.Error()
}

// Outcome is how a check ended.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "pass"
	Failed  Outcome = "fail"
	Skipped Outcome = "skip"
)

// A Result is one check's.
type Result struct {
	Name    string        `json:"name"`
	Claim   string        `json:"claim"` // what a conforming plugin does
	Outcome Outcome       `json:"outcome"`
	Detail  string        `json:"detail,omitempty"` // what it does instead, or why the check was skipped
	Elapsed time.Duration `json:"elapsed_ns"`
}

// A Report is what Check found.
type Report struct {
	Name         string        `json:"name"`
	Path         string        `json:"path"`
	Kind         string        `json:"kind,omitempty"`
	Type         string        `json:"type,omitempty"`
	Summary      string        `json:"summary,omitempty"`
	BatchVersion uint32        `json:"batch_version,omitempty"`
	Protocol     int           `json:"protocol,omitempty"`
	Conforms     bool          `json:"conforms"`
	Results      []Result      `json:"results"`
	Elapsed      time.Duration `json:"elapsed_ns"`
}

// Count returns how many checks ended so.
func (r *Report) Count(o Outcome) (n int) {
	for _, one := range r.Results {
		if one.Outcome == o {
			n++
		}
	}
	return n
}

// A check is one thing that every plugin of some kinds does.
type check struct {
	name, claim string
	kinds       []plugin.Kind // none: all
	needs       string        // the check without which this one says nothing
	run         func(*session) error
}

var (
	flowing = []plugin.Kind{plugin.KindFilter, plugin.KindCache, plugin.KindSink} // they read an edge
	passing = []plugin.Kind{plugin.KindFilter, plugin.KindCache}                  // they read one and write one
	filters = []plugin.Kind{plugin.KindFilter}
	caches  = []plugin.Kind{plugin.KindCache}
	sources = []plugin.Kind{plugin.KindSource}
	sinks   = []plugin.Kind{plugin.KindSink}
)

// checks are all, in the order in which they run.
var checks = []check{
	{"handshake", "starts, shakes hands and describes itself as its file's name says", nil, "", (*session).handshake},
	{"schema", "describes a block that a pipeline can hold, the same each time", nil, "handshake", (*session).schema},
	{"configure", "accepts its configuration, and absent and null attributes as defaults", nil, "handshake", (*session).configure},
	{"refuse", "refuses a bad configuration with a diagnostic that points at the attribute", nil, "handshake", (*session).refuse},
	{"early", "answers calls that come too early with an error and lives on", nil, "handshake", (*session).early},
	{"data", "takes batches, sends on whole batches of what it was given, and ends with its input", flowing, "configure", (*session).data},
	{"order", "keeps the order of events", filters, "data", (*session).order},
	{"destroy", "passes the end of every flow that it passed before", filters, "data", (*session).destroy},
	{"attributes", "keeps attributes that it does not know", passing, "data", (*session).attributes},
	{"numbers", "counts what it reads and sends", flowing, "data", (*session).numbers},
	{"marks", "passes the marks of a replay and lowers the end's count by what it dropped", filters, "data", (*session).passMarks},
	{"sweep", "consumes the marks of a replay, sweeps what it does not name, and reports its end", caches, "data", (*session).sweep},
	{"report", "reports the end of a replay that reached it", sinks, "data", (*session).report},
	{"replay", "replays what it holds between two marks that count right", caches, "data", (*session).replay},
	{"hold", "sends nothing before a commit if it holds", caches, "data", (*session).hold},
	{"source", "replays when asked, and ends when drained", sources, "configure", (*session).source},
	{"commands", "carries out the commands that it names and refuses others", nil, "configure", (*session).commands},
	{"malformed", "refuses what is no batch, counts it, raises gap, and goes on", flowing, "data", (*session).malformed},
	{"backpressure", "waits while nobody reads what it sends, answers meanwhile, and loses nothing", passing, "data", (*session).backpressure},
	{"fan-out", "is not held up by one of several outputs that is full", passing, "data", (*session).fanOut},
	{"signals", "ends by its input, not by TERM, INT or HUP", nil, "configure", (*session).signals},
	{"crash", "goes on with what waits in its input when it was killed and is started again", flowing, "data", (*session).crash},
	{"lifeline", "ends when its runner is gone", nil, "configure", (*session).lifeline},
	{"memory", "does not grow while the same flows pass again and again", flowing, "data", (*session).memory},
	{"log", "writes no more to its log than a runner takes", nil, "handshake", (*session).log},
}

// Names returns the names of all checks.
func Names() (names []string) {
	for _, c := range checks {
		names = append(names, c.name)
	}
	return names
}

// A CheckInfo is what is told of a check.
type CheckInfo struct {
	Name  string
	Claim string   // what a conforming plugin does
	Kinds []string // of plugins that it is for; none: all
}

// Checks lists all checks.
func Checks() (all []CheckInfo) {
	for _, c := range checks {
		info := CheckInfo{Name: c.name, Claim: c.claim}
		for _, k := range c.kinds {
			info.Kinds = append(info.Kinds, string(k))
		}
		all = append(all, info)
	}
	return all
}

// skip is the error of a check that does not apply.
type skip string

func (s skip) Error() string { return string(s) }

// A session is one run of the kit.
type session struct {
	options     Options
	ctx         context.Context
	description *stagepb.Description
	config      []byte
	traits      *stagepb.Traits
	events      []identity // of the data check: what passed
	base        runner.ProbeConfig
	lines       uint64 // of its log that were too many, in all
}

// Check runs the checks. The report is nil if the executable can't be checked at
// all: it is not there, the block does not fit it (*BlockError), or ErrKernel.
func Check(ctx context.Context, o Options) (*Report, error) {
	if o.Patience == 0 {
		o.Patience = DefaultPatience
	}
	for _, name := range o.Only {
		if !slices.Contains(Names(), name) {
			return nil, fmt.Errorf("there is no check %q", name)
		}
	}
	if info, err := os.Stat(o.Path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return nil, fmt.Errorf("%s is no executable file", o.Path)
	}
	base, err := o.probe(ctx)
	if err != nil {
		return nil, err
	}
	s, r, begun := &session{options: o, ctx: ctx, base: base}, &Report{Name: cmp.Or(o.Name, filepath.Base(o.Path)), Path: o.Path, Conforms: true}, time.Now()
	for _, c := range checks {
		if c.name == "schema" && s.description != nil {
			if err := s.loadBlock(); err != nil {
				return nil, err
			}
		}
		if !s.applies(c) || ctx.Err() != nil {
			continue
		}
		r.add(s.run(c, r.Results), o)
		if s.description == nil {
			break // it is no plugin: there is nothing more to say
		}
	}
	if d := s.description; d != nil {
		r.Kind, r.Type, r.Summary, r.BatchVersion, r.Protocol = d.Kind, d.Type, d.Summary, d.BatchVersion, plugin.ProtocolVersion
	}
	r.Elapsed = time.Since(begun)
	return r, ctx.Err()
}

func (r *Report) add(one Result, o Options) {
	if len(o.Only) > 0 && !slices.Contains(o.Only, one.Name) && one.Outcome != Failed {
		return // it ran because others need it
	}
	r.Results = append(r.Results, one)
	r.Conforms = r.Conforms && one.Outcome != Failed
	if o.Progress != nil {
		o.Progress(one)
	}
}

func (s *session) applies(c check) bool {
	if len(c.kinds) > 0 && (s.description == nil || !slices.Contains(c.kinds, plugin.Kind(s.description.Kind))) {
		return false
	}
	if len(s.options.Only) == 0 || slices.Contains(s.options.Only, c.name) {
		return true
	}
	return c.name == "handshake" || c.name == "data" && slices.ContainsFunc(s.options.Only, judgesData)
}

// judgesData says whether a check looks at what the check data let pass.
func judgesData(name string) bool { return name == "order" || name == "destroy" }

// run runs one check, unless what it needs has failed.
func (s *session) run(c check, before []Result) Result {
	r := Result{Name: c.name, Claim: c.claim, Outcome: Passed}
	for _, b := range before {
		if b.Name == c.needs && b.Outcome != Passed {
			r.Outcome, r.Detail = Skipped, "the check "+c.needs+" did not pass"
			return r
		}
	}
	begun := time.Now()
	err := c.run(s)
	r.Elapsed = time.Since(begun)
	var why skip
	switch {
	case errors.As(err, &why):
		r.Outcome, r.Detail = Skipped, string(why)
	case err != nil:
		r.Outcome, r.Detail = Failed, err.Error()
	}
	return r
}

// probe says how the plugin is started.
func (s *session) probe(outputs int) runner.ProbeConfig {
	kind := plugin.KindFilter
	if s.description != nil {
		kind = plugin.Kind(s.description.Kind)
	}
	if kind == plugin.KindSink {
		outputs = 0
	}
	c := s.base
	c.Input, c.Outputs = kind != plugin.KindSource, outputs
	return c
}

// probe says how the plugin is started, whatever it is.
func (o *Options) probe(ctx context.Context) (runner.ProbeConfig, error) {
	c := runner.ProbeConfig{Path: o.Path, Args: o.Args, Kind: o.Kind, Type: o.Type, Log: o.Log}
	if !o.Confined {
		return c, nil
	}
	grant, files, diags := pipeline.LoadGrant(ctx, cmp.Or(o.BlockName, "block"), o.Block)
	if diags.HasErrors() {
		return c, &BlockError{files, diags}
	}
	return c.Confined(grant)
}

// launch starts a process that is not a stage yet.
func (s *session) launch() (*Stage, error) {
	stage, err := NewStage(s.probe(1), s.options.Patience)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(s.ctx, max(s.options.Patience, startPatience))
	defer cancel()
	d, err := stage.Launch(ctx)
	if err != nil {
		stage.Close()
		return nil, err
	}
	if s.description == nil {
		s.description = d
	}
	return stage, nil
}

// begin starts the plugin as a stage with some outputs.
func (s *session) begin(outputs int) (*Stage, error) {
	return s.beginWith(outputs, &stagepb.StartRequest{})
}

func (s *session) beginWith(outputs int, r *stagepb.StartRequest) (*Stage, error) {
	stage, err := NewStage(s.probe(outputs), s.options.Patience)
	if err != nil {
		return nil, err
	}
	if err := stage.Run(s.config, s.request(r)); err != nil {
		stage.Close()
		return nil, err
	}
	return stage, nil
}

// request fills in what every stage is told.
func (s *session) request(r *stagepb.StartRequest) *stagepb.StartRequest {
	r.Node, r.Stage, r.DropOwn = "check", "check."+s.description.Kind+"."+s.description.Type, true
	return r
}

// end closes a stage and keeps how much of its log was too much.
func (s *session) end(stage *Stage) {
	s.lines += stage.DroppedLines()
	stage.Close()
}

// collected begins a stage whose one output is read.
func (s *session) collected() (*Stage, error) {
	stage, err := s.begin(1)
	if err == nil && plugin.Kind(s.description.Kind) != plugin.KindSink {
		stage.Collect(0)
	}
	return stage, err
}
