package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// write makes files below a fresh directory.
func write(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// load loads paths and fails the test on any diagnostic.
func load(t *testing.T, o Options) *Configuration {
	t.Helper()
	if o.Catalog == nil {
		o.Catalog = testCatalog
	}
	c, files, diags := Load(context.Background(), o)
	if len(diags) > 0 {
		var text bytes.Buffer
		WriteText(&text, files, diags)
		t.Fatalf("\n%s", text.String())
	}
	return c
}

const simple = `pipeline "NAME" {
  source "netlink" {}
  sink "log" {}
}
`

func TestDirectory(t *testing.T) {
	dir := write(t, map[string]string{
		"20-b.hcl":        strings.ReplaceAll(simple, "NAME", "b"),
		"10-a.hcl":        strings.ReplaceAll(simple, "NAME", "a"),
		"a.test.hcl":      "test {}",
		".hidden.hcl":     "what = is this",
		"notes.txt":       "not for us",
		"more/c.hcl":      strings.ReplaceAll(simple, "NAME", "c"),
		"more/d.test.hcl": "",
	})
	c := load(t, Options{Paths: []string{dir, filepath.Join(dir, "more"), filepath.Join(dir, "./10-a.hcl")}})
	var names []string
	for _, p := range c.Pipelines {
		names = append(names, p.Name)
	}
	if want := []string{"a", "b", "c"}; !reflect.DeepEqual(names, want) {
		t.Errorf("pipelines %v, want %v", names, want)
	}
	if c.Pipeline("b") == nil || c.Pipeline("x") != nil {
		t.Error("Pipeline does not find by name")
	}
}

func TestUnreadable(t *testing.T) {
	empty := t.TempDir()
	for name, paths := range map[string][]string{
		"nothing": nil, "missing": {filepath.Join(empty, "none.hcl")}, "empty": {empty},
	} {
		c, _, diags := Load(context.Background(), Options{Paths: paths, Catalog: testCatalog})
		if c != nil || len(diags) != 1 || !diags.HasErrors() {
			t.Errorf("%s: %v, %v", name, c, diags)
		}
	}
}

// Values come from the default, the environment, files, and -var: the later
// the stronger.
func TestPrecedence(t *testing.T) {
	dir := write(t, map[string]string{
		"p.hcl": `
variable "a" { default = "default" }
variable "b" { default = "default" }
variable "c" { default = "default" }
variable "d" { default = "default" }
variable "e" { default = ["default"] }
variable "f" {
  type    = object({ x = number, y = optional(string, "why") })
  default = { x = 1 }
}
pipeline "p" {
  source "netlink" {}
  sink "log" {
    fields = concat([var.a, var.b, var.c, var.d], var.e, [format("%d%s", var.f.x, var.f.y)])
  }
}`,
		"one.vars":  "c = \"file\"\nd = \"file\"\n",
		"two.json":  `{"d": "json", "c": "${json}"}`,
		"three.hcl": "",
	})
	c := load(t, Options{
		Paths:         []string{filepath.Join(dir, "p.hcl")},
		Environ:       []string{"SLUICE_VAR_b=env", "SLUICE_VAR_c=env", "SLUICE_VAR_d=env", "SLUICE_VAR_other=x"},
		VariableFiles: []string{filepath.Join(dir, "one.vars"), filepath.Join(dir, "two.json")},
		Variables:     []string{"d=first", "d=x=y", `e=["v", "w"]`, "f={x=2}"},
	})
	want := `{"fields":["default","env","${json}","x=y","v","w","2why"]}`
	if got := string(c.Pipelines[0].Stages[1].Config); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Files are read beside the file that names them, wherever that is.
func TestFiles(t *testing.T) {
	dir := write(t, map[string]string{
		"p.hcl": `
locals { here = file("note") }
pipeline "p" {
  source "netlink" {}
  sink "log" {
    fields = [local.here, local.there, env("WHO"), env("UNSET"), tostring(fileexists("none"))]
  }
}`,
		"note":      "here",
		"sub/q.hcl": `locals { there = file("note") }`,
		"sub/note":  "there",
	})
	c := load(t, Options{Paths: []string{dir, filepath.Join(dir, "sub")}, Environ: []string{"WHO=me"}})
	want := `{"fields":["here","there","me","","false"]}`
	if got := string(c.Pipelines[0].Stages[1].Config); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What would never end, or is no text, is refused.
func TestFileRefuses(t *testing.T) {
	dir := write(t, map[string]string{"binary": "\xff\xfe", "large": strings.Repeat("x", maxFile+1)})
	for _, path := range []string{"/dev/zero", ".", "none", "binary", "large"} {
		if text, err := readText(absolute(dir, path)); err == nil {
			t.Errorf("%s: read %d bytes", path, len(text))
		}
	}
}

// A configuration's JSON does not depend on how it is written.
func TestCanonical(t *testing.T) {
	var got [2]string
	for i, block := range []string{
		`labels = { b = 1, a = "2" }
		 factor = 1e1
		 copy {
		   size = 4096
		   path = "/x"
		 }`,
		`copy {
		   path = "/${"x"}"
		   size = pow(2, 12)
		 }
		 factor = 10.0
		 key    = null
		 labels = merge({ a = 2 }, { "b" = "1" })`,
	} {
		dir := write(t, map[string]string{"p.hcl": `pipeline "p" {
			source "netlink" {}
			sink "log" {
			` + block + `
			}
		}`})
		got[i] = string(load(t, Options{Paths: []string{dir}}).Pipelines[0].Stages[1].Config)
	}
	if got[0] != got[1] {
		t.Errorf("%s\n%s", got[0], got[1])
	}
}

// counting is a Catalog that counts, and fails if told to.
type counting struct {
	Catalog
	described map[string]int
	fail      error
}

func (c *counting) Describe(ctx context.Context, kind plugin.Kind, typ string) (*stagepb.Description, error) {
	c.described[typ]++
	if c.fail != nil {
		return nil, c.fail
	}
	return c.Catalog.Describe(ctx, kind, typ)
}

func TestDescribedOnce(t *testing.T) {
	dir := write(t, map[string]string{"p.hcl": `
runner { plugin_path = ["/somewhere"] }
pipeline "p" {
  source "netlink" {}
  filter "basic" { name = "a" }
  filter "basic" { name = "b" }
  sink "log" {}
}`})
	catalog := &counting{Catalog: Local(testPlugins...), described: map[string]int{}}
	load(t, Options{Paths: []string{dir}, Catalog: func(r Runner) (Catalog, error) {
		if !reflect.DeepEqual(r.PluginPath, []string{"/somewhere"}) {
			t.Errorf("plugin_path %v", r.PluginPath)
		}
		return catalog, nil
	}})
	if want := map[string]int{"netlink": 1, "basic": 1, "log": 1}; !reflect.DeepEqual(catalog.described, want) {
		t.Errorf("described %v, want %v", catalog.described, want)
	}
	catalog.fail = errors.New("it fell over")
	_, _, diags := Load(context.Background(), Options{Paths: []string{dir},
		Catalog: func(Runner) (Catalog, error) { return catalog, nil }})
	if len(diags) != 4 || diags[0].Summary != "Plugin failed" || !strings.Contains(diags[0].Detail, "it fell over") {
		t.Errorf("diagnostics %v", diags)
	}
	_, _, diags = Load(context.Background(), Options{Paths: []string{dir},
		Catalog: func(Runner) (Catalog, error) { return nil, errors.New("no processes here") }})
	if len(diags) != 1 || !strings.Contains(diags[0].Detail, "no processes here") {
		t.Errorf("diagnostics %v", diags)
	}
}

// A plugin's schema comes from another process: it may be anything.
func TestBadSchemas(t *testing.T) {
	attribute := func(name, typ string) *stagepb.Schema {
		return &stagepb.Schema{Attributes: []*stagepb.Attribute{{Name: name, Type: typ}}}
	}
	for name, schema := range map[string]*stagepb.Schema{
		"name taken":   attribute("name", "string"),
		"no type":      attribute("a", "strin"),
		"bad type":     attribute("a", "list("),
		"nested":       {Blocks: []*stagepb.Block{{Name: "b", Schema: attribute("a", "")}}},
		"repeated":     {Blocks: []*stagepb.Block{{Name: "b", Repeated: true, Schema: attribute("a", "?")}}},
		"empty object": attribute("a", "object()"),
	} {
		if spec, err := stageSpecOf(schema); err == nil {
			t.Errorf("%s: %v", name, spec)
		}
	}
	for name, schema := range map[string]*stagepb.Schema{
		"none": nil, "block without schema": {Blocks: []*stagepb.Block{{Name: "b"}}}, "name in a block": {
			Blocks: []*stagepb.Block{{Name: "b", Schema: attribute("name", "any")}}},
	} {
		if _, err := stageSpecOf(schema); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestJSON(t *testing.T) {
	text, err := os.ReadFile("testdata/bad-address.hcl")
	if err != nil {
		t.Fatal(err)
	}
	_, files, diags := Load(context.Background(), testOptions("testdata/bad-address.hcl", text))
	diags = append(diags, warning("Nowhere", "", nil), failure("Elsewhere", "", &hcl.Range{Filename: "gone", Start: hcl.InitialPos}))
	var out bytes.Buffer
	if err := WriteJSON(&out, files, diags); err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/bad-address.json", out.Bytes())
	var v Verdict
	if err := json.Unmarshal(out.Bytes(), &v); err != nil || v.Valid || v.Warnings != 1 || v.Errors != len(diags)-1 {
		t.Errorf("%+v, %v", v, err)
	}
}

// FuzzLoad: whatever is in a file, Load answers.
func FuzzLoad(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.hcl")
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		o := testOptions("fuzz.hcl", text)
		o.VariableFiles = nil
		l := newLoader(context.Background(), o)
		c, files, diags := l.result(l.load([]source{{"fuzz.hcl", text}}))
		if (c == nil) != diags.HasErrors() {
			t.Errorf("configuration %v with %v", c, diags)
		}
		if err := WriteText(&bytes.Buffer{}, files, diags); err != nil {
			t.Error(err)
		}
		if err := WriteJSON(&bytes.Buffer{}, files, diags); err != nil {
			t.Error(err)
		}
		if c == nil {
			return
		}
		for _, p := range c.Pipelines {
			for _, s := range p.Stages {
				if !json.Valid(s.Config) {
					t.Errorf("%s: %s", s.Address(), s.Config)
				}
			}
		}
	})
}
