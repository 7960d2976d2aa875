package scaffold

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/plugin"
)

var kinds = []plugin.Kind{plugin.KindSource, plugin.KindFilter, plugin.KindCache, plugin.KindSink}

// What is made is built and run by the tests in test/vendor; here it is only
// looked at.
func TestEachKindHasItsFiles(t *testing.T) {
	for _, kind := range kinds {
		dir := filepath.Join(t.TempDir(), "new")
		files, err := Write(dir, Plugin{Kind: kind, Name: "some-thing", Version: "v1.2.3"})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{".github/workflows/ci.yml", ".gitignore", "Makefile", "README.md", "check.hcl", "go.mod", "main.go",
			"pipeline.hcl", string(kind) + ".go", string(kind) + "_test.go"} {
			if !slices.Contains(files, want) {
				t.Errorf("%s: no %s in %v", kind, want, files)
			}
		}
		for _, file := range files {
			text, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || strings.Contains(string(text), "<<") || len(text) == 0 {
				t.Errorf("%s: %s: %v\n%s", kind, file, err, text)
			}
		}
		mod, _ := os.ReadFile(filepath.Join(dir, "go.mod"))
		if text := string(mod); !strings.Contains(text, "module sluice-"+string(kind)+"-some-thing\n") ||
			!strings.Contains(text, sdk+" v1.2.3\n") || strings.Contains(text, "replace") {
			t.Errorf("%s", text)
		}
	}
}

func TestGoMod(t *testing.T) {
	checkout, err := filepath.Abs("../../../..")
	if err != nil {
		t.Fatal(err)
	}
	p := Plugin{Kind: plugin.KindFilter, Name: "x", Module: "example.com/x", SDK: checkout}
	mod, sum, err := p.goMod()
	if err != nil || !strings.Contains(string(mod), "replace "+sdk+" => "+checkout) || !strings.Contains(string(sum), "go-plugin") {
		t.Errorf("%v\n%s", err, mod)
	}
	p.SDK, p.Version = "", "v1.2.3-4-gabcdef-dirty" // of `git describe`: no version of a module
	if mod, _, err := p.goMod(); err != nil || strings.Contains(string(mod), "require") {
		t.Errorf("%v\n%s", err, mod)
	}
	for dir, want := range map[string]string{t.TempDir(): "is no checkout of Sluice", filepath.Join(checkout, "core"): "is no checkout of Sluice"} {
		p.SDK = dir
		if _, err := Write(filepath.Join(t.TempDir(), "x"), p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	for _, c := range []struct{ kind, name, module, want string }{
		{"filters", "mark", "", `no kind "filters"`},
		{"filter", "", "", "is no name"},
		{"filter", "Mark", "", "as in mark"},
		{"filter", "my_mark", "", "as in my-mark"},
		{"filter", "7up", "", "as in up"},
		{"filter", "../x", "", "as in x"},
		{"filter", "a--b", "", "as in a-b"},
		{"filter", "sluice-filter-mark", "", "name it mark"},
		{"filter", "filter-mark", "", "name it mark"},
		{"filter", "basic", "", "bundled filter"},
		{"filter", strings.Repeat("x", 41), "", "41 characters"},
		{"filter", "mark", "no path", "no path for a module"},
	} {
		p := Plugin{Kind: plugin.Kind(c.kind), Name: c.name, Module: c.module, Bundled: []string{"filter-basic"}}
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v, want %q", c.kind, c.name, err, c.want)
		}
	}
	if err := (Plugin{Kind: plugin.KindSink, Name: "basic", Bundled: []string{"filter-basic"}}).Check(); err != nil {
		t.Error(err)
	}
}

func TestAFolderWithFilesStays(t *testing.T) {
	dir := t.TempDir()
	p := Plugin{Kind: plugin.KindFilter, Name: "mark"}
	if _, err := Write(dir, p); err != nil { // an empty one will do
		t.Fatal(err)
	}
	if _, err := Write(dir, p); err == nil || !strings.Contains(err.Error(), "--dir") {
		t.Errorf("%v", err)
	}
}
