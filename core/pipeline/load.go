package pipeline

import (
	"cmp"
	"context"
	"os"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/trust"
)

// Options says what to load.
type Options struct {
	// Paths are files, and directories of which every *.hcl is read in the
	// order of their names (but not *.test.hcl, *.lock.hcl, nor hidden files). Together
	// they are one configuration.
	Paths []string

	// Texts are read after the files, by the names that diagnostics give them.
	// They are configurations that a program has made.
	Texts map[string][]byte

	// Values of variables: files of assignments (HCL, or JSON if the name ends
	// in .json), and "name=value" as in -var. Later ones win, -var wins over
	// files, and files win over SLUICE_VAR_name in the environment.
	VariableFiles []string
	Variables     []string

	// Environ is the environment, as os.Environ returns it. Nil: this process's.
	Environ []string

	// Catalog returns the plugins that there are once the runner block is
	// known, since that says where they are looked for. It is called once. If
	// the block is wrong it gets DefaultRunner, so that stages are checked all
	// the same.
	Catalog func(Runner) (Catalog, error)
}

// Files are the files that were read, and what stands for the values of -var,
// by the names that ranges give.
type Files map[string]*hcl.File

// Load reads, evaluates and checks a configuration. It returns nil and at least
// one error among the diagnostics, or the configuration, perhaps with warnings.
// Diagnostics are ordered by file and line.
func Load(ctx context.Context, o Options) (*Configuration, Files, hcl.Diagnostics) {
	l := newLoader(ctx, o)
	sources, diags := readSources(o.Paths, o.Texts)
	l.add(diags)
	c := l.load(sources)
	return l.result(c)
}

// A loader is the state of one Load.
type loader struct {
	ctx     context.Context
	options Options
	files   Files
	diags   hcl.Diagnostics
	scope   *scope
	plugins *plugins

	policy     trust.Policy
	lockBroken bool // there is a lock file and it can't be read
	// runnerBroken: something is wrong with the runner block, and others' plugins
	// are not asked, since it may demand signatures, and has their folder.
	runnerBroken bool
	bundled      func(plugin.Kind, string) bool
}

func newLoader(ctx context.Context, o Options) *loader {
	if o.Environ == nil {
		o.Environ = os.Environ()
	}
	return &loader{ctx: ctx, options: o, files: Files{}, scope: newScope(o.Environ)}
}

func (l *loader) add(diags hcl.Diagnostics) { l.diags = append(l.diags, diags...) }

func (l *loader) result(c *Configuration) (*Configuration, Files, hcl.Diagnostics) {
	for _, d := range l.diags {
		suggestFunction(d)
	}
	slices.SortStableFunc(l.diags, func(a, b *hcl.Diagnostic) int {
		p, q := placeOf(a), placeOf(b)
		return cmp.Or(cmp.Compare(p.Filename, q.Filename), cmp.Compare(p.Start.Byte, q.Start.Byte), cmp.Compare(a.Detail, b.Detail))
	})
	if l.diags.HasErrors() {
		c = nil
	}
	return c, l.files, l.diags
}

// placeOf returns where a diagnostic points: nowhere sorts first.
func placeOf(d *hcl.Diagnostic) hcl.Range {
	if d.Subject == nil {
		return hcl.Range{}
	}
	return *d.Subject
}

// rootSchema is what a file may hold.
var rootSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: "runner"},
	{Type: "variable", LabelNames: []string{"name"}},
	{Type: "locals"},
	{Type: "pipeline", LabelNames: []string{"name"}},
}}

// load parses the sources and does the rest in the order in which things
// depend on each other.
func (l *loader) load(sources []source) *Configuration {
	blocks := l.parse(sources)
	if l.diags.HasErrors() && len(blocks) == 0 {
		return nil
	}
	l.loadVariables(blocks["variable"])
	l.loadLocals(blocks["locals"])

	c := &Configuration{Runner: l.loadRunner(blocks["runner"])}
	catalog, err := l.options.Catalog(c.Runner)
	if err != nil {
		l.add(hcl.Diagnostics{failure("No plugins", "The plugins can't be asked: "+err.Error()+".", nil)})
		return nil
	}
	l.bundled = catalog.Bundled
	l.loadTrust(&c.Runner)
	l.plugins = newPlugins(l.ctx, catalog, c.Runner.PluginPath)
	drafts := l.loadPipelines(blocks["pipeline"])
	l.add(checkPipelines(drafts))
	for _, d := range drafts {
		c.Pipelines = append(c.Pipelines, d.pipeline())
	}
	return c
}

// parse returns the blocks of all files by their type. After an error of
// syntax nothing is returned: what else is wrong then would be guesswork.
func (l *loader) parse(sources []source) map[string]hcl.Blocks {
	var bodies []hcl.Body
	for _, s := range sources {
		file, diags := hclsyntax.ParseConfig(s.bytes, s.name, hcl.InitialPos)
		l.files[s.name] = file
		l.add(diags)
		bodies = append(bodies, file.Body)
	}
	if l.diags.HasErrors() {
		return nil
	}
	blocks := map[string]hcl.Blocks{}
	for _, body := range bodies {
		content, diags := body.Content(rootSchema)
		l.add(diags)
		for _, b := range content.Blocks {
			blocks[b.Type] = append(blocks[b.Type], b)
		}
	}
	if len(blocks["pipeline"]) == 0 && !l.diags.HasErrors() {
		l.add(hcl.Diagnostics{failure("No pipeline",
			"There is no pipeline in what was read. Write one: a block pipeline \"NAME\" with a source and a sink.", nil)})
	}
	return blocks
}
