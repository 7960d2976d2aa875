package observe

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/picture"
	"github.com/sluice-project/sluice/internal/rates"
)

//go:embed page
var pageFiles embed.FS

var pageTemplate = template.Must(template.New("page.html").Funcs(template.FuncMap{
	"rate": picture.PerSecond, "percent": percent, "bytes": sizeOf, "count": grouped, "took": took,
}).ParseFS(pageFiles, "page/page.html"))

// Between two looks at the page rates are known if they are not too close
// together, and not too far apart.
const (
	shortestLook = time.Second
	longestLook  = time.Minute
)

// A page shows a node to a browser: whole at /, and the part that changes at
// /now, which the page's script puts into the page every two seconds. Without
// script the browser loads the whole again every ten.
type page struct {
	node  *node
	lines *Lines

	mu            sync.Mutex
	before, after *control.Status // the last two looks
	beforeAt      time.Time
	afterAt       time.Time

	writing sync.Mutex // held while it is drawn: who comes meanwhile gets the same
	written map[string]drawn
}

// drawn is a page, or part of one, as it was drawn last, and of which state.
type drawn struct {
	of   *control.Status
	text []byte
}

// rates returns what passed since a look that is far enough back, whoever
// looked: nil if there was none.
func (p *page) rates(s *control.Status, now time.Time) rates.Rates {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.after == nil || now.Sub(p.afterAt) >= shortestLook {
		p.before, p.beforeAt, p.after, p.afterAt = p.after, p.afterAt, s, now
	}
	if p.before == nil || now.Sub(p.beforeAt) > longestLook {
		return nil
	}
	return rates.Between(p.before, s, now.Sub(p.beforeAt))
}

// A view is what the template shows.
type view struct {
	*control.Status
	Now     time.Time
	Picture template.HTML
	Stages  []stageView
	Peers   []peerView
	Flows   []flowsView
	Lines   []string
}

type stageView struct {
	control.StageStatus
	Rate  rates.Rate
	Known bool // the rate is
	Full  float64
}

type peerView struct {
	control.PeerStatus
	Stage string
	Lost  uint64 // messages
	Gaps  uint64
}

type flowsView struct {
	Stage       string
	Held, Limit uint64
	By          []control.Statistic // by protocol and state
}

// Ago says how long ago something was, to the second: what changes too often is
// hard to read.
func (v *view) Ago(t time.Time) string {
	ago := v.Now.Sub(t).Truncate(time.Second)
	switch {
	case t.IsZero():
		return "–"
	case ago <= 0:
		return "just now"
	}
	return took(ago) + " ago"
}

// Up says how long the runner has run, to the second.
func (v *view) Up() string { return took(v.Now.Sub(v.Started).Truncate(time.Second)) }

// Wrong lists what an operator should know.
func (v *view) Wrong() []string {
	wrong := slices.Concat(v.Unhealthy, v.Unready)
	if v.Reload != nil && v.Reload.Error != "" {
		wrong = append(wrong, "the last reload failed: "+v.Reload.Error)
	}
	return wrong
}

func (p *page) view(status *control.Status, now time.Time) (*view, error) {
	passed := p.rates(status, now)
	v := &view{Status: status, Now: now, Lines: p.lines.newest()}
	graph := picture.Running(status, passed)
	for i := range graph.Pipelines {
		for j := range graph.Pipelines[i].Stages {
			stage := &graph.Pipelines[i].Stages[j]
			stage.Link = "#" + stage.Address
		}
	}
	var drawing bytes.Buffer
	if err := picture.WriteSVG(&drawing, graph); err != nil {
		return nil, err
	}
	v.Picture = template.HTML(drawing.String()) // picture escapes what it is given
	for _, one := range status.Pipelines {
		for _, s := range one.Stages {
			v.add(s, passed)
		}
	}
	return v, nil
}

func (v *view) add(s control.StageStatus, passed rates.Rates) {
	rate, known := passed[s.Address]
	one := stageView{StageStatus: s, Rate: rate, Known: known}
	if s.QueueLimit > 0 {
		one.Full = 100 * float64(s.QueueUsed) / float64(s.QueueLimit)
	}
	v.Stages = append(v.Stages, one)
	for _, peer := range s.Peers {
		v.Peers = append(v.Peers, peerView{
			PeerStatus: peer, Stage: s.Address,
			Lost: statisticOf(&s, "messages_lost", peer.Address), Gaps: statisticOf(&s, "message_gaps", peer.Address),
		})
	}
	if s.Kind == "cache" {
		flows := flowsView{Stage: s.Address, Held: statisticOf(&s, "flows", ""), Limit: statisticOf(&s, "flows_limit", "")}
		for _, one := range s.Statistics {
			if one.Name == "flows_by_state" {
				flows.By = append(flows.By, one)
			}
		}
		v.Flows = append(v.Flows, flows)
	}
}

func statisticOf(s *control.StageStatus, name, peer string) uint64 {
	for _, one := range s.Statistics {
		if one.Name == name && addressOf(one.Peer) == peer {
			return one.Value
		}
	}
	return 0
}

// serve registers the page.
func (p *page) serve(mux *http.ServeMux) {
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { p.write(w, "page.html") })
	mux.HandleFunc("GET /now", func(w http.ResponseWriter, _ *http.Request) { p.write(w, "now") })
	for _, name := range []string{"page.css", "page.js"} {
		mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
			harden(w)
			http.ServeFileFS(w, r, pageFiles, "page/"+name)
		})
	}
}

// draw returns a part of the page as it is now. Whoever asks how often, it is drawn as
// often as the node is asked how it is.
func (p *page) draw(name string) ([]byte, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	status, err := p.node.status()
	if err != nil {
		return nil, err
	}
	if last := p.written[name]; last.of == status {
		return last.text, nil
	}
	v, err := p.view(status, time.Now())
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	if err := pageTemplate.ExecuteTemplate(&text, name, v); err != nil {
		return nil, err
	}
	if p.written == nil {
		p.written = map[string]drawn{}
	}
	p.written[name] = drawn{status, text.Bytes()}
	return text.Bytes(), nil
}

func (p *page) write(w http.ResponseWriter, name string) {
	text, err := p.draw(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	harden(w)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(text) // the browser has gone away
}

// harden lets the page load what is its own and nothing else, and be part of no
// other. The picture has its style inside.
func harden(w http.ResponseWriter) {
	w.Header().Set("Content-Security-Policy",
		"default-src 'none'; style-src 'self' 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Referrer-Policy", "no-referrer")
}

func percent(v float64) string { return fmt.Sprintf("%.1f %%", v) }

func sizeOf(n uint64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// grouped writes a number in groups of three digits.
func grouped(n uint64) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "\u202f" + text[i:]
	}
	return text
}

// took writes a time shortly.
func took(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second / 10).String()
	case d < time.Hour:
		return d.Round(time.Second).String()
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}
