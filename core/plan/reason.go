package plan

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	"github.com/sluice-project/sluice/core/control"
)

// compareConfigs returns the attributes in which two configurations, JSON
// objects, differ: by their path, lists and repeated blocks as a whole.
func compareConfigs(old, next []byte) (reasons []control.ReasonPlan) {
	if bytes.Equal(old, next) {
		return nil
	}
	compareObjects("", object(old), object(next), func(path string, was, is json.RawMessage) {
		reasons = append(reasons, control.ReasonPlan{Attribute: path, Old: string(was), New: string(is)})
	})
	return reasons
}

func compareObjects(prefix string, old, next map[string]json.RawMessage, say func(path string, was, is json.RawMessage)) {
	names := map[string]bool{}
	for _, o := range []map[string]json.RawMessage{old, next} {
		for name := range o {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := given(old[name]), given(next[name])
		switch a, b := object(was), object(is); {
		case bytes.Equal(was, is):
		case a != nil && b != nil:
			compareObjects(prefix+name+".", a, b, say)
		default:
			say(prefix+name, was, is)
		}
	}
}

// given makes an attribute that is null one that is not given, which means the
// same.
func given(value json.RawMessage) json.RawMessage {
	var compact bytes.Buffer
	if json.Compact(&compact, value) != nil || compact.String() == "null" {
		return nil
	}
	return compact.Bytes()
}

// object returns the members of an object, or nil if it is none.
func object(value []byte) (o map[string]json.RawMessage) {
	if json.Unmarshal(value, &o) != nil {
		return nil
	}
	return o
}
