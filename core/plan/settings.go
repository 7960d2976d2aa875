package plan

import (
	"encoding/json"
	"reflect"
	"strings"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
)

// changeable are the settings of the runner that a reload changes, by attribute
// or block.
var changeable = []string{"plugin_path", "plugin_lock", "lock_keys", "log", "scheduler"}

// fixed says why others can't. For those that are not named the reason is that
// nobody has taught the runner to change them.
var fixed = map[string]string{
	"name":         "the peers know this node, and every stage was told, by its name",
	"lock_file":    "it is what keeps a second runner of this configuration from starting",
	"control.path": "administrators find this runner there",
}

const restart = ": restart the runner for it"

// compareSettings returns what differs between two runner blocks.
func compareSettings(old, next *pipeline.Runner) (settings []control.SettingPlan) {
	compareObjects("", settingsOf(old), settingsOf(next), func(path string, was, is json.RawMessage) {
		s := control.SettingPlan{Name: path, Old: string(was), New: string(is)}
		if !canChange(path) {
			s.Refused = "it can't change while the runner runs" + restart
			if why := fixed[path]; why != "" {
				s.Refused = why + restart
			}
		}
		settings = append(settings, s)
	})
	return settings
}

func canChange(path string) bool {
	for _, name := range changeable {
		if path == name || strings.HasPrefix(path, name+".") {
			return true
		}
	}
	return false
}

// settingsOf returns the block's attributes by their names in HCL.
func settingsOf(r *pipeline.Runner) map[string]json.RawMessage {
	return members(reflect.ValueOf(*r))
}

func members(v reflect.Value) map[string]json.RawMessage {
	settings := map[string]json.RawMessage{}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("hcl"), ",")
		if name == "" || !v.Type().Field(i).IsExported() {
			continue
		}
		settings[name] = encoded(v.Field(i))
	}
	return settings
}

// encoded returns a value as JSON, with HCL's names of what is in it.
func encoded(v reflect.Value) json.RawMessage {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return encoded(v.Elem())
	case reflect.Struct:
		text, err := json.Marshal(members(v))
		if err != nil {
			return nil
		}
		return text
	case reflect.Slice:
		if v.Len() == 0 {
			return nil
		}
		list := make([]json.RawMessage, v.Len())
		for i := range list {
			list[i] = encoded(v.Index(i))
		}
		text, err := json.Marshal(list)
		if err != nil {
			return nil
		}
		return text
	}
	text, err := json.Marshal(v.Interface())
	if err != nil {
		return nil
	}
	return text
}
