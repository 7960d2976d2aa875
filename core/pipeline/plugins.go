package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/hcl/v2/hcldec"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// plugins is a Catalog that asks each plugin for its description once.
type plugins struct {
	Catalog
	ctx       context.Context
	path      []string
	described map[string]*description
}

type description struct {
	spec hcldec.Spec
	err  error
}

func newPlugins(ctx context.Context, c Catalog, path []string) *plugins {
	return &plugins{Catalog: c, ctx: ctx, path: path, described: map[string]*description{}}
}

// spec returns what the blocks of a plugin are decoded by.
func (p *plugins) spec(kind plugin.Kind, typ string) (hcldec.Spec, error) {
	key := string(kind) + "-" + typ
	if p.described[key] == nil {
		d := &description{}
		reply, err := p.Describe(p.ctx, kind, typ)
		if err != nil {
			d.err = err
		} else {
			d.spec, d.err = stageSpecOf(reply.Schema)
		}
		p.described[key] = d
	}
	return p.described[key].spec, p.described[key].err
}

// stageSpecOf is specOf for a stage's own block, where "name", "unlocked"
// and "grant" are taken.
func stageSpecOf(schema *stagepb.Schema) (hcldec.Spec, error) {
	for _, a := range schema.GetAttributes() {
		if a.Name == "name" || a.Name == unlockedName {
			return nil, fmt.Errorf("its attribute %q is the one that every stage has: the plugin must rename it", a.Name)
		}
	}
	for _, b := range schema.GetBlocks() {
		if b.Name == "grant" {
			return nil, errors.New(`its block "grant" is the one that every stage has: the plugin must rename it`)
		}
	}
	return specOf(schema)
}
