package cases

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

// eventsOf makes what came out of lines.
func eventsOf(t *testing.T, text string) (all []event) {
	t.Helper()
	for _, line := range strings.Fields(text) {
		parsed, err := flow.ParseText(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, event{parsed, line})
	}
	return all
}

func linesOf(t *testing.T, text string) (all []Line) {
	t.Helper()
	for _, e := range eventsOf(t, text) {
		all = append(all, Line{Text: e.Text, Source: e.line})
	}
	return all
}

// Every way to state what comes out, met and not.
func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name string
		x    Expect
		want string // events stated
		got  string
		ok   bool
	}{
		{"nothing", Expect{}, "", "", true},
		{"too many", Expect{}, "", "mark=1", false},
		{"too few", Expect{}, "mark=1", "", false},
		{"in order", Expect{}, "mark=1 mark=2", "mark=1 mark=2", true},
		{"out of order", Expect{}, "mark=2 mark=1", "mark=1 mark=2", false},
		{"twice", Expect{}, "mark=1", "mark=1 mark=1", false},
		{"any order", Expect{AnyOrder: true}, "mark=2 mark=1", "mark=1 mark=2", true},
		{"any order, the wide line first", Expect{AnyOrder: true}, "src=10.0.0.0/8 src=10.0.0.1", "src=10.0.0.1 src=10.0.0.2", true},
		{"any order, one is wrong", Expect{AnyOrder: true}, "src=10.0.0.0/8 src=10.0.0.1", "src=10.0.0.3 src=10.0.0.2", false},
		{"others", Expect{Others: true}, "mark=2 mark=4", "mark=1 mark=2 mark=3 mark=4", true},
		{"others, out of order", Expect{Others: true}, "mark=4 mark=2", "mark=1 mark=2 mark=3 mark=4", false},
		{"others, in any order", Expect{Others: true, AnyOrder: true}, "mark=4 mark=2", "mark=1 mark=2 mark=3 mark=4", true},
	} {
		c.x.Count, c.x.HasLines, c.x.Events = -1, true, linesOf(t, c.want)
		if text := c.x.compare(eventsOf(t, c.got)); (text == "") != c.ok {
			t.Errorf("%s: %s", c.name, text)
		}
	}
	x := Expect{Count: 2}
	if text := x.compare(eventsOf(t, "mark=1")); !strings.HasPrefix(text, "1 event, not 2\n    mark=1") {
		t.Error(text)
	}
	x = Expect{Count: -1, Absent: linesOf(t, "mark=1 mark=3")}
	if text := x.compare(eventsOf(t, "mark=2 mark=3")); !strings.Contains(text, "mark=3") || strings.Contains(text, "mark=2") {
		t.Error(text)
	}
}

// A message has an end, and a comparison too.
func TestCompareBounds(t *testing.T) {
	var many strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&many, "mark=%d ", i)
	}
	got := eventsOf(t, many.String())
	x := Expect{Count: 1}
	if text := x.compare(got); strings.Count(text, "\n") > shownEvents+2 {
		t.Errorf("%d lines", strings.Count(text, "\n"))
	}
	x = Expect{Count: -1, HasLines: true, Events: linesOf(t, "timeout=1")}
	if text := x.compare(got); strings.Count(text, "\n") > 2*shownLines+2 || !strings.Contains(text, "and 29") {
		t.Errorf("%d lines:\n%.3000s", strings.Count(text, "\n"), text)
	}
	x.Events = linesOf(t, many.String())
	if text := x.compare(got); !strings.Contains(text, "too many to compare") {
		t.Errorf("%.300s", text)
	}
}

// Files are found by name, and what a file is about by what is beside it.
func TestFind(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a[b]")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const text = "test \"x\" {\n  stage = \"p.filter.basic\"\n  expect {\n    count = 0\n  }\n}\n"
	for name, content := range map[string]string{"one.test.hcl": text, "one.hcl": "", "two.test.hcl": text, "three.hcl": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Find([]string{dir, filepath.Join(dir, "one.test.hcl")})
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for i, want := range []string{filepath.Join(dir, "one.hcl"), dir} {
		f, _, diags := Load(files[i])
		if f == nil {
			t.Fatal(diags)
		}
		if len(f.Pipelines) != 1 || f.Pipelines[0] != want {
			t.Errorf("%s is about %v", files[i], f.Pipelines)
		}
	}
}
