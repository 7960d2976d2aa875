package picture

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Sizes in pixels. Texts are measured by their characters, generously: fonts
// differ from reader to reader.
const (
	edge       = 16 // of the picture
	heading    = 30 // of a pipeline
	lineHeight = 17
	padding    = 11 // within a box
	character  = 7.6
	narrowest  = 112 // box
	shortest   = 44  // edge without text
	between    = 14  // boxes of a column
	apart      = 22  // pipelines
)

// style has a colour a kind, and both a light and a dark ground.
const style = `.sluice-ground{fill:#fff}
.sluice-box{fill:#f6f8fa;stroke:#8c959f}
.sluice-trouble .sluice-box{stroke:#cf222e;stroke-width:2;stroke-dasharray:5 3}
.sluice-source .sluice-stripe{fill:#0969da}.sluice-filter .sluice-stripe{fill:#bf8700}
.sluice-cache .sluice-stripe{fill:#1a7f37}.sluice-sink .sluice-stripe{fill:#8250df}
.sluice-edge{stroke:#57606a;stroke-width:1.5;fill:none}.sluice-tip{fill:#57606a}
.sluice-picture text{font:13px system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;fill:#1f2328}
.sluice-picture .sluice-head{font-weight:600}
.sluice-picture .sluice-small,.sluice-picture .sluice-rate{font-size:12px;fill:#57606a}
.sluice-picture .sluice-rate{text-anchor:middle}
@media (prefers-color-scheme:dark){.sluice-ground{fill:#0d1117}.sluice-box{fill:#161b22;stroke:#6e7681}
.sluice-trouble .sluice-box{stroke:#ff7b72}.sluice-picture text{fill:#e6edf3}
.sluice-picture .sluice-small,.sluice-picture .sluice-rate{fill:#9198a1}
.sluice-edge{stroke:#9198a1}.sluice-tip{fill:#9198a1}}
`

// A place is where a box is.
type place struct{ x, y, width, height float64 }

// A row is where a pipeline is.
type row struct {
	top, height float64
	places      []place // of its stages
}

// lay lays a graph out and returns its size.
func lay(g *Graph) (rows []row, width, height float64) {
	box, gap := float64(narrowest), float64(shortest)
	for _, p := range g.Pipelines {
		for i := range p.Stages {
			box = max(box, p.Stages[i].width())
			gap = max(gap, textWidth(p.Stages[i].In)+20)
		}
	}
	y := float64(edge)
	for _, p := range g.Pipelines {
		r := row{top: y, places: make([]place, len(p.Stages))}
		x, down := float64(edge), y+heading
		for i := range p.Stages {
			s := &p.Stages[i]
			if i > 0 && (s.Kind != sink || p.Stages[i-1].Kind != sink) {
				x += box + gap
			}
			r.places[i] = place{x, down, box, s.height()}
			if s.Kind == sink { // the next one stands below
				down += s.height() + between
			}
			r.height = max(r.height, r.places[i].y+r.places[i].height-y)
			width = max(width, x+box)
		}
		width = max(width, edge+textWidth(p.Name+" "+p.Note))
		y += r.height + apart
		rows = append(rows, r)
	}
	return rows, width + edge, y - apart + edge
}

func textWidth(s string) float64 { return character * float64(utf8.RuneCountInString(s)) }

func (s *Stage) lines() []string { return append([]string{s.Kind, s.Name}, s.Notes...) }

func (s *Stage) width() (w float64) {
	for _, l := range s.lines() {
		w = max(w, textWidth(l)+2*padding+6)
	}
	return w
}

func (s *Stage) height() float64 { return 2*padding + lineHeight*float64(len(s.lines())) - 4 }

// WriteSVG draws a graph as one svg element, for a file or within a page.
func WriteSVG(w io.Writer, g *Graph) error {
	rows, width, height := lay(g)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="sluice-picture" role="img" aria-label="%s" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f">`+"\n",
		escape(g.Title), width, height, width, height)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", escape(g.Title), style)
	fmt.Fprintf(&b, `<rect class="sluice-ground" width="%.0f" height="%.0f" rx="6"/>`+"\n", width, height)
	for i := range g.Pipelines {
		drawPipeline(&b, &g.Pipelines[i], rows[i])
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func drawPipeline(b *strings.Builder, p *Pipeline, r row) {
	fmt.Fprintf(b, `<text class="sluice-head" x="%d" y="%.0f">%s`, edge, r.top+lineHeight, escape(p.Name))
	if p.Note != "" {
		fmt.Fprintf(b, `<tspan class="sluice-small" dx="8">%s</tspan>`, escape(p.Note))
	}
	b.WriteString("</text>\n")
	p.edges(func(from, to int) { drawEdge(b, r.places[from], r.places[to], p.Stages[to].In) })
	for i := range p.Stages {
		drawStage(b, &p.Stages[i], r.places[i])
	}
}

// drawEdge draws an arrow: straight, or to a sink further down with a bend.
func drawEdge(b *strings.Builder, from, to place, text string) {
	const tip = 6
	x1, x2 := from.x+from.width, to.x
	y1, y2 := from.y+padding+lineHeight, to.y+padding+lineHeight
	bend := x1 + 12
	fmt.Fprintf(b, `<path class="sluice-edge" d="M%.1f %.1fH%.1fV%.1fH%.1f"/>`, x1, y1, bend, y2, x2-tip)
	fmt.Fprintf(b, `<path class="sluice-tip" d="M%.1f %.1fl-%d -4v8z"/>`, x2, y2, tip+2)
	if text != "" {
		fmt.Fprintf(b, `<text class="sluice-rate" x="%.1f" y="%.1f">%s</text>`, (x1+x2)/2, y2-6, escape(text))
	}
	b.WriteByte('\n')
}

func drawStage(b *strings.Builder, s *Stage, at place) {
	class := "sluice-stage sluice-" + s.Kind
	if s.Trouble {
		class += " sluice-trouble"
	}
	if s.Link != "" {
		fmt.Fprintf(b, `<a href="%s">`, escape(s.Link))
	}
	detail := s.Detail
	if detail == "" {
		detail = s.Address
	}
	fmt.Fprintf(b, `<g class="%s"><title>%s</title>`, escape(class), escape(detail))
	fmt.Fprintf(b, `<rect class="sluice-box" x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="5"/>`, at.x, at.y, at.width, at.height)
	fmt.Fprintf(b, `<rect class="sluice-stripe" x="%.1f" y="%.1f" width="5" height="%.1f" rx="2"/>`, at.x+3, at.y+5, at.height-10)
	for i, l := range s.lines() {
		weight := "sluice-small"
		if i == 1 {
			weight = "sluice-head"
		}
		fmt.Fprintf(b, `<text class="%s" x="%.1f" y="%.1f">%s</text>`, weight, at.x+padding+6, at.y+padding+9+lineHeight*float64(i), escape(l))
	}
	b.WriteString("</g>")
	if s.Link != "" {
		b.WriteString("</a>")
	}
	b.WriteByte('\n')
}

// escape makes text safe within an element and an attribute.
func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
