package pipeline

import (
	"encoding/json"
	"fmt"
	"math/big"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/typeexpr"
	"github.com/hashicorp/hcl/v2/hcldec"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// specOf makes what HCL decodes a block by from a plugin's schema.
func specOf(schema *stagepb.Schema) (hcldec.Spec, error) {
	object := hcldec.ObjectSpec{}
	for _, a := range schema.GetAttributes() {
		typ, err := typeOf(a.Type)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", a.Name, err)
		}
		object[a.Name] = &hcldec.AttrSpec{Name: a.Name, Type: typ, Required: a.Required}
	}
	for _, b := range schema.GetBlocks() {
		nested, err := specOf(b.Schema)
		if err != nil {
			return nil, fmt.Errorf("block %s: %w", b.Name, err)
		}
		if b.Repeated {
			// A tuple, since elements with attributes of type any differ in type.
			object[b.Name] = &hcldec.TransformFuncSpec{
				Wrapped: &hcldec.BlockTupleSpec{TypeName: b.Name, Nested: nested}, Func: absentIfEmpty,
			}
		} else {
			object[b.Name] = &hcldec.BlockSpec{TypeName: b.Name, Nested: nested}
		}
	}
	return object, nil
}

// absentIfEmpty makes no blocks null rather than an empty tuple, so that a
// plugin's default blocks stay.
var absentIfEmpty = function.New(&function.Spec{
	Params: []function.Parameter{{
		Name: "blocks", Type: cty.DynamicPseudoType, AllowDynamicType: true, AllowMarked: true, AllowNull: true, AllowUnknown: true,
	}},
	Type: function.StaticReturnType(cty.DynamicPseudoType),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		blocks, _ := args[0].Unmark()
		if blocks.IsKnown() && !blocks.IsNull() && blocks.LengthInt() == 0 {
			return cty.NullVal(cty.DynamicPseudoType), nil
		}
		return args[0], nil
	},
})

// typeOf reads a type as it is written in HCL.
func typeOf(text string) (cty.Type, error) {
	expr, diags := hclsyntax.ParseExpression([]byte(text), "type", hcl.InitialPos)
	if diags.HasErrors() {
		return cty.NilType, fmt.Errorf("%q is no type", text)
	}
	typ, diags := typeexpr.TypeConstraint(expr)
	if diags.HasErrors() {
		return cty.NilType, fmt.Errorf("%q is no type", text)
	}
	return typ, nil
}

// encode writes a value without marks as canonical JSON: keys sorted, what is
// null or unknown left out, numbers without exponent.
func encode(v cty.Value) ([]byte, error) {
	object, _ := plain(v).(map[string]any)
	if object == nil {
		object = map[string]any{}
	}
	return json.Marshal(object)
}

func plain(v cty.Value) any {
	typ := v.Type()
	switch {
	case v.IsNull() || !v.IsKnown():
		return nil
	case typ == cty.String:
		return v.AsString()
	case typ == cty.Bool:
		return v.True()
	case typ == cty.Number:
		return number(v.AsBigFloat())
	case typ.IsObjectType() || typ.IsMapType():
		object := map[string]any{}
		for it := v.ElementIterator(); it.Next(); {
			key, element := it.Element()
			if element := plain(element); element != nil {
				object[key.AsString()] = element
			}
		}
		return object
	case typ.IsListType() || typ.IsSetType() || typ.IsTupleType():
		array := []any{}
		for it := v.ElementIterator(); it.Next(); {
			_, element := it.Element()
			array = append(array, plain(element))
		}
		return array
	}
	return nil
}

// number writes a number out in full, unless nothing that a stage is configured
// with could be that large: then the plugin gets text, and refuses it.
func number(f *big.Float) any {
	if exponent := f.MantExp(nil); f.IsInf() || exponent > 1024 || exponent < -1024 {
		return "out of range"
	}
	return json.Number(f.Text('f', -1))
}
