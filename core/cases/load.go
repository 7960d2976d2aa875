package cases

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
)

// Suffix ends the names of files of tests.
const Suffix = ".test.hcl"

// A File is one file of tests.
type File struct {
	Name      string   // as diagnostics show it
	Pipelines []string // files, and directories, of the pipelines that it is about
	Variables []string // their variables, each NAME=VALUE
	Tests     []*Test
}

// A Test is a test block.
type Test struct {
	Name  string
	Range hcl.Range // of the block's header

	Stage, Pipeline string    // what is tested: one of the two
	Subject         hcl.Range // where that stands

	Steps []*Step
}

// A Step feeds events, does something, and then states what came out since the step
// before.
type Step struct {
	Name   string
	Range  hcl.Range
	Inputs []*Input
	Role   string // "primary": hold caches are committed
	Replay string // the stage, a cache, that is to replay
	Acts   hcl.Range
	Expect []*Expect
}

// An Input is what is fed.
type Input struct {
	Range     hcl.Range
	Header    flow.Header
	Events    []flow.Event
	Recording string // the file of one
	Whole     bool   // the events are a replay: all that there is
	Together  bool   // they come in one batch, rather than in one each
}

// An Expect states what must have come out.
type Expect struct {
	Range    hcl.Range
	After    string // the stage whose output it is; "": what reaches the sinks
	Cache    string // instead: what this cache holds
	Subject  hcl.Range
	Events   []Line // in this order
	HasLines bool
	Absent   []Line // nothing like these
	AnyOrder bool
	Others   bool // more may come out than is stated
	Count    int  // -1: not stated
	Numbers  []Number
}

// A Line is what a line of text states of an event.
type Line struct {
	flow.Text
	Source string // as it is written
	Range  hcl.Range
}

// A Number is a statistic of a stage, and what it must be.
type Number struct {
	Stage, Name string
	Value       uint64
}

// Find returns the files of tests that paths name: files, and those in directories.
func Find(paths []string) (files []string, err error) {
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		found := []string{path}
		if info.IsDir() {
			if found, err = filepath.Glob(filepath.Join(escaped(path), "*"+Suffix)); err != nil {
				return nil, err
			}
			if len(found) == 0 {
				return nil, fmt.Errorf("%s: a directory without files named *%s", path, Suffix)
			}
		} else if !strings.HasSuffix(path, Suffix) {
			return nil, fmt.Errorf("%s: a file of tests is named *%s", path, Suffix)
		}
		for _, one := range found {
			if !slices.Contains(files, one) {
				files = append(files, one)
			}
		}
	}
	return files, nil
}

// escaped keeps Glob from taking a directory's name for a pattern.
func escaped(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

var fileSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "pipelines"}, {Name: "variables"}},
	Blocks:     []hcl.BlockHeaderSchema{{Type: "test", LabelNames: []string{"name"}}},
}

var actSchema = []hcl.AttributeSchema{{Name: "role"}, {Name: "replay"}}

var actBlocks = []hcl.BlockHeaderSchema{{Type: "input"}, {Type: "expect"}}

var testSchema = &hcl.BodySchema{
	Attributes: append([]hcl.AttributeSchema{{Name: "stage"}, {Name: "pipeline"}}, actSchema...),
	Blocks:     append([]hcl.BlockHeaderSchema{{Type: "step", LabelNames: []string{"name"}}}, actBlocks...),
}

var stepSchema = &hcl.BodySchema{Attributes: actSchema, Blocks: actBlocks}

var inputSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "events"}, {Name: "recording"}, {Name: "origin"}, {Name: "owner"}, {Name: "replay"}, {Name: "together"},
}}

var expectSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "events"}, {Name: "absent"}, {Name: "any_order"}, {Name: "others"}, {Name: "count"},
	{Name: "after"}, {Name: "cache"}, {Name: "statistics"},
}}

// Load reads a file of tests. It returns nil and at least one error among the
// diagnostics, or the tests.
func Load(name string) (*File, *hcl.File, hcl.Diagnostics) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, hcl.Diagnostics{{Severity: hcl.DiagError, Summary: "Unreadable file", Detail: "The tests can't be read: " + err.Error() + "."}}
	}
	file, diags := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	if diags.HasErrors() {
		return nil, file, diags
	}
	l := &loader{dir: filepath.Dir(name), text: text, context: pipeline.Expressions(filepath.Dir(name))}
	f := l.file(name, file.Body)
	if l.diags.HasErrors() {
		f = nil
	}
	return f, file, l.diags
}

// A loader is the state of one Load.
type loader struct {
	dir     string
	text    []byte
	context *hcl.EvalContext
	diags   hcl.Diagnostics
}

func (l *loader) fail(r hcl.Range, summary, format string, args ...any) {
	l.diags = append(l.diags, &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &r})
}

func (l *loader) content(body hcl.Body, schema *hcl.BodySchema) *hcl.BodyContent {
	content, diags := body.Content(schema)
	l.diags = append(l.diags, diags...)
	return content
}

func (l *loader) file(name string, body hcl.Body) *File {
	f := &File{Name: name}
	content := l.content(body, fileSchema)
	l.value(content.Attributes["pipelines"], &f.Pipelines)
	var variables map[string]string
	l.value(content.Attributes["variables"], &variables)
	for name, value := range variables {
		f.Variables = append(f.Variables, name+"="+value)
	}
	slices.Sort(f.Variables)
	for i, path := range f.Pipelines {
		f.Pipelines[i] = l.path(path)
	}
	if content.Attributes["pipelines"] == nil {
		f.Pipelines = []string{l.besides(name)}
	}
	seen := map[string]bool{}
	for _, b := range content.Blocks {
		t := l.test(b)
		if seen[t.Name] {
			l.fail(b.DefRange, "Duplicate test", "There is a test %q already.", t.Name)
		}
		seen[t.Name] = true
		f.Tests = append(f.Tests, t)
	}
	if len(f.Tests) == 0 && !l.diags.HasErrors() {
		l.fail(body.MissingItemRange(), "No test", "Write one: a block test \"NAME\".")
	}
	return f
}

// besides is what a file is about that does not say so: the pipeline file of the
// same name, or all of the directory.
func (l *loader) besides(name string) string {
	if other := strings.TrimSuffix(name, Suffix) + ".hcl"; exists(other) {
		return other
	}
	return l.dir
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// path is of a file beside the tests.
func (l *loader) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(l.dir, name)
}

func (l *loader) test(b *hcl.Block) *Test {
	t := &Test{Name: b.Labels[0], Range: b.DefRange, Subject: b.DefRange}
	content := l.content(b.Body, testSchema)
	l.value(content.Attributes["stage"], &t.Stage)
	l.value(content.Attributes["pipeline"], &t.Pipeline)
	for _, name := range []string{"stage", "pipeline"} {
		if a := content.Attributes[name]; a != nil {
			t.Subject = a.Expr.Range()
		}
	}
	if (t.Stage == "") == (t.Pipeline == "") && !l.diags.HasErrors() {
		l.fail(b.DefRange, "Nothing to test", "Write what the test is of, one of the two: stage = \"PIPELINE.KIND.NAME\", or pipeline = \"NAME\".")
	}
	steps := content.Blocks.OfType("step")
	if first := l.step(t.Name, b.DefRange, content); first.acts() || len(steps) == 0 {
		if len(steps) > 0 {
			l.fail(b.DefRange, "Steps and no steps", "A test with steps has its inputs, acts and expectations in them.")
		}
		t.Steps = append(t.Steps, first)
	}
	for _, s := range steps {
		t.Steps = append(t.Steps, l.step(s.Labels[0], s.DefRange, l.content(s.Body, stepSchema)))
	}
	if !slices.ContainsFunc(t.Steps, func(s *Step) bool { return len(s.Expect) > 0 }) && !l.diags.HasErrors() {
		l.fail(b.DefRange, "Nothing expected", "The test can't fail: it has no block expect { … }.")
	}
	return t
}

func (s *Step) acts() bool {
	return len(s.Inputs)+len(s.Expect) > 0 || s.Role != "" || s.Replay != ""
}

func (l *loader) step(name string, header hcl.Range, content *hcl.BodyContent) *Step {
	s := &Step{Name: name, Range: header, Acts: header}
	l.value(content.Attributes["role"], &s.Role)
	l.value(content.Attributes["replay"], &s.Replay)
	for _, one := range []string{"role", "replay"} {
		if a := content.Attributes[one]; a != nil {
			s.Acts = a.Expr.Range()
		}
	}
	if s.Role != "" && s.Role != "primary" && s.Role != "backup" {
		l.fail(s.Acts, "Unknown role", "There is no role %q to test: write \"primary\" or \"backup\".", s.Role)
	}
	for _, b := range content.Blocks {
		switch b.Type {
		case "input":
			s.Inputs = append(s.Inputs, l.input(b))
		case "expect":
			s.Expect = append(s.Expect, l.expect(b))
		}
	}
	return s
}

func (l *loader) input(b *hcl.Block) *Input {
	in := &Input{Range: b.DefRange}
	content := l.content(b.Body, inputSchema)
	for _, line := range l.lines(content.Attributes["events"]) {
		e, err := line.Event()
		if err != nil {
			l.fail(line.Range, "Incomplete event", "It can't be fed: %v.", err)
		}
		in.Events = append(in.Events, e)
	}
	origin, owner := "", ""
	l.value(content.Attributes["origin"], &origin)
	l.value(content.Attributes["owner"], &owner)
	l.value(content.Attributes["recording"], &in.Recording)
	l.value(content.Attributes["replay"], &in.Whole)
	l.value(content.Attributes["together"], &in.Together)
	if in.Recording != "" {
		in.Recording = l.path(in.Recording)
	}
	if (content.Attributes["events"] == nil) == (in.Recording == "") && !l.diags.HasErrors() {
		l.fail(b.DefRange, "Nothing to feed", "Write what is fed, one of the two: events, in lines, or recording, a file.")
	}
	if in.Recording != "" && (origin != "" || owner != "" || in.Whole || in.Together) {
		l.fail(b.DefRange, "Header of a recording", "A recording says itself who its events are of, what is a replay, and what came together.")
	}
	in.Header = l.header(origin, owner, b.DefRange)
	return in
}

func (l *loader) header(origin, owner string, at hcl.Range) (h flow.Header) {
	switch origin {
	case "", "kernel":
	case "own":
		h.Origin = flow.Own
	case "peer":
		h.Origin = flow.Peer
	default:
		l.fail(at, "Unknown origin", "There is no origin %q: write \"kernel\", \"own\" or \"peer\".", origin)
	}
	if owner == "" {
		return h
	}
	address, err := netip.ParseAddr(owner)
	if err != nil {
		l.fail(at, "Bad owner", "The owner %q is no IP address.", owner)
	}
	if origin == "kernel" || origin == "own" {
		l.fail(at, "Owner without a peer", "Only what a peer sent has an owner: leave the origin out.")
	}
	h.Origin, h.Owner = flow.Peer, address
	return h
}

func (l *loader) expect(b *hcl.Block) *Expect {
	x := &Expect{Range: b.DefRange, Count: -1, Subject: b.DefRange}
	content := l.content(b.Body, expectSchema)
	a := content.Attributes
	x.Events, x.HasLines = l.lines(a["events"]), a["events"] != nil
	x.Absent = l.lines(a["absent"])
	l.value(a["any_order"], &x.AnyOrder)
	l.value(a["others"], &x.Others)
	l.value(a["after"], &x.After)
	l.value(a["cache"], &x.Cache)
	for _, name := range []string{"after", "cache"} {
		if a[name] != nil {
			x.Subject = a[name].Expr.Range()
		}
	}
	if a["count"] != nil {
		l.value(a["count"], &x.Count)
	}
	if x.After != "" && x.Cache != "" {
		l.fail(b.DefRange, "After a stage, or in a cache", "Write what came out after a stage, or what a cache holds, in a block each.")
	}
	x.AnyOrder = x.AnyOrder || x.Cache != ""
	l.numbers(a["statistics"], x)
	if !x.HasLines && x.Absent == nil && x.Count < 0 && x.Numbers == nil && !l.diags.HasErrors() {
		l.fail(b.DefRange, "Nothing expected", "The block states nothing: write events, absent, count or statistics.")
	}
	return x
}

// numbers reads statistics = { "STAGE" = { NAME = NUMBER } }.
func (l *loader) numbers(a *hcl.Attribute, x *Expect) {
	var all map[string]map[string]uint64
	l.value(a, &all)
	for stage, numbers := range all {
		for name, value := range numbers {
			x.Numbers = append(x.Numbers, Number{stage, name, value})
		}
	}
	slices.SortFunc(x.Numbers, func(a, b Number) int { return strings.Compare(a.Stage+" "+a.Name, b.Stage+" "+b.Name) })
}

// lines reads a text of events, one a line. Empty lines, and those that begin with
// #, are passed over.
func (l *loader) lines(a *hcl.Attribute) (lines []Line) {
	var text string
	if a == nil || !l.value(a, &text) {
		return nil
	}
	for i, source := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(source)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			continue
		}
		at := l.lineRange(a.Expr.Range(), i)
		parsed, err := flow.ParseText(trimmed)
		var wrong *flow.TextError
		if errors.As(err, &wrong) {
			l.fail(at, "Bad event", "In %q, %s", trimmed, strings.TrimSuffix(wrong.Error(), "?")+map[bool]string{true: "?", false: "."}[strings.HasSuffix(wrong.Reason, "?")])
			continue
		}
		lines = append(lines, Line{parsed, trimmed, at})
	}
	return lines
}

// lineRange is where line i of a text is written: in a heredoc a line further down.
func (l *loader) lineRange(r hcl.Range, i int) hcl.Range {
	number := r.Start.Line + 1 + i
	if number >= r.End.Line {
		return r
	}
	start := 0
	for range number - 1 {
		start += bytes.IndexByte(l.text[start:], '\n') + 1
	}
	line, _, _ := bytes.Cut(l.text[start:], []byte("\n"))
	indent := len(line) - len(bytes.TrimLeft(line, " \t"))
	return hcl.Range{
		Filename: r.Filename,
		Start:    hcl.Pos{Line: number, Column: indent + 1, Byte: start + indent},
		End:      hcl.Pos{Line: number, Column: len(line) + 1, Byte: start + len(line)},
	}
}
