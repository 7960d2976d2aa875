package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/bundled"
)

const page = "../../docs/pipelines.md"

// The generated parts are what the code says.
func TestFresh(t *testing.T) {
	for name, part := range parts {
		have, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		want, err := Insert(have, part())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("%s is stale: run `make docs`", name)
		}
	}
}

// Every function that pipelines may call is explained.
func TestFunctions(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range pipeline.FunctionNames() {
		if !bytes.Contains(text, []byte("`"+name+"`")) && !bytes.Contains(text, []byte("`"+name+"(")) {
			t.Errorf("%s does not mention the function %s", page, name)
		}
	}
}

// Every attribute is explained, since the reference is made of nothing else.
func TestDocumented(t *testing.T) {
	if strings.Contains(Reference(), "|  |") {
		t.Error("an attribute has no doc tag: look for an empty cell in the reference")
	}
}

// Every plugin's folder is in the list of bundled plugins.
func TestComplete(t *testing.T) {
	folders, err := filepath.Glob("../../plugins/*/config.go")
	if err != nil {
		t.Fatal(err)
	}
	var listed []string
	for _, d := range bundled.Definitions {
		listed = append(listed, string(d.Kind)+"-"+d.Type)
	}
	for _, folder := range folders {
		name := filepath.Base(filepath.Dir(folder))
		if !slices.Contains(listed, name) {
			t.Errorf("plugins/%s is no bundled plugin: add its Definition to internal/bundled", name)
		}
	}
}

func TestInsert(t *testing.T) {
	got, err := Insert([]byte("a\n"+begin+"old\n"+end+"b\n"), "new\n")
	if want := "a\n" + begin + "\nnew\n" + end + "b\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Insert([]byte("a\n"+begin), "new"); err == nil {
		t.Error("a page without an end mark")
	}
}
