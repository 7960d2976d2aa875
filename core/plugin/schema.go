package plugin

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
)

// A Schema says what a plugin's block in a pipeline may hold. It is made from
// the configuration struct's fields by their tags:
//
//	Group netip.Addr `hcl:"group" doc:"The group to join."`
//	Port  uint16     `hcl:"port,optional" doc:"…"`
//	Rules *Rules     `hcl:"rules,block"`     // at most one block
//	Links []Link     `hcl:"link,block"`      // any number of blocks
//
// Types may be string, bool, any integer or float type, whatever implements
// encoding.TextUnmarshaler (netip.Addr, netip.Prefix, Size, Duration, your
// own), Selection, pointers to them where absence matters, slices of them, and structs
// for blocks. The value of an optional attribute in Definition.Config's fresh
// struct is its default.
type Schema struct {
	Attributes []Attribute
	Blocks     []Block
}

// An Attribute is one argument of a block.
type Attribute struct {
	Name     string
	Type     string // an HCL type: string, number, bool, any, list(string) …
	Format   string // what a string means: address, prefix, duration, size, text, selection, or ""
	Required bool
	Default  string // as it would be written, or ""
	Doc      string
}

// A Block is a block inside a plugin's block.
type Block struct {
	Name     string
	Repeated bool
	Doc      string
	Schema   Schema
}

var textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()

// formats names what the strings of well-known types mean.
var formats = map[reflect.Type]string{
	reflect.TypeFor[netip.Addr]():   "address",
	reflect.TypeFor[netip.Prefix](): "prefix",
	reflect.TypeFor[Duration]():     "duration",
	reflect.TypeFor[Size]():         "size",
	reflect.TypeFor[Selection]():    "selection",
}

// SchemaOf returns the schema of a configuration: a pointer to a struct. It
// panics on fields that can't be configured, since that is the author's error.
func SchemaOf(config any) Schema {
	return schemaOf(reflect.ValueOf(config).Elem())
}

func schemaOf(v reflect.Value) (s Schema) {
	for _, f := range fieldsOf(v.Type()) {
		if f.block {
			block := v.FieldByIndex(f.Index) // holds the block's defaults, if it is there
			repeated := block.Kind() == reflect.Slice
			if repeated || block.Kind() == reflect.Pointer && block.IsNil() {
				block = reflect.New(f.Type.Elem())
			}
			s.Blocks = append(s.Blocks, Block{f.name, repeated, f.doc, schemaOf(reflect.Indirect(block))})
			continue
		}
		typ, format := typeOf(f.Type)
		s.Attributes = append(s.Attributes, Attribute{
			Name: f.name, Type: typ, Format: format, Required: !f.optional, Doc: f.doc,
			Default: defaultOf(v.FieldByIndex(f.Index), f.optional),
		})
	}
	return s
}

// A field is a configurable field of a struct.
type field struct {
	reflect.StructField
	name            string
	optional, block bool
	doc             string
}

func fieldsOf(t reflect.Type) (fields []field) {
	for _, sf := range reflect.VisibleFields(t) {
		tag, ok := sf.Tag.Lookup("hcl")
		if !ok {
			continue
		}
		name, option, _ := strings.Cut(tag, ",")
		fields = append(fields, field{sf, name, option == "optional", option == "block", sf.Tag.Get("doc")})
	}
	return fields
}

// typeOf returns the HCL type and the format for values of a Go type.
func typeOf(t reflect.Type) (typ, format string) {
	if t.Kind() == reflect.Pointer && !t.Implements(textUnmarshaler) {
		return typeOf(t.Elem())
	}
	switch format = formats[t]; format {
	case "size": // a number or a string
		return "any", format
	case "selection": // a bool or a list
		return "any", format
	}
	if reflect.PointerTo(t).Implements(textUnmarshaler) {
		if format == "" {
			format = "text"
		}
		return "string", format
	}
	switch t.Kind() {
	case reflect.String:
		return "string", ""
	case reflect.Bool:
		return "bool", ""
	case reflect.Slice:
		typ, format = typeOf(t.Elem())
		return "list(" + typ + ")", format
	case reflect.Map:
		typ, format = typeOf(t.Elem())
		return "map(" + typ + ")", format
	}
	if t.Kind() >= reflect.Int && t.Kind() <= reflect.Float64 {
		return "number", ""
	}
	panic(fmt.Sprintf("plugin: schema: fields of type %v can't be configured", t))
}

// defaultOf writes a default as the administrator would, "" for a zero value.
func defaultOf(v reflect.Value, optional bool) string {
	if s, ok := v.Interface().(Selection); ok && optional {
		return s.String()
	}
	if !optional || v.IsZero() {
		if optional && v.Kind() == reflect.Bool {
			return "false"
		}
		return ""
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() == reflect.Slice {
		var elements []string
		for i := range v.Len() {
			elements = append(elements, defaultOf(v.Index(i), true))
		}
		return "[" + strings.Join(elements, ", ") + "]"
	}
	text := fmt.Sprint(v.Interface())
	if typ, _ := typeOf(v.Type()); typ == "string" || typ == "any" {
		return fmt.Sprintf("%q", text)
	}
	return text
}
