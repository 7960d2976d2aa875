package docs

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/test/node"
)

var update = flag.Bool("update", false, "write the generated parts of the pages")

// root is the repository's, as an absolute path; binary is the sluice under test.
var root, binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(node.WithBinary(func(path string) int {
		binary = path
		var err error
		if root, err = filepath.Abs("../.."); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}))
}

// A page is a Markdown file.
type page struct {
	path   string // from the root
	text   string
	blocks []block
	spans  []string // inline code
	prose  string   // what is neither
}

// A block is fenced code.
type block struct {
	language, text string
	line           int
}

var (
	fence = regexp.MustCompile("(?ms)^[ \t]*```([a-z]*)[ \t]*\n(.*?)^[ \t]*```[ \t]*$")
	span  = regexp.MustCompile("`[^`\n]+`")
)

func readPage(t *testing.T, path string) page {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	p := page{path: path, text: string(raw)}
	for _, at := range fence.FindAllStringSubmatchIndex(p.text, -1) {
		p.blocks = append(p.blocks, block{p.text[at[2]:at[3]], p.text[at[4]:at[5]], 1 + strings.Count(p.text[:at[4]], "\n")})
	}
	p.prose = fence.ReplaceAllString(p.text, "")
	for _, s := range span.FindAllString(p.prose, -1) {
		p.spans = append(p.spans, strings.Trim(s, "`"))
	}
	p.prose = span.ReplaceAllString(p.prose, "")
	return p
}

// pages are all of the project's.
func pages(t *testing.T) (all []page) {
	t.Helper()
	for _, pattern := range []string{"*.md", "docs/*.md", "plugins/*/README.md", "pipelines/*.md", "examples/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			rel, err := filepath.Rel(root, path)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, readPage(t, rel))
		}
	}
	if len(all) < 8 {
		t.Fatalf("only %d pages", len(all))
	}
	return all
}

// sluice runs the binary and returns what it wrote.
func sluice(args ...string) (string, error) {
	out, err := exec.Command(binary, args...).CombinedOutput()
	return string(out), err
}
