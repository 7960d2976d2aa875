package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// testOptions are options for a file whose leading comments may say
// "# -var NAME=VALUE", "# -var-file FILE" and "# env NAME=VALUE".
func testOptions(path string, text []byte) Options {
	o := Options{Paths: []string{path}, Environ: []string{}, Catalog: testCatalog}
	for line := range strings.Lines(string(text)) {
		word, rest, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "# ")), " ")
		switch {
		case !strings.HasPrefix(line, "# "):
			return o
		case word == "-var":
			o.Variables = append(o.Variables, rest)
		case word == "-var-file":
			o.VariableFiles = append(o.VariableFiles, filepath.Join(filepath.Dir(path), rest))
		case word == "env":
			o.Environ = append(o.Environ, rest)
		}
	}
	return o
}

func testCatalog(Runner) (Catalog, error) { return Local(testPlugins...), nil }

// TestGolden loads every file of testdata and compares what WriteText says, or
// what the configuration is.
func TestGolden(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.hcl")
	if err != nil || len(paths) == 0 {
		t.Fatal("no test data", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".hcl"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c, files, diags := Load(context.Background(), testOptions(path, text))
			if diags.HasErrors() != (c == nil) {
				t.Errorf("configuration %v with diagnostics %v", c, diags)
			}
			var got bytes.Buffer
			if err := WriteText(&got, files, diags); err != nil {
				t.Fatal(err)
			}
			if c != nil {
				got.WriteString(describe(t, c))
			}
			golden(t, strings.TrimSuffix(path, ".hcl")+".golden", got.Bytes())
		})
	}
}

// describe writes what matters of a configuration.
func describe(t *testing.T, c *Configuration) string {
	t.Helper()
	c.Runner.Name = strings.Replace(c.Runner.Name, DefaultRunner().Name, "(the host)", 1)
	runner, err := json.Marshal(c.Runner)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("runner " + string(runner) + "\n")
	for _, p := range c.Pipelines {
		b.WriteString("pipeline " + p.Name + "\n")
		for _, s := range p.Stages {
			traits, err := json.Marshal(s.Traits)
			if err != nil {
				t.Fatal(err)
			}
			b.WriteString("  " + s.Address() + " " + string(s.Config) + " " + string(traits) + "\n")
		}
	}
	return b.String()
}

func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test -update writes it anew); got:\n%s", path, got)
	}
}
