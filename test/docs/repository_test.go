package docs

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sluice-project/sluice/"

// sources calls each for every file of the repository, by its path from the
// root.
func sources(t *testing.T, each func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, file)
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains([]string{".git", "bin", "dist"}, name):
			return filepath.SkipDir
		case d.Type().IsRegular() && name != ".git": // of a work tree it is a file
			each(filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inner are the packages of core in the order in which they may import each
// other: each those before it.
var inner = []string{"core/flow", "core/recording", "core/plugin/stagepb", "core/plugin", "core/control", "core/pipeline", "core/plan", "core/runner", "core/plugintest/kit", "core/plugintest", "core/cases"}

// broken says which rule an import breaks and what to do instead, or "".
// from and to are folders; test says that it stands in a test.
func broken(from, to string, test bool) string {
	in := func(dir, tree string) bool { return dir == tree || strings.HasPrefix(dir, tree+"/") }
	switch {
	case to == "internal/testbed" && !test && !in(from, "test") && !in(from, "internal/testbed"):
		return "the testbed is for tests: move what you need into a package of its own"
	case in(from, "core") && (in(to, "plugins") || in(to, "cmd") || in(to, "test")),
		in(from, "core") && in(to, "internal") && !(test && to == "internal/testbed"):
		return "core knows no plugin and nothing that a vendor can't import: let the plugin tell what core must know " +
			"(plugin.Traits, the control protocol), or move the code into core"
	case in(from, "core") && slices.Index(inner, to) > slices.Index(inner, from) && !test:
		return "imports go one way, " + strings.Join(inner, " ← ") + ": move what both need down"
	case in(from, "plugins") && in(to, "plugins") && path.Base(path.Dir(to)) == "plugins" && from != to:
		return "plugins don't import each other: put what both need into internal/"
	case in(from, "plugins") && (in(to, "core/runner") || in(to, "core/pipeline") || in(to, "core/control") || in(to, "cmd") || in(to, "internal/bundled")):
		return "a bundled plugin has no back door: it may use core/flow, core/plugin and internal/ libraries; " +
			"if it needs more, a vendor's would too, so extend core/plugin"
	case in(from, "internal") && in(to, "plugins") && from != "internal/bundled":
		return "only internal/bundled lists plugins: take them from there"
	case (in(from, "internal/ctnl") || in(from, "internal/notrack")) && in(to, "core") && to != "core/flow" && to != "core/wait":
		return "a codec knows flows and no stages: pass it what it needs"
	case from == "internal/testbed" && to != from:
		return "the testbed is the oracle for our own code, so it must not use it"
	case !in(from, "cmd") && in(to, "cmd"):
		return "commands are no library: move the code into core"
	}
	return ""
}

// Imports flow one way: core/flow ← core/plugin ← core/…, plugins/… ← cmd/sluice.
func TestImports(t *testing.T) {
	files := 0
	sources(t, func(name string) {
		if !strings.HasSuffix(name, ".go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			return
		}
		files++
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			to, ours := strings.CutPrefix(imported, module)
			if err != nil || !ours {
				continue
			}
			if why := broken(path.Dir(name), to, strings.HasSuffix(name, "_test.go")); why != "" {
				t.Errorf("%s imports %s: %s", name, to, why)
			}
		}
	})
	if files < 100 {
		t.Errorf("only %d files", files)
	}
}

// The rules themselves.
func TestBrokenImports(t *testing.T) {
	for _, c := range []struct {
		from, to string
		test     bool
		broken   bool
	}{
		{"core/runner", "plugins/cache-memory", false, true},
		{"core/runner", "plugins/cache-memory", true, true},
		{"core/runner", "internal/ctnl", false, true},
		{"core/runner", "internal/testbed", true, false},
		{"core/flow", "core/plugin", false, true},
		{"core/plugin", "core/flow", false, false},
		{"core/plugin", "core/plugin/stagepb", false, false},
		{"core/plugin", "core/runner", false, true},
		{"core/pipeline", "core/runner", false, true},
		{"plugins/filter-basic", "plugins/cache-memory", false, true},
		{"plugins/filter-basic", "core/plugin", false, false},
		{"plugins/filter-basic", "core/runner", false, true},
		{"plugins/sink-kernel", "internal/ctnl", false, false},
		{"plugins/sink-kernel", "internal/testbed", false, true},
		{"plugins/sink-kernel", "internal/testbed", true, false},
		{"internal/bundled", "plugins/sink-kernel", false, false},
		{"internal/ctnl", "core/plugin", false, true},
		{"internal/testbed", "core/flow", false, true},
		{"cmd/sluice", "core/runner", false, false},
		{"test/node", "internal/testbed", false, false},
	} {
		if got := broken(c.from, c.to, c.test); (got != "") != c.broken {
			t.Errorf("%s imports %s (test %v): %q", c.from, c.to, c.test, got)
		}
	}
}

// Nothing in the tree depends on where it lay when it was written.
func TestNoPathsOfAMachine(t *testing.T) {
	banned := [][]byte{[]byte("/wo" + "rk/"), []byte("/Us" + "ers/"), []byte("/ro" + "ot/")}
	if strings.Count(root, "/") > 1 {
		banned = append(banned, []byte(root+"/"))
	}
	sources(t, func(name string) {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			if !os.IsNotExist(err) { // made by a test that runs beside this one
				t.Error(err)
			}
			return
		}
		for _, b := range banned {
			if i := bytes.Index(text, b); i >= 0 {
				t.Errorf("%s has a path of somebody's machine: %q", name, text[max(0, i-20):min(len(text), i+30)])
			}
		}
	})
}

// Every package says what it is.
func TestPackagesAreDocumented(t *testing.T) {
	documented, seen := map[string]bool{}, map[string]bool{}
	sources(t, func(name string) {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || strings.HasSuffix(name, ".pb.go") {
			return
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		seen[path.Dir(name)] = true
		documented[path.Dir(name)] = documented[path.Dir(name)] || file.Doc != nil
	})
	for dir := range seen {
		if !documented[dir] {
			t.Errorf("%s has no comment on its package: write doc.go", dir)
		}
	}
}

// What only tests, pictures of the benchmark and the like need is not in the binary.
func TestBinaryLinksNoTools(t *testing.T) {
	cmd := exec.Command("go", "list", "-deps", "./cmd/sluice")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	packages := strings.Fields(string(out))
	if !slices.Contains(packages, module+"core/runner") {
		t.Fatalf("the list lacks the runner: %d packages", len(packages))
	}
	for _, p := range packages {
		if strings.HasPrefix(p, "gonum.org/") || strings.HasPrefix(p, module+"test/") || p == module+"internal/testbed" {
			t.Errorf("sluice links %s", p)
		}
	}
}
