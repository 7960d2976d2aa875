package picture

import (
	"fmt"
	"io"
	"strings"
)

// WriteDOT writes a graph for Graphviz.
func WriteDOT(w io.Writer, g *Graph) error {
	var b strings.Builder
	b.WriteString("digraph sluice {\n\trankdir=LR;\n\tnode [shape=box, style=rounded, fontname=\"sans-serif\"];\n\tedge [fontname=\"sans-serif\"];\n")
	for i := range g.Pipelines {
		p := &g.Pipelines[i]
		fmt.Fprintf(&b, "\tsubgraph cluster_%d {\n\t\tlabel=%s;\n", i, quote(strings.TrimSpace(p.Name+" "+p.Note)))
		for j := range p.Stages {
			s := &p.Stages[j]
			more := ""
			if s.Trouble {
				more = ", color=red"
			}
			lines := append([]string{s.Kind, s.Name}, s.Notes...)
			fmt.Fprintf(&b, "\t\t%s [label=%s%s];\n", quote(s.Address), quote(lines...), more)
		}
		p.edges(func(from, to int) {
			label := ""
			if in := p.Stages[to].In; in != "" {
				label = " [label=" + quote(in) + "]"
			}
			fmt.Fprintf(&b, "\t\t%s -> %s%s;\n", quote(p.Stages[from].Address), quote(p.Stages[to].Address), label)
		})
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// quote is a DOT string of lines.
func quote(lines ...string) string {
	for i, l := range lines {
		lines[i] = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ").Replace(l)
	}
	return `"` + strings.Join(lines, `\n`) + `"`
}
