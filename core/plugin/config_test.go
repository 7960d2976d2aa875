package plugin

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

type testRules struct {
	Accept []netip.Prefix `hcl:"accept,optional" doc:"What passes."`
	Names  []string       `hcl:"names,optional"`
}

type testConfig struct {
	Group    netip.Addr        `hcl:"group" doc:"The group."`
	Port     uint16            `hcl:"port,optional"`
	Buffer   Size              `hcl:"buffer,optional"`
	Coalesce Duration          `hcl:"coalesce,optional"`
	Reliable bool              `hcl:"reliable,optional"`
	Offset   int8              `hcl:"offset,optional"`
	Labels   map[string]string `hcl:"labels,optional"`
	Limit    *uint32           `hcl:"limit,optional"`
	Helpers  Selection         `hcl:"helpers,optional"`
	Rules    *testRules        `hcl:"rules,block" doc:"Rules."`
	Links    []testRules       `hcl:"link,block"`
}

func defaults() *testConfig {
	return &testConfig{Port: 3780, Buffer: 2 << 20, Coalesce: Duration(2 * time.Millisecond), Reliable: true}
}

func TestSchemaSaysWhatTheStructSays(t *testing.T) {
	got := SchemaOf(defaults())
	rules := Schema{Attributes: []Attribute{
		{Name: "accept", Type: "list(string)", Format: "prefix", Doc: "What passes."},
		{Name: "names", Type: "list(string)"},
	}}
	want := Schema{
		Attributes: []Attribute{
			{Name: "group", Type: "string", Format: "address", Required: true, Doc: "The group."},
			{Name: "port", Type: "number", Default: "3780"},
			{Name: "buffer", Type: "any", Format: "size", Default: `"2MiB"`},
			{Name: "coalesce", Type: "string", Format: "duration", Default: `"2ms"`},
			{Name: "reliable", Type: "bool", Default: "true"},
			{Name: "offset", Type: "number"},
			{Name: "labels", Type: "map(string)"},
			{Name: "limit", Type: "number"},
			{Name: "helpers", Type: "any", Format: "selection", Default: "false"},
		},
		Blocks: []Block{{Name: "rules", Doc: "Rules.", Schema: rules}, {Name: "link", Repeated: true, Schema: rules}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDecodeKeepsDefaultsOfWhatIsAbsent(t *testing.T) {
	c := defaults()
	d := Decode([]byte(`{"group":"225.0.0.50","port":null,"buffer":"1MiB","limit":5,"labels":{"a":"b"},
		"rules":{"accept":["10.0.0.0/8"]},"link":[{},{"names":["x"]}]}`), c)
	if len(d) > 0 {
		t.Fatal(d)
	}
	five := uint32(5)
	want := defaults()
	want.Group, want.Buffer, want.Limit = netip.MustParseAddr("225.0.0.50"), 1<<20, &five
	want.Labels = map[string]string{"a": "b"}
	want.Rules = &testRules{Accept: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	want.Links = []testRules{{}, {Names: []string{"x"}}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
}

func TestDecodeNamesThePlaceOfEveryFault(t *testing.T) {
	group := `"group":"225.0.0.50"`
	for json, want := range map[string]string{
		`{}`:                                                      `[]: Missing attribute: The attribute "group" is required.`,
		`{"group":"x"}`:                                           `[group]: Bad address: "x" is no IP address`,
		`{` + group + `,"port":70000}`:                            `[port]: Number out of range: 70000 does not fit here: write a whole number from 0 to 65535.`,
		`{` + group + `,"offset":-129}`:                           `[offset]: Number out of range: -129 does not fit here: write a whole number from -128 to 127.`,
		`{` + group + `,"port":"no"}`:                             `[port]: Wrong type: "no" does not fit here: a uint16 is needed.`,
		`{` + group + `,"buffer":"2 apples"}`:                     `[buffer]: Bad size: "2 apples" is no size`,
		`{` + group + `,"buffer":"99999999TiB"}`:                  `[buffer]: Bad size`,
		`{` + group + `,"coalesce":"2"}`:                          `[coalesce]: Bad duration: "2" is no duration`,
		`{` + group + `,"coalesce":"-2s"}`:                        `[coalesce]: Bad duration`,
		`{` + group + `,"rules":{"accept":["10.0.0.0/8","1/x"]}}`: `[rules accept 1]: Bad prefix: "1/x" is no network prefix`,
		`{` + group + `,"link":[{},{"accept":["y"]}]}`:            `[link 1 accept 0]: Bad prefix`,
		`{` + group + `,"colour":"red"}`:                          `[]: Unknown attribute: There is no attribute "colour" here`,
		`{` + group + `,"rules":[]}`:                              `[rules]: Wrong type`,
		`nonsense`:                                                `Unreadable configuration`,
	} {
		if got := Decode([]byte(json), defaults()).Error(); !strings.Contains(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", json, got, want)
		}
	}
}

func TestSizesAndDurationsReadWhatTheyWrite(t *testing.T) {
	for text, want := range map[string]Size{"0": 0, "1249280": 1249280, "2MiB": 2 << 20, "512 KiB": 512 << 10, "10MB": 10e6, "7B": 7} {
		var s, again Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %v, %v", text, s, err)
		}
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%v is read as %v, %v", s, again, err)
		}
	}
	for text, want := range map[string]string{"2ms": "2ms", "180s": "3m", "1h": "1h", "90m": "1h30m", "0s": "0s", "61s": "1m1s"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
}

func TestSelection(t *testing.T) {
	for text, want := range map[string]Selection{
		"true": {All: true}, "false": {}, "[]": {}, "null": {}, `["ftp", "sip"]`: {Names: []string{"ftp", "sip"}},
	} {
		c := defaults()
		if d := Decode([]byte(`{"group":"225.0.0.50","helpers":`+text+`}`), c); len(d) > 0 || !reflect.DeepEqual(c.Helpers, want) {
			t.Errorf("%s: %+v, %v", text, c.Helpers, d)
		}
		if text != "[]" && text != "null" && c.Helpers.String() != text {
			t.Errorf("%s is written %s", text, c.Helpers)
		}
		if c.Helpers.None() != (!want.All && want.Names == nil) || c.Helpers.Has("ftp") != !c.Helpers.None() || c.Helpers.Has("irc") != want.All {
			t.Errorf("%s chooses otherwise", text)
		}
	}
	for _, text := range []string{`"ftp"`, "1", `["ftp", 1]`, "{}"} {
		d := Decode([]byte(`{"group":"225.0.0.50","helpers":`+text+`}`), defaults())
		if len(d) != 1 || d[0].Summary != "Wrong type" || !reflect.DeepEqual(d[0].Path, Path("helpers")) {
			t.Errorf("%s: %v", text, d)
		}
	}
}
