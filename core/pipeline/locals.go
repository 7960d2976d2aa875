package pipeline

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
)

// loadLocals evaluates the locals blocks, each value after those that it uses.
func (l *loader) loadLocals(blocks hcl.Blocks) {
	e := localEvaluator{scope: l.scope, attributes: hcl.Attributes{}, state: map[string]localState{}}
	for _, b := range blocks {
		attributes, diags := b.Body.JustAttributes()
		l.add(diags)
		for _, name := range slices.Sorted(maps.Keys(attributes)) {
			if other := e.attributes[name]; other != nil {
				l.add(hcl.Diagnostics{duplicate("local value", name, attributes[name].NameRange, other.NameRange)})
				continue
			}
			e.attributes[name] = attributes[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.attributes)) {
		l.add(e.evaluate(name))
	}
}

type localState int

const (
	localPending localState = iota
	localRunning
	localDone
)

type localEvaluator struct {
	scope      *scope
	attributes hcl.Attributes
	state      map[string]localState
}

func (e *localEvaluator) evaluate(name string) (diags hcl.Diagnostics) {
	a := e.attributes[name]
	switch e.state[name] {
	case localDone:
		return nil
	case localRunning:
		e.scope.values["local"][name] = placeholder
		return hcl.Diagnostics{failure("Circular local value", fmt.Sprintf(
			"The local value %q depends on itself.", name), &a.NameRange)}
	}
	e.state[name] = localRunning
	for _, t := range a.Expr.Variables() {
		if root, other, ok := reference(t); ok && root == "local" && e.attributes[other] != nil {
			diags = append(diags, e.evaluate(other)...)
		}
	}
	value, more := e.scope.evaluate(a.Expr)
	e.scope.values["local"][name] = value
	e.state[name] = localDone
	return append(diags, more...)
}
