package pipeline

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/zclconf/go-cty/cty"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A decoded block: its value as JSON, whether that is all of it, and what was
// wrong.
type decoded struct {
	json     []byte
	complete bool // nothing was wrong, and nothing unknown left out
	diags    hcl.Diagnostics
}

// decode evaluates a block by its specification. body is written in the file
// of whole, which has the attributes that were taken out of body before, too.
func (s *scope) decode(body hcl.Body, header hcl.Range, spec hcldec.Spec) (decoded, hcl.Diagnostics) {
	diags := s.declare(hcldec.Variables(body, spec))
	value, more := hcldec.Decode(body, spec, s.context(header.Filename))
	diags = append(diags, more...)
	value, _ = value.UnmarkDeep()
	text, err := encode(value)
	if err != nil {
		diags = append(diags, failure("Unusable value", "The block can't be written as JSON: "+err.Error()+".", &header))
	}
	return decoded{text, !diags.HasErrors() && value.IsWhollyKnown(), diags}, diags
}

// wrong says whether something there is wrong by the specification.
func (d decoded) wrong(there hcl.Range) bool {
	return slices.ContainsFunc(d.diags, func(one *hcl.Diagnostic) bool {
		return one.Severity == hcl.DiagError && one.Subject != nil && one.Subject.Overlaps(there)
	})
}

// point turns what a plugin found wrong into diagnostics about the text. Of a
// block that is not complete only those count that point at a value that is
// written there, and that is not wrong already: the others may come from what is
// missing.
func (s *scope) point(found []*stagepb.Diagnostic, body hcl.Body, header hcl.Range, block decoded) (diags hcl.Diagnostics) {
	for _, one := range found {
		at := locate(body, header, one.Path)
		if !block.complete && (at.expr == nil || !s.known(at.expr) || block.wrong(at.expr.Range())) {
			continue
		}
		d := failure(one.Summary, one.Detail, &at.subject)
		if at.expr != nil {
			if s.secret(at.expr) {
				d.Detail = "The value is not shown, since it is sensitive."
			}
			d.Expression, d.EvalContext = at.expr, s.context(header.Filename)
		}
		diags = append(diags, d)
	}
	return diags
}

func (s *scope) known(e hcl.Expression) bool {
	value, diags := e.Value(s.context(e.Range().Filename))
	return !diags.HasErrors() && value.IsWhollyKnown()
}

func (s *scope) secret(e hcl.Expression) bool {
	value, _ := e.Value(s.context(e.Range().Filename))
	return value.ContainsMarked()
}

// text evaluates an expression that must be a string.
func (s *scope) text(e hcl.Expression, what string) (string, hcl.Diagnostics) {
	value, diags := s.evaluate(e)
	if diags.HasErrors() || !value.IsKnown() {
		return "", diags
	}
	value, _ = value.Unmark()
	if value.Type() != cty.String || value.IsNull() {
		r := e.Range()
		return "", append(diags, failure("Wrong type", fmt.Sprintf("The %s must be a string.", what), &r))
	}
	return value.AsString(), diags
}

// boolean evaluates an expression that must be true or false, with all variables;
// null is false.
func (s *scope) boolean(e hcl.Expression, what string) (bool, hcl.Diagnostics) {
	value, diags := s.evaluate(e)
	if diags.HasErrors() || !value.IsKnown() {
		return false, diags
	}
	value, _ = value.Unmark()
	if value.IsNull() {
		return false, diags
	}
	if value.Type() != cty.Bool {
		r := e.Range()
		return false, append(diags, failure("Wrong type", fmt.Sprintf("%s must be true or false.", what), &r))
	}
	return value.True(), diags
}
