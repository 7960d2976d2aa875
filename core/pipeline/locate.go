package pipeline

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A place is where something of a configuration is written.
type place struct {
	subject hcl.Range
	expr    hcl.Expression // nil: a block's header, nothing more precise was found
}

// locate follows a plugin's path from a block as far as the text shows it: to
// an attribute's expression and, where that is written out as a list or an
// object, to the element; else to the header of the innermost block.
func locate(body hcl.Body, header hcl.Range, path []*stagepb.Step) place {
	at := place{subject: header}
	syntax, ok := body.(*hclsyntax.Body)
	if !ok || len(path) == 0 {
		return at
	}
	name := path[0].GetName()
	if a := syntax.Attributes[name]; a != nil {
		expr := element(a.Expr, path[1:])
		return place{expr.Range(), expr}
	}
	var blocks hclsyntax.Blocks
	for _, b := range syntax.Blocks {
		if b.Type == name {
			blocks = append(blocks, b)
		}
	}
	rest := path[1:]
	index := 0
	if len(rest) > 0 {
		if step, ok := rest[0].Step.(*stagepb.Step_Index); ok {
			index, rest = int(step.Index), rest[1:]
		}
	}
	if index >= len(blocks) {
		return at
	}
	return locate(blocks[index].Body, blocks[index].DefRange(), rest)
}

// element follows a path into an expression as long as it is written out.
func element(expr hcl.Expression, path []*stagepb.Step) hcl.Expression {
	for _, step := range path {
		next := child(expr, step)
		if next == nil {
			return expr
		}
		expr = next
	}
	return expr
}

func child(expr hcl.Expression, step *stagepb.Step) hcl.Expression {
	switch step := step.Step.(type) {
	case *stagepb.Step_Index:
		if list, diags := hcl.ExprList(expr); !diags.HasErrors() && int(step.Index) < len(list) {
			return list[step.Index]
		}
	case *stagepb.Step_Name:
		pairs, diags := hcl.ExprMap(expr)
		if diags.HasErrors() {
			return nil
		}
		for _, pair := range pairs {
			key, diags := pair.Key.Value(nil)
			if !diags.HasErrors() && key.Type() == cty.String && key.IsKnown() && !key.IsNull() && key.AsString() == step.Name {
				return pair.Value
			}
		}
	}
	return nil
}

// steps makes a path of names.
func steps(names ...string) (path []*stagepb.Step) {
	for _, name := range names {
		path = append(path, &stagepb.Step{Step: &stagepb.Step_Name{Name: name}})
	}
	return path
}
