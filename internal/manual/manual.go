package manual

import (
	"bytes"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/internal/bundled"
)

// A Book says where pages come from and what is printed at their edges.
type Book struct {
	Root    string // the repository
	Version string
	Date    time.Time
}

// Pages returns the pages by their file names, as in sluice-run.1.
func (b Book) Pages(commands *cobra.Command) (map[string][]byte, error) {
	pages := map[string][]byte{}
	if err := b.commands(pages, commands); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(b.Root, "docs/pipelines.md"))
	if err != nil {
		return nil, err
	}
	pages["sluice.hcl.5"] = b.language(text)
	for _, d := range bundled.Definitions {
		m := plugin.Describe(d)
		name := m.Kind + "-" + m.Type
		text, err := os.ReadFile(filepath.Join(b.Root, "plugins", name, "README.md"))
		if err != nil {
			return nil, err
		}
		pages["sluice-"+name+".5"] = b.plugin(m, text)
	}
	return pages, nil
}

//go:embed files.md
var files string

// commands makes the pages of a command and of those below it.
func (b Book) commands(pages map[string][]byte, c *cobra.Command) error {
	if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
		return nil
	}
	c.DisableAutoGenTag = true
	var page bytes.Buffer
	err := doc.GenMan(c, &doc.GenManHeader{Section: "1", Date: &b.Date, Source: "Sluice " + b.Version, Manual: "Sluice"}, &page)
	if err != nil {
		return fmt.Errorf("%s: %w", c.CommandPath(), err)
	}
	if !c.HasParent() {
		page.Write(md2man.Render([]byte(files)))
	}
	pages[strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"] = []byte(installed(page.String()))
	for _, below := range c.Commands() {
		if err := b.commands(pages, below); err != nil {
			return err
		}
	}
	return nil
}

// language makes sluice.hcl(5): the page on pipelines, up to its reference, of
// which the runner block stays.
func (b Book) language(text []byte) []byte {
	text, _, _ = bytes.Cut(text, []byte("\n## Reference\n"))
	intro, rest, _ := strings.Cut(string(text), "\n## ")
	_, intro, _ = strings.Cut(intro, "\n") // the title
	var page strings.Builder
	page.WriteString("## Name\n\nsluice.hcl - pipelines of sluice(1), and its settings\n\n## Description\n" + intro + "\n## " + rest)
	page.WriteString("\n\n## The runner block\n\nThe block may be left out. Nothing in it is required.\n\n")
	writeSchema(&page, pipeline.RunnerSchema(), "")
	page.WriteString("## See also\n\n**sluice**(1)")
	var plugins []string
	for _, d := range bundled.Definitions {
		plugins = append(plugins, fmt.Sprintf(", **sluice-%s-%s**(5)", d.Kind, d.Type))
	}
	slices.Sort(plugins)
	page.WriteString(strings.Join(plugins, "") + "\n")
	return b.render("sluice.hcl", page.String())
}

// plugin makes the page of a plugin: its README with the schema before the
// examples.
func (b Book) plugin(m *stagepb.Description, readme []byte) []byte {
	name := "sluice-" + m.Kind + "-" + m.Type
	_, text, _ := strings.Cut(string(readme), "\n## Name\n")
	_, text, _ = strings.Cut(text, "\n## ")
	head, examples, _ := strings.Cut(text, "\n## Examples\n")
	summary := strings.TrimSuffix(strings.ReplaceAll(m.Summary, "\n", " "), ".")
	var page strings.Builder
	fmt.Fprintf(&page, "## Name\n\n%s - %s\n\n## %s\n\n## Attributes\n\n", name, strings.ToLower(summary[:1])+summary[1:], head)
	writeSchema(&page, m.Schema, "")
	fmt.Fprintf(&page, "## Examples\n%s\n\n## See also\n\n**sluice**(1), **sluice.hcl**(5)\n", examples)
	return b.render(name, page.String())
}

// writeSchema writes a list of attributes, then one for each block inside.
func writeSchema(b *strings.Builder, s *stagepb.Schema, inside string) {
	for _, a := range s.Attributes {
		note := ""
		switch {
		case a.Required:
			note = " (required)"
		case a.Default != "":
			note = " (default `" + a.Default + "`)"
		}
		fmt.Fprintf(b, "`%s`%s\n: %s\n\n", a.Name, note, oneLine(a.Doc))
	}
	for _, block := range s.Blocks {
		name, times := strings.TrimSpace(inside+" "+block.Name), "at most once"
		if block.Repeated {
			times = "any number of times"
		}
		fmt.Fprintf(b, "### %s { }\n\nA block, %s. %s\n\n", name, times, oneLine(block.Doc))
		writeSchema(b, block.Schema, name)
	}
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", " ") }

// render makes a page of section 5 of Markdown.
func (b Book) render(name, text string) []byte {
	title := fmt.Sprintf("%% %q \"5\" %q %q \"Sluice\"\n\n", strings.ToUpper(name), b.Date.UTC().Format("Jan 2006"), "Sluice "+b.Version)
	return md2man.Render([]byte(title + installed(forRoff(text))))
}
