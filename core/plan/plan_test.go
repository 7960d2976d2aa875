package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// build makes a configuration of pipelines written as words: "name: stage …",
// where a stage is KIND[.NAME][=JSON][+TRAIT]…, without spaces.
func build(t *testing.T, lines ...string) *pipeline.Configuration {
	t.Helper()
	c := &pipeline.Configuration{Runner: pipeline.Runner{Name: "n"}}
	for _, line := range lines {
		name, rest, _ := strings.Cut(line, ": ")
		p := &pipeline.Pipeline{Name: name}
		for _, word := range strings.Fields(rest) {
			p.Stages = append(p.Stages, stage(t, name, word))
		}
		c.Pipelines = append(c.Pipelines, p)
	}
	return c
}

func stage(t *testing.T, pipelineName, word string) *pipeline.Stage {
	word, traits, _ := strings.Cut(word, "+")
	word, config, _ := strings.Cut(word, "=")
	kind, name, _ := strings.Cut(word, ".")
	s := &pipeline.Stage{Pipeline: pipelineName, Kind: plugin.Kind(kind), Type: "x", Name: "x", Config: []byte("{" + config + "}"),
		Traits: &stagepb.Traits{Handover: true}}
	if name != "" {
		s.Name = name
	}
	for _, trait := range strings.Split(traits, "+") {
		switch trait {
		case "":
		case "hold":
			s.Traits.Hold = true
		case "kernel":
			s.Traits.Kernel = true
		case "link":
			s.Traits.Link, s.Traits.RequestResync = "l", true
		case "every":
			s.Traits.EveryFlow = true
		case "screened":
			s.Traits.Screened = true
		case "screen":
			s.Traits.Screen = &stagepb.Screen{Protocols: &stagepb.ProtocolList{Accept: true, Protocols: []byte{6}}}
		case "screen2":
			s.Traits.Screen = &stagepb.Screen{Protocols: &stagepb.ProtocolList{Accept: true, Protocols: []byte{17}}}
		case "old":
			s.Traits.Handover = false
		case "exclusive":
			s.Traits.Exclusive = true
		default:
			t.Fatalf("trait %q", trait)
		}
	}
	return s
}

// written writes what changes in few words, and the replays.
func written(p *control.Plan) string {
	var words []string
	for _, s := range p.Stages {
		if s.Action != control.Keep {
			words = append(words, fmt.Sprintf("%s %s", s.Action, s.Address))
		}
	}
	for _, r := range p.Replays {
		word := "replay " + r.Stage
		if r.Into != "" {
			word += " into " + r.Into
		}
		if r.Down {
			word += " down"
		}
		words = append(words, word)
	}
	return strings.Join(words, ", ")
}

func TestCompare(t *testing.T) {
	const (
		local = "a: source+kernel filter cache sink+link"
		peers = "b: source+link cache+hold sink+kernel"
	)
	for name, c := range map[string]struct {
		old, next []string
		want      string
	}{
		"nothing":                 {[]string{local, peers}, []string{local, peers}, ""},
		"the order of pipelines":  {[]string{local, peers}, []string{peers, local}, ""},
		"the order of sinks":      {[]string{"a: source sink.a sink.b"}, []string{"a: source sink.b sink.a"}, ""},
		"null is as not given":    {[]string{"a: source sink"}, []string{`a: source="x":null sink`}, ""},
		"a filter above a cache":  {[]string{local}, []string{`a: source+kernel filter="x":1 cache sink+link`}, "replace a.filter.x, replay a.source.x"},
		"a filter below a cache":  {[]string{"a: source cache filter sink"}, []string{`a: source cache filter="x":1 sink`}, "replace a.filter.x, replay a.cache.x"},
		"a sink":                  {[]string{local}, []string{`a: source+kernel filter cache sink="x":1+link`}, "replace a.sink.x, replay a.cache.x into a.sink.x"},
		"a cache":                 {[]string{local}, []string{`a: source+kernel filter cache="x":1 sink+link`}, "replace a.cache.x, replay a.source.x down"},
		"a source":                {[]string{local}, []string{`a: source="x":1+kernel filter cache sink+link`}, "replace a.source.x, replay a.source.x"},
		"a sink below hold":       {[]string{peers}, []string{`b: source+link cache+hold sink="x":1+kernel`}, "replace b.sink.x"},
		"a hold cache":            {[]string{peers}, []string{`b: source+link cache="x":1+hold sink+kernel`}, "replace b.cache.x, replay b.source.x down"},
		"a filter comes":          {[]string{"a: source cache sink"}, []string{"a: source filter cache sink"}, "rewire a.source.x, add a.filter.x, replay a.source.x"},
		"a filter goes":           {[]string{"a: source filter cache sink"}, []string{"a: source cache sink"}, "rewire a.source.x, remove a.filter.x, replay a.source.x"},
		"a filter below goes":     {[]string{"a: source cache filter sink"}, []string{"a: source cache sink"}, "rewire a.cache.x, remove a.filter.x, replay a.cache.x"},
		"a cache comes":           {[]string{"a: source sink"}, []string{"a: source cache sink"}, "rewire a.source.x, add a.cache.x, replay a.source.x down"},
		"a cache goes":            {[]string{"a: source cache sink"}, []string{"a: source sink"}, "rewire a.source.x, remove a.cache.x, replay a.source.x down"},
		"a sink comes":            {[]string{"a: source cache sink"}, []string{"a: source cache sink sink.b"}, "rewire a.cache.x, add a.sink.b, replay a.cache.x into a.sink.b"},
		"a sink goes":             {[]string{"a: source cache sink sink.b"}, []string{"a: source cache sink.b"}, "rewire a.cache.x, remove a.sink.x"},
		"two filters change":      {[]string{"a: source filter filter.b sink"}, []string{`a: source filter="x":1 filter.b="x":1 sink`}, "replace a.filter.x, replace a.filter.b, replay a.source.x"},
		"a cache and a sink":      {[]string{"a: source cache sink"}, []string{`a: source cache="x":1 sink="x":1`}, "replace a.cache.x, replace a.sink.x, replay a.source.x down"},
		"filters change places":   {[]string{"a: source filter.a filter.b sink"}, []string{"a: source filter.b filter.a sink"}, "rewire a.source.x, rewire a.filter.b, replace a.filter.a, replay a.source.x"},
		"another source":          {[]string{"a: source.a sink"}, []string{"a: source.b sink"}, "add a.source.b, remove a.source.a, replay a.source.b"},
		"a pipeline comes":        {[]string{local}, []string{local, peers}, "replace a.source.x, add b.source.x, add b.cache.x, add b.sink.x, replay a.source.x, replay b.source.x down"},
		"a pipeline goes":         {[]string{local, peers}, []string{local}, "remove b.source.x, remove b.cache.x, remove b.sink.x"},
		"a writer comes":          {[]string{local, peers}, []string{local, "b: source+link cache+hold sink+kernel sink.b+kernel"}, "replace a.source.x, rewire b.cache.x, add b.sink.b, replay a.source.x"},
		"write-through begins":    {[]string{local, peers}, []string{local, "b: source+link cache sink+kernel"}, "replace a.source.x, replace a.cache.x, replace b.cache.x, replace b.sink.x, replay a.source.x down, replay b.source.x down"},
		"every flow":              {[]string{"a: source cache sink"}, []string{"a: source cache sink sink.b+every"}, "replace a.cache.x, add a.sink.b, replay a.source.x down"},
		"screens that are used":   {[]string{"a: source+screened filter+screen sink"}, []string{"a: source+screened filter+screen2 sink"}, "replace a.source.x, replace a.filter.x, replay a.source.x"},
		"screens that are not":    {[]string{"a: source filter+screen sink"}, []string{"a: source filter+screen2 sink"}, "replace a.filter.x, replay a.source.x"},
		"an old plugin":           {[]string{"a: source+old cache sink"}, []string{"a: source+old filter cache sink"}, "replace a.source.x, add a.filter.x, replay a.source.x"},
		"an old plugin elsewhere": {[]string{"a: source filter+old cache sink"}, []string{`a: source filter+old cache sink="x":1`}, "replace a.sink.x, replay a.cache.x into a.sink.x"},
	} {
		t.Run(name, func(t *testing.T) {
			old, next := build(t, c.old...), build(t, c.next...)
			if got := written(Compare(old, next, Facts{}, Facts{})); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if got := written(Compare(next, next, Facts{}, Facts{})); got != "" {
				t.Errorf("what is the same differs: %s", got)
			}
		})
	}
}

// A filter without a screen ends what the source is told of those below it, and so
// does a cache.
func TestStartOf(t *testing.T) {
	for line, want := range map[string]int{
		"a: source sink": 0, "a: source filter+screen filter+screen2 cache sink": 2,
		"a: source filter+screen filter filter.c+screen sink": 1, "a: source filter+screen cache filter.b+screen sink": 1,
	} {
		c := build(t, line)
		if got := len(StartOf(c, c.Pipelines[0], 0).Screens); got != want {
			t.Errorf("%s: %d screens", line, got)
		}
		if len(StartOf(c, c.Pipelines[0], 1).Screens) > 0 {
			t.Errorf("%s: another stage is told of screens", line)
		}
	}
	c := build(t, "a: source cache filter sink sink.b+every")
	for i, want := range []bool{true, true, true, false, false} {
		if got := StartOf(c, c.Pipelines[0], i).EveryFlow; got != want {
			t.Errorf("stage %d is told %v", i, got)
		}
	}
}

func TestReasonsNameAttributes(t *testing.T) {
	old := build(t, `a: source="a":1,"b":{"c":[1,2],"d":true},"e":"x" sink`)
	next := build(t, `a: source="a":1,"b":{"c":[1,3],"d":true},"f":[] sink`)
	got := Compare(old, next, Facts{}, Facts{}).Stages[0].Reasons
	want := []control.ReasonPlan{{Attribute: "b.c", Old: "[1,2]", New: "[1,3]"}, {Attribute: "e", Old: `"x"`}, {Attribute: "f", New: "[]"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestAnotherProgramIsAReason(t *testing.T) {
	c := build(t, "a: source filter sink")
	was, is := Facts{map[string]string{"filter-x": "/p 1"}}, Facts{map[string]string{"filter-x": "/p 2"}}
	if got := written(Compare(c, c, was, is)); got != "replace a.filter.x, replay a.source.x" {
		t.Error(got)
	}
}

func TestSettings(t *testing.T) {
	old := pipeline.DefaultRunner()
	old.Name = "n"
	next := old
	next.Control.Path, next.Log.Level, next.PluginPath = "/x", "debug", []string{"/p"}
	next.Scheduler = &pipeline.Scheduler{Type: "rr", Priority: 1}
	refused := map[string]bool{}
	for _, s := range compareSettings(&old, &next) {
		refused[s.Name] = s.Refused != ""
	}
	want := map[string]bool{"control.path": true, "log.level": false, "plugin_path": false, "scheduler": false}
	if !reflect.DeepEqual(refused, want) {
		t.Errorf("got %v", refused)
	}
}

// Whatever a stage or a runner is made of is compared. Whoever adds a field here
// teaches Compare what it means that it differs, and then adds it to this list.
func TestEverythingIsCompared(t *testing.T) {
	known := map[reflect.Type]string{
		reflect.TypeFor[pipeline.Stage]():         "Pipeline Kind Type Name Config Traits Grant SHA256 Unlocked Range",
		reflect.TypeFor[pipeline.Pipeline]():      "Name Stages Range",
		reflect.TypeFor[pipeline.Configuration](): "Runner Pipelines",
	}
	for typ, want := range known {
		var fields []string
		for i := range typ.NumField() {
			fields = append(fields, typ.Field(i).Name)
		}
		if got := strings.Join(fields, " "); got != want {
			t.Errorf("%v has %s; this package knows %s", typ, got, want)
		}
	}
}

// What `sluice plan` sends of a configuration is all that is compared.
func TestConfigurationSurvivesJSON(t *testing.T) {
	c := build(t, `a: source="a":1+kernel+screened filter+screen cache+hold sink+every`, "b: source+link cache sink.x+kernel+exclusive")
	c.Runner = pipeline.DefaultRunner()
	c.Runner.Scheduler = &pipeline.Scheduler{Type: "rr", Priority: 1}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var got pipeline.Configuration
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if p := Compare(c, &got, Facts{}, Facts{}); p.Changes() {
		t.Errorf("%s, %+v", written(p), p.Settings)
	}
}
