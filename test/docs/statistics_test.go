package docs

import (
	"context"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/control"
)

const (
	operations      = "docs/operations.md"
	beginStatistics = "<!-- Generated from the code by `go test ./test/docs -run Statistics -update`: don't edit from here … -->\n"
	endStatistics   = "<!-- … to here. -->\n"
)

// A statistic is a number as its plugin's source declares it.
type statistic struct{ plugin, name, help, typ string }

// TestStatistics: the page explains every number that a bundled plugin shows,
// in the plugin's own words.
func TestStatistics(t *testing.T) {
	var table strings.Builder
	last := ""
	for _, s := range statistics(t) {
		if s.plugin != last {
			fmt.Fprintf(&table, "\n**%s**\n\n| name | type | what |\n| --- | --- | --- |\n", s.plugin)
			last = s.plugin
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", s.name, s.typ, s.help)
	}
	text := readPage(t, operations).text
	before, rest, ok := strings.Cut(text, beginStatistics)
	_, after, ok2 := strings.Cut(rest, endStatistics)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table: write %s%s", operations, beginStatistics, endStatistics)
	}
	want := before + beginStatistics + table.String() + "\n" + endStatistics + after
	if text == want {
		return
	}
	if !*update {
		t.Fatalf("%s is out of date: run go test ./test/docs -run Statistics -update", operations)
	}
	if err := os.WriteFile(filepath.Join(root, operations), []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// statistics finds the numbers in the plugins' sources: composite literals with
// a Name, a Help and maybe a Type, and calls of a local function with name and
// help, and maybe a type.
func statistics(t *testing.T) (all []statistic) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "plugins/*/*.go"))
	if err != nil {
		t.Fatal(err)
	}
	meters := map[string]bool{}
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(filepath.Dir(path))
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.EqualFold(f.Name.Name, "statistics") {
				continue
			}
			meters[name] = true
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if s, ok := statisticOf(n); ok {
					s.plugin = strings.Replace(name, "-", " ", 1)
					all = append(all, s)
				}
				return true
			})
		}
	}
	all = append(all, shared(t)...)
	for name := range meters {
		if !slices.ContainsFunc(all, func(s statistic) bool { return s.plugin == strings.Replace(name, "-", " ", 1) }) {
			t.Errorf("%s has statistics, but none was found", name)
		}
	}
	if len(all) < 50 {
		t.Fatalf("only %d statistics found", len(all))
	}
	return all
}

// shared finds the numbers of what several plugins are made of: sinks of the
// Transmitter, sources of the Receiver. Each plugin has them.
func shared(t *testing.T) (all []statistic) {
	t.Helper()
	for _, kind := range []string{"sink", "source"} {
		file := map[string]string{"sink": "transmitter_statistics.go", "source": "receiver_statistics.go"}[kind]
		parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, "internal/synclink", file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.EqualFold(f.Name.Name, "statistics") {
				continue
			}
			ast.Inspect(f.Body, func(n ast.Node) bool {
				if s, ok := statisticOf(n); ok {
					s.plugin = strings.Join(users(t, kind), ", ")
					all = append(all, s)
				}
				return true
			})
		}
	}
	return all
}

// users lists the plugins of a kind that use internal/synclink.
func users(t *testing.T, kind string) (names []string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "plugins", kind+"-*", "config.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "internal/synclink") {
			names = append(names, strings.Replace(filepath.Base(filepath.Dir(path)), "-", " ", 1))
		}
	}
	return names
}

func statisticOf(n ast.Node) (s statistic, ok bool) {
	s.typ = "counter"
	switch n := n.(type) {
	case *ast.CompositeLit:
		for _, e := range n.Elts {
			if kv, isKV := e.(*ast.KeyValueExpr); isKV {
				s.set(fmt.Sprint(kv.Key), kv.Value)
			}
		}
	case *ast.CallExpr:
		if len(n.Args) >= 3 {
			s.set("Name", n.Args[0])
			s.set("Help", n.Args[1])
			s.set("Type", n.Args[2])
		}
	}
	return s, s.name != "" && s.help != ""
}

func (s *statistic) set(field string, value ast.Expr) {
	switch v := value.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(v.Value)
		switch {
		case err != nil:
		case field == "Name":
			s.name = text
		case field == "Help":
			s.help = text
		}
	case *ast.SelectorExpr:
		if field == "Type" && slices.Contains([]string{"Counter", "Gauge", "Loss"}, v.Sel.Name) {
			s.typ = strings.ToLower(v.Sel.Name)
		}
	}
}

// checkStatistics compares what nodes show with the page, which finds what the
// parser of sources overlooks.
func checkStatistics(t *testing.T, clients ...*control.Client) {
	t.Helper()
	known := map[string]bool{}
	for _, s := range statistics(t) {
		for plugin := range strings.SplitSeq(s.plugin, ", ") {
			known[plugin+" "+s.name] = true
		}
	}
	checked := 0
	for _, c := range clients {
		status, err := c.Status(contextOf(patience))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range status.Pipelines {
			for _, s := range p.Stages {
				for _, one := range s.Statistics {
					name := s.Kind + " " + s.Type + " " + one.Name
					if s.Type != "ended" && !known[name] {
						t.Errorf("%s shows %q, which the page does not explain", s.Address, one.Name)
					}
					checked++
				}
			}
		}
	}
	if checked < 50 {
		t.Errorf("only %d statistics", checked)
	}
}

// contextOf ends by itself.
func contextOf(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	time.AfterFunc(d, cancel)
	return ctx
}
