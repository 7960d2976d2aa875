package pipeline

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/gohcl"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
)

// A variable is a variable block.
type variable struct {
	name        string
	typ         cty.Type
	typed       bool // has a type attribute
	defaults    *typeexpr.Defaults
	fallback    cty.Value // cty.NilVal: there is none
	sensitive   bool
	notNull     bool
	validations []validation
	subject     hcl.Range
}

// A validation is a rule that a variable's value must obey.
type validation struct {
	condition, message hcl.Expression
	subject            hcl.Range
}

// secret marks the values of sensitive variables, and what is made of them.
type mark string

const secret mark = "sensitive"

var variableSchema = &hcl.BodySchema{
	Attributes: []hcl.AttributeSchema{
		{Name: "type"}, {Name: "default"}, {Name: "description"}, {Name: "sensitive"}, {Name: "nullable"},
	},
	Blocks: []hcl.BlockHeaderSchema{{Type: "validation"}},
}

var validationSchema = &hcl.BodySchema{Attributes: []hcl.AttributeSchema{
	{Name: "condition", Required: true}, {Name: "error_message", Required: true},
}}

// loadVariables gives every declared variable its value.
func (l *loader) loadVariables(blocks hcl.Blocks) {
	declared := map[string]*variable{}
	for _, b := range blocks {
		v, diags := l.scope.variable(b)
		l.add(diags)
		if other := declared[v.name]; other != nil {
			l.add(hcl.Diagnostics{duplicate("variable", v.name, v.subject, other.subject)})
			continue
		}
		declared[v.name] = v
	}
	given := l.givenValues(declared)
	names := slices.Sorted(maps.Keys(declared))
	for _, name := range names {
		value, diags := declared[name].value(given[name])
		l.add(diags)
		if declared[name].sensitive {
			value = value.Mark(secret)
		}
		l.scope.values["var"][name] = value
	}
	for _, name := range names {
		for _, rule := range declared[name].validations {
			l.add(l.scope.validate(declared[name], rule))
		}
	}
}

// variable reads a variable block.
func (s *scope) variable(b *hcl.Block) (*variable, hcl.Diagnostics) {
	v := &variable{name: b.Labels[0], typ: cty.DynamicPseudoType, subject: b.DefRange}
	content, diags := b.Body.Content(variableSchema)
	if !hclsyntax.ValidIdentifier(v.name) {
		diags = append(diags, failure("Invalid name", fmt.Sprintf(
			"%q is no name for a variable: it must be an identifier, since it is used as var.NAME.", v.name), &b.LabelRanges[0]))
	}
	attributes := content.Attributes
	if a := attributes["type"]; a != nil {
		typ, defaults, more := typeexpr.TypeConstraintWithDefaults(a.Expr)
		diags = append(diags, more...)
		v.typ, v.defaults, v.typed = typ, defaults, true
	}
	if a := attributes["default"]; a != nil {
		diags = append(diags, s.fallback(v, a.Expr)...)
	}
	diags = append(diags, flags(v, attributes)...)
	for _, rule := range content.Blocks {
		content, more := rule.Body.Content(validationSchema)
		if diags = append(diags, more...); !more.HasErrors() {
			v.validations = append(v.validations, validation{
				content.Attributes["condition"].Expr, content.Attributes["error_message"].Expr, rule.DefRange,
			})
		}
	}
	return v, diags
}

// flags reads the attributes that are plain constants.
func flags(v *variable, attributes hcl.Attributes) (diags hcl.Diagnostics) {
	var description string
	nullable := true
	for name, target := range map[string]any{
		"description": &description, "sensitive": &v.sensitive, "nullable": &nullable,
	} {
		if a := attributes[name]; a != nil {
			diags = append(diags, gohcl.DecodeExpression(a.Expr, nil, target)...)
		}
	}
	v.notNull = !nullable
	return diags
}

// fallback reads the default, which may call functions but use no values.
func (s *scope) fallback(v *variable, e hcl.Expression) hcl.Diagnostics {
	value, diags := e.Value(s.constant(e.Range().Filename))
	if diags.HasErrors() {
		v.fallback = cty.UnknownVal(v.typ)
		return diags
	}
	value, err := v.convert(value)
	if err != nil {
		v.fallback = cty.UnknownVal(v.typ)
		r := e.Range()
		return append(diags, failure("Invalid default value", fmt.Sprintf(
			"This default does not fit the type of the variable %q: %s.", v.name, err), &r))
	}
	v.fallback = value
	return diags
}

// convert makes a value fit the variable's type.
func (v *variable) convert(value cty.Value) (cty.Value, error) {
	if v.defaults != nil && !value.IsNull() {
		value = v.defaults.Apply(value)
	}
	return convert.Convert(value, v.typ)
}

// value returns the variable's value: what was given, or its default.
func (v *variable) value(g *given) (cty.Value, hcl.Diagnostics) {
	unknown := cty.UnknownVal(v.typ)
	if g == nil {
		if v.fallback != cty.NilVal {
			return v.fallback, nil
		}
		return unknown, hcl.Diagnostics{failure("Missing value", fmt.Sprintf(
			"The variable %q has no default, so it needs a value: -var %s=…, a line in a -var-file, or %s%s in the environment.",
			v.name, v.name, environPrefix, v.name), &v.subject)}
	}
	value, diags := g.evaluate(v)
	if diags.HasErrors() {
		return unknown, diags
	}
	if value.IsNull() && v.notNull && v.fallback != cty.NilVal {
		return v.fallback, diags
	}
	value, err := v.convert(value)
	if err == nil && value.IsNull() && v.notNull {
		err = fmt.Errorf("it must not be null")
	}
	if err != nil {
		return unknown, append(diags, failure("Invalid value for variable", fmt.Sprintf(
			"The value of the variable %q, from %s, does not fit: %s.", v.name, g.origin, err), g.subject(v)))
	}
	return value, diags
}

// validate checks one rule.
func (s *scope) validate(v *variable, rule validation) hcl.Diagnostics {
	result, diags := s.evaluate(rule.condition)
	if diags.HasErrors() {
		return diags
	}
	result, _ = result.Unmark()
	holds, err := convert.Convert(result, cty.Bool)
	r := rule.condition.Range()
	if err != nil || holds.IsNull() {
		return append(diags, failure("Invalid validation", "The condition of a validation must be true or false.", &r))
	}
	if !holds.IsKnown() || holds.True() {
		return diags
	}
	message, more := s.evaluate(rule.message)
	diags = append(diags, more...)
	text := "its validation fails"
	message, _ = message.Unmark()
	if m, err := convert.Convert(message, cty.String); err == nil && m.IsKnown() && !m.IsNull() {
		text = m.AsString()
	}
	d := failure("Invalid value for variable", fmt.Sprintf("%s\n\nThis was checked by the validation of variable %q at %s.",
		text, v.name, rule.subject), &v.subject)
	d.Expression, d.EvalContext = rule.condition, s.context(r.Filename)
	return append(diags, d)
}

// duplicate reports a second block where one is allowed.
func duplicate(what, name string, second, first hcl.Range) *hcl.Diagnostic {
	return failure("Duplicate "+what, fmt.Sprintf("There is a %s %q already, at %s.", what, name, first), &second)
}
