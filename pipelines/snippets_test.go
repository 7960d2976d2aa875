package pipelines_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// A snippet is HCL between ```hcl and ``` in a page.
type snippet struct {
	line int
	text string
}

var fence = regexp.MustCompile("(?ms)^[ \t]*```hcl[^\n]*\n(.*?)^[ \t]*```[ \t]*$")

// tests match what stands in files *.test.hcl.
var tests = regexp.MustCompile(`(?m)^test "`)

func snippetsOf(page string) (snippets []snippet) {
	for _, at := range fence.FindAllStringSubmatchIndex(page, -1) {
		snippets = append(snippets, snippet{1 + strings.Count(page[:at[2]], "\n"), page[at[2]:at[3]]})
	}
	return snippets
}

// whole makes a configuration of a snippet: stages are put into a pipeline,
// which gets the ends that it lacks, and what is no pipeline gets one beside it.
func whole(t *testing.T, text string) string {
	t.Helper()
	file, diags := hclsyntax.ParseConfig([]byte(text), "snippet", hcl.InitialPos)
	if diags.HasErrors() {
		t.Fatalf("syntax: %v", diags)
	}
	has := map[string]bool{}
	for _, b := range file.Body.(*hclsyntax.Body).Blocks {
		has[b.Type] = true
		if len(b.Labels) > 0 {
			has[b.Type+" "+b.Labels[0]] = true
		}
	}
	const ends = "source \"netlink\" {}\nsink \"kernel\" {}\n"
	switch {
	case has["source"] || has["filter"] || has["cache"] || has["sink"]:
		above, below := "source \"netlink\" {}\n", "sink \"kernel\" {}\n"
		if has["source"] {
			above = ""
		}
		if has["sink"] {
			below = ""
		}
		text = "pipeline \"example\" {\n" + above + text + below + "}\npipeline \"local\" {\n" + ends + "}\n"
	case !has["pipeline"]:
		text += "\npipeline \"example\" {\n" + ends + "}\n"
	case strings.Contains(text, `"local"`) && !has["pipeline local"]:
		text += "\npipeline \"local\" {\n" + ends + "}\n" // named by a scope
	}
	return text
}

// TestSnippets: whoever copies a snippet of the documentation has a pipeline
// that works. Show what is wrong on purpose as ```text.
func TestSnippets(t *testing.T) {
	var pages []string
	for _, pattern := range []string{"../*.md", "../docs/*.md", "../plugins/*/README.md", "../pipelines/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimPrefix(page, "../"), func(t *testing.T) {
			for _, s := range snippetsOf(string(text)) {
				if tests.MatchString(s.text) {
					continue // run by cmd/sluice's tests
				}
				path := filepath.Join(t.TempDir(), "snippet.hcl")
				if err := os.WriteFile(path, []byte(whole(t, s.text)), 0o644); err != nil {
					t.Fatal(err)
				}
				if c, _, found := validate(t, path); c == nil {
					t.Errorf("the snippet at line %d of %s:\n%s", s.line, page, found)
				}
			}
		})
	}
}
