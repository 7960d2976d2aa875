package conntrackdconf

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	page  = "../../docs/migration.md"
	begin = "<!-- Made from the table in internal/conntrackdconf/directives.go (go test ./internal/conntrackdconf -update): don't edit from here … -->\n"
	end   = "<!-- … to here. -->"
)

// The table of docs/migration.md is that of the code.
func TestMigrationPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		t.Fatalf("%s has no place for the table between %q and %q", page, begin, end)
	}
	want := before + begin + directives() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("%s is not of this code; -update writes it (-want +got):\n%s", page, diff)
	}
}

// directives writes the table as Markdown, a part for each section at the top
// of a file.
func directives() string {
	var text strings.Builder
	for _, top := range []string{"Sync", "General", "Stats", "Helper"} {
		fmt.Fprintf(&text, "\n### %s\n\n| directive | in | becomes | |\n| --- | --- | --- | --- |\n", top)
		for _, r := range table {
			sections := strings.ReplaceAll(strings.Join(r.sections, ", "), "/", " ")
			if !strings.HasPrefix(sections, top) && r.syntax.name != top {
				continue
			}
			becomes := r.to
			if becomes == "" {
				becomes = "–"
			}
			fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n",
				strings.ReplaceAll(r.syntax.text, "|", `\|`), sections, becomes, r.remark)
		}
	}
	return text.String() + "\n"
}

// Every row is fit for a reader: it says what a directive becomes, or why it
// becomes nothing.
func TestTable(t *testing.T) {
	for _, r := range table {
		if r.to == "" && r.remark == "" {
			t.Errorf("%q becomes nothing, and nothing says why", r.syntax.text)
		}
		if r.convert == nil && !strings.HasPrefix(r.remark, "As ") && r.to == "" {
			t.Errorf("%q has neither a conversion nor a block that has one", r.syntax.text)
		}
	}
}
