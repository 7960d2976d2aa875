package pipeline

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A draft is a pipeline as far as it could be read.
type draft struct {
	name   string
	header hcl.Range
	stages []*stageDraft
}

type stageDraft struct {
	*Stage              // Traits is nil if the plugin found something wrong
	body      hcl.Body  // with all attributes
	nameRange hcl.Range // of the name attribute, or of the type label
	typeRange hcl.Range // of the type label
}

func (d *draft) pipeline() *Pipeline {
	p := &Pipeline{Name: d.name, Range: d.header}
	for _, s := range d.stages {
		p.Stages = append(p.Stages, s.Stage)
	}
	return p
}

// at returns the place of one of the stage's attributes, or of its header.
func (s *stageDraft) at(attribute string) *hcl.Range {
	return &[]hcl.Range{locate(s.body, s.Range, steps(attribute)).subject}[0]
}

// label writes a stage as it is written in a pipeline: filter "basic".
func (s *stageDraft) label() string { return fmt.Sprintf("%s %q", s.Kind, s.Type) }

var pipelineSchema = &hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{
	{Type: string(plugin.KindSource), LabelNames: []string{"type"}},
	{Type: string(plugin.KindFilter), LabelNames: []string{"type"}},
	{Type: string(plugin.KindCache), LabelNames: []string{"type"}},
	{Type: string(plugin.KindSink), LabelNames: []string{"type"}},
}}

var commonSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{{Name: "name"}, {Name: unlockedName}}, Blocks: []hcl.BlockHeaderSchema{{Type: "grant"}},
}

// reservedPipelines are words that commands take in a pipeline's place.
var reservedPipelines = map[string]string{"kernel": "sluice flush kernel"}

func (l *loader) loadPipelines(blocks hcl.Blocks) (drafts []*draft) {
	seen := map[string]*draft{}
	for _, b := range blocks {
		d := l.loadPipeline(b)
		if other := seen[d.name]; other != nil {
			l.add(hcl.Diagnostics{duplicate("pipeline", d.name, d.header, other.header)})
			continue
		}
		seen[d.name] = d
		drafts = append(drafts, d)
	}
	return drafts
}

func (l *loader) loadPipeline(b *hcl.Block) *draft {
	d := &draft{name: b.Labels[0], header: b.DefRange}
	if use := reservedPipelines[d.name]; use != "" {
		l.add(hcl.Diagnostics{failure("Invalid name", fmt.Sprintf(
			"No pipeline may be named %q, since %q means something else.", d.name, use), &b.LabelRanges[0])})
	} else if !namePattern.MatchString(d.name) {
		l.add(hcl.Diagnostics{failure("Invalid name", fmt.Sprintf(
			"%q is no name for a pipeline. %s", d.name, nameRule), &b.LabelRanges[0])})
	}
	content, diags := b.Body.Content(pipelineSchema)
	l.add(diags)
	for _, block := range content.Blocks {
		d.stages = append(d.stages, l.loadStage(d.name, block))
	}
	return d
}

func newStageDraft(pipeline string, b *hcl.Block) *stageDraft {
	return &stageDraft{body: b.Body, nameRange: b.LabelRanges[0], typeRange: b.LabelRanges[0], Stage: &Stage{
		Pipeline: pipeline, Kind: plugin.Kind(b.Type), Type: b.Labels[0], Name: b.Labels[0], Range: b.DefRange,
	}}
}

// loadStage reads one stage and asks its plugin.
func (l *loader) loadStage(pipeline string, b *hcl.Block) *stageDraft {
	s := newStageDraft(pipeline, b)
	content, rest, diags := b.Body.PartialContent(commonSchema)
	l.add(diags)
	if a := content.Attributes["name"]; a != nil {
		l.nameStage(s, a)
	}
	if !namePattern.MatchString(s.Type) {
		l.add(hcl.Diagnostics{failure("Invalid name", fmt.Sprintf(
			"%q is no name for a plugin. %s", s.Type, nameRule), &b.LabelRanges[0])})
		return s
	}
	if !l.isTrusted(s, content.Attributes[unlockedName]) {
		return s
	}
	spec, err := l.plugins.spec(s.Kind, s.Type)
	if err != nil {
		l.add(hcl.Diagnostics{l.pluginError(s, err, &b.LabelRanges[0])})
		return s
	}
	l.loadGrant(s, content.Blocks)
	block, diags := l.scope.decode(rest, b.DefRange, spec)
	l.add(diags)
	s.Config = block.json
	reply, err := l.plugins.Configure(l.ctx, s.Kind, s.Type, block.json)
	if err != nil {
		l.add(hcl.Diagnostics{l.pluginError(s, err, &b.DefRange)})
		return s
	}
	l.add(l.scope.point(reply.Diagnostics, b.Body, b.DefRange, block))
	if len(reply.Diagnostics) == 0 {
		if s.Traits = reply.Traits; s.Traits == nil {
			s.Traits = &stagepb.Traits{}
		}
		l.checkNeeds(s, content.Blocks.OfType("grant"))
	}
	return s
}

func (l *loader) nameStage(s *stageDraft, a *hcl.Attribute) {
	name, diags := l.scope.text(a.Expr, "name of a stage")
	l.add(diags)
	s.nameRange = a.Expr.Range()
	switch {
	case diags.HasErrors():
	case !namePattern.MatchString(name):
		l.add(hcl.Diagnostics{failure("Invalid name", fmt.Sprintf(
			"%q is no name for a stage. %s", name, nameRule), &s.nameRange)})
	default:
		s.Name = name
	}
}

// pluginError says that there is no such plugin, or that it did not answer.
func (l *loader) pluginError(s *stageDraft, err error, subject *hcl.Range) *hcl.Diagnostic {
	if !errors.Is(err, ErrUnknownPlugin) {
		return failure("Plugin failed", fmt.Sprintf("The plugin %s-%s can't be asked: %v.", s.Kind, s.Type, err), subject)
	}
	known := l.plugins.Types(s.Kind)
	there := fmt.Sprintf(" There is no other %s either.", s.Kind)
	if len(known) > 0 {
		there = fmt.Sprintf(" There are: %s.", strings.Join(known, ", "))
	}
	where := " There is no plugin_path to look for others."
	if len(l.plugins.path) > 0 {
		where = fmt.Sprintf(" It would be an executable sluice-%s-%s in %s.", s.Kind, s.Type, strings.Join(l.plugins.path, " or "))
	}
	return failure("Unknown plugin", fmt.Sprintf("There is no %s %q.%s%s%s",
		s.Kind, s.Type, didYouMean(s.Type, known, ""), there, where), subject)
}
