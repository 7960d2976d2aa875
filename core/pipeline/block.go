package pipeline

import (
	"context"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// LoadBlock decodes text, what stands within the block of one stage, by a plugin's
// schema, and has the plugin check it. It returns the block as a JSON object and
// the stage's traits, or diagnostics that point into the text, which they call
// name.
func LoadBlock(ctx context.Context, name string, text []byte, schema *stagepb.Schema,
	configure func(context.Context, []byte) (*stagepb.Configured, error)) ([]byte, *stagepb.Traits, Files, hcl.Diagnostics) {
	l := newLoader(ctx, Options{Environ: os.Environ()})
	file, diags := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	l.files[name] = file
	if diags.HasErrors() {
		return nil, nil, l.files, diags
	}
	header := hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}
	spec, err := stageSpecOf(schema)
	if err != nil {
		return nil, nil, l.files, append(diags, failure("Bad schema", "The plugin's schema can't be used: "+err.Error()+".", &header))
	}
	_, rest, more := file.Body.PartialContent(commonSchema)
	diags = append(diags, more...)
	block, more := l.scope.decode(rest, header, spec)
	if diags = append(diags, more...); diags.HasErrors() {
		return nil, nil, l.files, diags
	}
	reply, err := configure(ctx, block.json)
	if err != nil {
		return nil, nil, l.files, append(diags, failure("Plugin failed", "The plugin can't be asked: "+err.Error()+".", &header))
	}
	diags = append(diags, l.scope.point(reply.Diagnostics, file.Body, header, block)...)
	if reply.Traits == nil {
		reply.Traits = &stagepb.Traits{}
	}
	return block.json, reply.Traits, l.files, diags
}

// LoadGrant decodes the grant block within a stage's block, or returns the default.
// Nothing else of the text is looked at.
func LoadGrant(ctx context.Context, name string, text []byte) (*Grant, Files, hcl.Diagnostics) {
	l := newLoader(ctx, Options{Environ: os.Environ()})
	file, diags := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	l.files[name] = file
	l.add(diags)
	grant := DefaultGrant()
	if diags.HasErrors() {
		return &grant, l.files, l.diags
	}
	content, _, diags := file.Body.PartialContent(commonSchema)
	l.add(diags)
	if blocks := content.Blocks.OfType("grant"); len(blocks) > 0 {
		return l.decodeGrant(blocks[0]), l.files, l.diags
	}
	return &grant, l.files, l.diags
}

// CheckSchema says what is wrong with a plugin's schema, if a pipeline could not
// hold its block.
func CheckSchema(schema *stagepb.Schema) error {
	_, err := stageSpecOf(schema)
	return err
}

// CheckName says what is wrong with the name of a plugin's type, in a sentence, or
// "" if nothing is.
func CheckName(name string) string {
	if !namePattern.MatchString(name) {
		return nameRule
	}
	return ""
}
