package plugin

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Decode reads a block's value, a JSON object, into config, a pointer to a
// struct with the defaults set, then lets it validate itself. Null and absent
// members leave the default.
func Decode(value []byte, config any) Diagnostics {
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	object := map[string]any{}
	if err := decoder.Decode(&object); err != nil {
		return Diagnostics{{Summary: "Unreadable configuration", Detail: "The configuration is no JSON object: " + err.Error() + "."}}
	}
	var d Diagnostics
	decodeStruct(reflect.ValueOf(config).Elem(), object, nil, &d)
	if len(d) > 0 {
		return d
	}
	if v, ok := config.(Validator); ok {
		return v.Validate()
	}
	return nil
}

func decodeStruct(v reflect.Value, object map[string]any, path []any, d *Diagnostics) {
	var known []string
	for _, f := range fieldsOf(v.Type()) {
		known = append(known, f.name)
		value, ok := object[f.name]
		if !ok || value == nil {
			if !f.optional && !f.block {
				d.Add(path, "Missing attribute", "The attribute %q is required.", f.name)
			}
			continue
		}
		decodeValue(v.FieldByIndex(f.Index), value, append(slices.Clone(path), f.name), d)
	}
	for name := range object {
		if !slices.Contains(known, name) {
			d.Add(path, "Unknown attribute", "There is no attribute %q here; there are %s.", name, strings.Join(known, ", "))
		}
	}
}

func decodeValue(v reflect.Value, value any, path []any, d *Diagnostics) {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		}
		v = v.Elem()
	}
	if u, ok := v.Addr().Interface().(interface{ unmarshalValue(any) error }); ok {
		if err := u.unmarshalValue(value); err != nil {
			d.Add(path, "Wrong type", "This does not fit here: %v.", err)
		}
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		decodeText(u, formats[v.Type()], value, path, d)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		if object, ok := value.(map[string]any); ok {
			decodeStruct(v, object, path, d)
			return
		}
	case reflect.Slice:
		if list, ok := value.([]any); ok {
			v.Set(reflect.MakeSlice(v.Type(), len(list), len(list)))
			for i, element := range list {
				decodeValue(v.Index(i), element, append(slices.Clone(path), i), d)
			}
			return
		}
	case reflect.Map:
		if object, ok := value.(map[string]any); ok {
			v.Set(reflect.MakeMap(v.Type()))
			for key, element := range object {
				e := reflect.New(v.Type().Elem()).Elem()
				decodeValue(e, element, append(slices.Clone(path), key), d)
				v.SetMapIndex(reflect.ValueOf(key), e)
			}
			return
		}
	default:
		decodeScalar(v, value, path, d)
		return
	}
	d.Add(path, "Wrong type", "A %T does not fit here.", value)
}

// summaries names what is wrong when text does not parse, by its format.
var summaries = map[string]string{
	"address": "Bad address", "prefix": "Bad prefix", "duration": "Bad duration", "size": "Bad size",
}

func decodeText(u encoding.TextUnmarshaler, format string, value any, path []any, d *Diagnostics) {
	summary := summaries[format]
	if summary == "" {
		summary = "Bad value"
	}
	text := fmt.Sprint(value)
	err := u.UnmarshalText([]byte(text))
	switch {
	case err == nil:
	case format == "address":
		d.Add(path, summary, "%q is no IP address: write one like \"192.0.2.1\" or \"2001:db8::1\".", text)
	case format == "prefix":
		d.Add(path, summary, "%q is no network prefix: write one like \"192.0.2.0/24\" or \"2001:db8::/32\".", text)
	default:
		d.Add(path, summary, "%s.", strings.ToUpper(err.Error()[:1])+err.Error()[1:])
	}
}

// decodeScalar leaves to encoding/json what fits into a scalar type.
func decodeScalar(v reflect.Value, value any, path []any, d *Diagnostics) {
	text, err := json.Marshal(value)
	if err == nil {
		err = json.Unmarshal(text, v.Addr().Interface())
	}
	if err == nil {
		return
	}
	if _, isNumber := value.(json.Number); isNumber && v.Kind() != reflect.String {
		d.Add(path, "Number out of range", "%s does not fit here: %s.", text, rangeOf(v.Type()))
		return
	}
	d.Add(path, "Wrong type", "%s does not fit here: a %v is needed.", text, v.Kind())
}

// rangeOf says which numbers a type takes.
func rangeOf(t reflect.Type) string {
	switch bits := t.Bits(); {
	case t.Kind() >= reflect.Float32:
		return "write a number"
	case t.Kind() >= reflect.Uint:
		return fmt.Sprintf("write a whole number from 0 to %d", uint64(1)<<(bits-1)*2-1)
	default:
		return fmt.Sprintf("write a whole number from %d to %d", int64(-1)<<(bits-1), int64(uint64(1)<<(bits-1)-1))
	}
}
