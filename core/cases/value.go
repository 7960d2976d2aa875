package cases

import (
	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/gohcl"
)

// value evaluates an attribute, if there is one, into what target points to, and
// says whether it did.
func (l *loader) value(a *hcl.Attribute, target any) bool {
	if a == nil {
		return false
	}
	diags := gohcl.DecodeExpression(a.Expr, l.context, target)
	l.diags = append(l.diags, diags...)
	return !diags.HasErrors()
}
