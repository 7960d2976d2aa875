package pipeline

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// A scope is what expressions can refer to.
type scope struct {
	environ   map[string]string
	values    map[string]map[string]cty.Value // by root ("var", "local") and name
	missing   map[string]map[string]bool      // what was referred to in vain, in the same way
	functions map[string]map[string]function.Function
}

func newScope(environ []string) *scope {
	s := &scope{
		environ:   map[string]string{},
		values:    map[string]map[string]cty.Value{"var": {}, "local": {}},
		missing:   map[string]map[string]bool{"var": {}, "local": {}},
		functions: map[string]map[string]function.Function{},
	}
	for _, assignment := range environ {
		name, value, _ := strings.Cut(assignment, "=")
		s.environ[name] = value
	}
	return s
}

// context returns what expressions in a file are evaluated with. Files differ
// in the directory that the file functions start from.
func (s *scope) context(filename string) *hcl.EvalContext {
	c := &hcl.EvalContext{Variables: map[string]cty.Value{}, Functions: s.functionsIn(filename)}
	for root, values := range s.values {
		object := maps.Clone(values)
		for name := range s.missing[root] {
			object[name] = placeholder
		}
		c.Variables[root] = cty.ObjectVal(object)
	}
	return c
}

// constant is the context where functions but no values may be used.
func (s *scope) constant(filename string) *hcl.EvalContext {
	return &hcl.EvalContext{Functions: s.functionsIn(filename)}
}

func (s *scope) functionsIn(filename string) map[string]function.Function {
	dir := filepath.Dir(filename)
	if s.functions[dir] == nil {
		s.functions[dir] = functionsFor(dir, s.environ)
	}
	return s.functions[dir]
}

// reference splits a traversal into root and name, as in var.NAME.
func reference(t hcl.Traversal) (root, name string, ok bool) {
	if len(t) < 2 || t.IsRelative() {
		return "", "", false
	}
	switch step := t[1].(type) {
	case hcl.TraverseAttr:
		return t.RootName(), step.Name, true
	case hcl.TraverseIndex:
		if step.Key.Type() == cty.String && step.Key.IsKnown() && !step.Key.IsNull() {
			return t.RootName(), step.Key.AsString(), true
		}
	}
	return "", "", false
}

// declare reports the references to variables and locals that nobody declared,
// and gives them an unknown value, so that evaluation goes on without a second
// complaint.
func (s *scope) declare(traversals []hcl.Traversal) (diags hcl.Diagnostics) {
	for _, t := range traversals {
		root, name, ok := reference(t)
		values := s.values[root]
		if !ok || values == nil {
			continue
		}
		if _, ok := values[name]; !ok {
			diags = append(diags, undeclared(root, name, slices.Sorted(maps.Keys(values)), t.SourceRange()))
			s.missing[root][name] = true
		}
	}
	return diags
}

// placeholder stands for what could not be evaluated.
var placeholder = cty.DynamicVal

func undeclared(root, name string, known []string, subject hcl.Range) *hcl.Diagnostic {
	summary, what, declare := "Unknown variable", "variable", fmt.Sprintf("Declare it with a block: variable %q {}.", name)
	if root == "local" {
		summary, what, declare = "Unknown local value", "local value", "Declare it in a locals block."
	}
	return failure(summary, fmt.Sprintf("There is no %s %q.%s", what, name, didYouMean(name, known, " "+declare)), &subject)
}

// evaluate returns an expression's value in a context, or an unknown value and
// why.
func (s *scope) evaluate(e hcl.Expression) (cty.Value, hcl.Diagnostics) {
	diags := s.declare(e.Variables())
	value, more := e.Value(s.context(e.Range().Filename))
	if diags = append(diags, more...); diags.HasErrors() {
		return placeholder, diags
	}
	return value, diags
}
