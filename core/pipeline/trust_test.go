package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// vendors is a catalog whose filters are another vendor's, and which notes what is
// executed.
type vendors struct {
	Catalog
	executed []string
	fails    error // of Program
}

const vendorSum = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func isBundled(kind plugin.Kind, _ string) bool { return kind != plugin.KindFilter }

func (v *vendors) Bundled(kind plugin.Kind, typ string) bool { return isBundled(kind, typ) }
func (v *vendors) Program(kind plugin.Kind, typ string) (path, sum string, err error) {
	return "/p/sluice-" + string(kind) + "-" + typ, vendorSum, v.fails
}
func (v *vendors) Describe(ctx context.Context, kind plugin.Kind, typ string) (*stagepb.Description, error) {
	if kind == plugin.KindFilter {
		v.executed = append(v.executed, typ)
	}
	return v.Catalog.Describe(ctx, kind, typ)
}

// Configure has the filter need more than trusting grants it.
func (v *vendors) Configure(ctx context.Context, kind plugin.Kind, typ string, config []byte) (*stagepb.Configured, error) {
	reply, err := v.Catalog.Configure(ctx, kind, typ, config)
	if err == nil && kind == plugin.KindFilter && len(reply.Diagnostics) == 0 {
		reply.Traits.Needs = &stagepb.Needs{Network: true, Read: []string{"/etc/acme"}}
	}
	return reply, err
}

const trusting = `variable "free" {
  default = true
}
runner {
  plugin_lock = abspath("mine.lock.hcl")
}
pipeline "p" {
  source "netlink" {}
  filter "basic" {
    name     = "one"
    unlocked = var.free
    grant {
      network    = true
      read_paths = ["/etc"]
    }
  }
  filter "basic" {
    name = "two"
  }
  sink "kernel" {}
}
`

// Each stage is judged for itself, by what the lock file says.
func TestTrustOfStages(t *testing.T) {
	for lock, want := range map[string]string{
		"": "no lock file",
		"plugin \"filter-basic\" {\n  sha256 = \"" + strings.Repeat("0", 64) + "\"\n}\n": "mine.lock.hcl line 1 says 000",
		"plugin \"sink-basic\" {\n  sha256 = \"" + vendorSum + "\"\n}\n":                 "does not name filter-basic",
		"plugin \"filter-basic\" {\n  sha256 = \"" + vendorSum + "\"\n}\n":               "",
	} {
		dir := t.TempDir()
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		write("p.hcl", trusting)
		if lock != "" {
			write("mine.lock.hcl", lock)
		}
		catalog := &vendors{Catalog: Local(testPlugins...)}
		c, _, diags := Load(t.Context(), Options{
			Paths: []string{dir}, Environ: []string{}, Catalog: func(Runner) (Catalog, error) { return catalog, nil },
		})
		if want == "" {
			if c == nil || c.Pipelines[0].Stages[2].SHA256 != vendorSum || c.Pipelines[0].Stages[1].SHA256 != "" || !c.Pipelines[0].Stages[1].Unlocked {
				t.Errorf("%v, %+v", diags, c)
			}
			if len(diags) != 1 || diags[0].Severity != hcl.DiagWarning || diags[0].Subject.Start.Line != 17 ||
				!strings.Contains(diags[0].Detail, `network = true; read_paths = ["/etc/acme"]`) {
				t.Errorf("of what the filter needs and is not granted: %v", diags)
			}
			continue
		}
		if len(diags) != 1 || !strings.Contains(diags[0].Detail, want) || diags[0].Subject.Start.Line != 17 {
			t.Errorf("%v\nwant %q at line 17 alone", diags, want)
		}
		if len(catalog.executed) != 1 {
			t.Errorf("executed %q", catalog.executed) // once: for the stage that is unlocked
		}
	}
}

// While it is not known what a runner demands of plugins none is executed; nor is one
// that could not be looked at, which may be there a moment later.
func TestNoTrustWithoutARunner(t *testing.T) {
	for text, want := range map[string]string{
		"runner {\n  lock_keys = [\"AAAA\"]\n}": "can't be a key",
		"runner {\n  no = 1\n}":                 `"no"`,
		"runner {}\nrunner {}":                  "runner block already",
		"locals {}":                             "can't be asked: not yet",
	} {
		dir := t.TempDir()
		for name, content := range map[string]string{
			"p.hcl": text + "\npipeline \"p\" {\n  source \"netlink\" {}\n  filter \"basic\" {}\n  sink \"kernel\" {}\n}\n",
			// What it is locked to without the runner block, or beside it.
			"sluice.lock.hcl": "plugin \"filter-basic\" {\n  sha256 = \"" + vendorSum + "\"\n}\n",
		} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		catalog := &vendors{Catalog: Local(testPlugins...)}
		if text == "locals {}" {
			catalog.fails = errors.New("not yet")
		}
		c, _, diags := Load(t.Context(), Options{
			Paths: []string{dir}, Environ: []string{}, Catalog: func(Runner) (Catalog, error) { return catalog, nil },
		})
		if c != nil || len(diags) != 1 || !strings.Contains(diags[0].Detail, want) || len(catalog.executed) > 0 {
			t.Errorf("%s\nexecuted %q, %v\nwant %q", text, catalog.executed, diags, want)
		}
	}
}

// What is used is found without a look into the stages' blocks.
func TestLook(t *testing.T) {
	dir := t.TempDir()
	text := strings.Replace(trusting, "plugin_lock = abspath(\"mine.lock.hcl\")", "", 1)
	text = strings.Replace(text, `name = "two"`, "name = \"two\"\n    nonsense = 3", 1)
	if err := os.WriteFile(filepath.Join(dir, "p.hcl"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s, _, diags := Look(t.Context(), Options{Paths: []string{dir}, Environ: []string{}}, isBundled)
	if s == nil || s.Policy.File != filepath.Join(dir, "sluice.lock.hcl") || s.Policy.Lock != nil {
		t.Fatalf("%v, %+v", diags, s)
	}
	names, first := s.Plugins()
	if strings.Join(names, " ") != "filter-basic sink-kernel source-netlink" || first["filter-basic"].Address != "p.filter.one" || !first["filter-basic"].Unlocked {
		t.Errorf("%q, %+v", names, first)
	}
	if len(s.Uses) != 4 || s.Uses[2].Unlocked || s.Uses[2].Range.Start.Line != 17 {
		t.Errorf("%+v", s.Uses)
	}
	if s, _, diags := Look(t.Context(), Options{Paths: []string{filepath.Join(dir, "none")}, Environ: []string{}}, isBundled); s != nil || !diags.HasErrors() {
		t.Errorf("%v, %+v", diags, s)
	}
}

func TestTextForTerminals(t *testing.T) {
	var out strings.Builder
	detail := "one\x1b]0;title\x07\u009b2J\n\ttwo"
	d := &hcl.Diagnostic{Severity: hcl.DiagError, Summary: "No\x1b[2J", Detail: detail}
	if err := WriteText(&out, nil, hcl.Diagnostics{d}); err != nil || d.Detail != detail ||
		!strings.Contains(out.String(), "one?]0;title??2J\n\ttwo") || strings.ContainsAny(out.String(), "\x1b\x07\u009b") {
		t.Errorf("%v\n%q", err, out.String())
	}
}
