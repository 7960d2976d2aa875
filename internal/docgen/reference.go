package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/internal/bundled"
)

// The lines between which a page is generated.
const (
	begin = "<!-- Generated from the schemas by `make docs`: don't edit from here … -->\n"
	end   = "<!-- … to here. -->\n"
)

// Insert puts text between the marks of a page.
func Insert(page []byte, text string) ([]byte, error) {
	head, rest, ok := bytes.Cut(page, []byte(begin))
	_, tail, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return nil, errors.New("no marks to put the reference between")
	}
	return bytes.Join([][]byte{head, []byte(begin), []byte("\n" + text), []byte(end), tail}, nil), nil
}

// Reference is the reference of the runner block and of all bundled plugins.
func Reference() string {
	var b strings.Builder
	b.WriteString("### runner\n\nThe block may be left out. Nothing in it is required.\n\n")
	writeSchema(&b, pipeline.RunnerSchema(), "")
	for _, d := range bundled.Definitions {
		m := plugin.Describe(d)
		fmt.Fprintf(&b, "### %s %q\n\n%s More in [its README](../plugins/%s-%s/README.md).\n\n", m.Kind, m.Type, m.Summary, m.Kind, m.Type)
		writeSchema(&b, m.Schema, "")
	}
	return b.String()
}

// writeSchema writes a table of attributes, then one for each block inside.
func writeSchema(b *strings.Builder, s *stagepb.Schema, inside string) {
	if len(s.Attributes) > 0 {
		b.WriteString("| attribute | type | default | meaning |\n| --- | --- | --- | --- |\n")
		for _, a := range s.Attributes {
			fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", a.Name, typeOf(a), defaultOf(a), cell(a.Doc))
		}
		b.WriteString("\n")
	}
	for _, block := range s.Blocks {
		name, times := strings.TrimSpace(inside+" "+block.Name), "at most once"
		if block.Repeated {
			times = "any number of times"
		}
		fmt.Fprintf(b, "Block `%s`, %s: %s\n\n", name, times, cell(block.Doc))
		writeSchema(b, block.Schema, name)
	}
}

// typeOf names a type by what its strings mean.
func typeOf(a *stagepb.Attribute) string {
	what := a.Format
	if what == "selection" {
		return "bool, or list of strings"
	}
	if what == "" || what == "text" {
		what = "string"
		if a.Type == "number" || a.Type == "bool" || strings.Contains(a.Type, "(number)") {
			what = strings.TrimSuffix(a.Type[strings.Index(a.Type, "(")+1:], ")")
		}
	}
	switch {
	case strings.HasPrefix(a.Type, "list("):
		return "list of " + plural(what)
	case strings.HasPrefix(a.Type, "map("):
		return "map of " + plural(what)
	}
	return what
}

func plural(what string) string {
	if strings.HasSuffix(what, "s") || strings.HasSuffix(what, "x") {
		return what + "es"
	}
	return what + "s"
}

func defaultOf(a *stagepb.Attribute) string {
	switch {
	case a.Required:
		return "**required**"
	case a.Default == "":
		return "–"
	}
	return "`" + cell(a.Default) + "`"
}

// cell escapes what would end a table's cell or begin a tag.
func cell(text string) string {
	return strings.NewReplacer("|", `\|`, "<", `\<`, "\n", " ").Replace(text)
}
