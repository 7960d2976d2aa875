package picture

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/rates"
)

var update = flag.Bool("update", false, "write the golden files")

// live is a node with a fan-out, a stage that waits, and one that loses.
func live() *Graph {
	status := &control.Status{Node: `fw<1> & "co"`, Pipelines: []control.PipelineStatus{
		{Name: "local", Stages: []control.StageStatus{
			{Address: "local.source.netlink", Kind: "source", Type: "netlink", State: "running", PID: 7, EventsOut: 5000},
			{Address: "local.filter.basic", Kind: "filter", Type: "basic", State: "running", PID: 8, EventsIn: 5000, EventsOut: 4000, Lost: 12},
			{Address: "local.cache.memory", Kind: "cache", Type: "memory", State: "running", PID: 9, EventsIn: 4000, EventsOut: 3000},
			{Address: "local.sink.multicast", Kind: "sink", Type: "multicast", State: "running", PID: 10, EventsIn: 3000},
			{Address: "local.sink.flow-log", Kind: "sink", Type: "log", State: "waiting", Restarts: 3, LastError: "exit status 1"},
		}},
		{Name: "peers", Stages: []control.StageStatus{
			{Address: "peers.source.multicast", Kind: "source", Type: "multicast", State: "running"},
			{Address: "peers.sink.kernel", Kind: "sink", Type: "kernel", State: "running"},
		}},
	}}
	r := rates.Rates{
		"local.source.netlink": {Out: 12345, CPU: 3.14159}, "local.filter.basic": {In: 12345, Lost: 2},
		"local.cache.memory": {In: 1000}, "local.sink.multicast": {In: 0.25}, "peers.sink.kernel": {},
	}
	return Running(status, r)
}

func TestGolden(t *testing.T) {
	for file, write := range map[string]func(io.Writer, *Graph) error{"testdata/live.svg": WriteSVG, "testdata/live.dot": WriteDOT} {
		var b bytes.Buffer
		if err := write(&b, live()); err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), b.String()); d != "" {
			t.Errorf("%s: -want +got (go test -update writes it):\n%s", file, d)
		}
	}
}

// The SVG is well formed whatever names have in them, and shows them.
func TestSVGIsXML(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSVG(&b, live()); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for d := xml.NewDecoder(&b); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := token.(xml.CharData); ok {
			texts = append(texts, strings.TrimSpace(string(c)))
		}
	}
	all := strings.Join(texts, "\n")
	for _, want := range []string{`Pipelines of fw<1> & "co"`, "flow-log", "12.3k/s", "0.2/s", "waiting", "12 lost", "exit status 1"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in:\n%s", want, all)
		}
	}
}

// Boxes neither overlap nor leave the picture.
func TestLayout(t *testing.T) {
	g := live()
	rows, width, height := lay(g)
	var all []place
	for i, r := range rows {
		for j, p := range r.places {
			if p.x < edge || p.y < r.top+heading || p.x+p.width > width-edge+0.1 || p.y+p.height > height-edge+0.1 {
				t.Errorf("%s: %v is outside of %v × %v", g.Pipelines[i].Stages[j].Address, p, width, height)
			}
			for _, o := range all {
				if p.x < o.x+o.width && o.x < p.x+p.width && p.y < o.y+o.height && o.y < p.y+p.height {
					t.Errorf("%s: %v overlaps %v", g.Pipelines[i].Stages[j].Address, p, o)
				}
			}
			all = append(all, p)
		}
	}
}

// Edges are those that the runner makes: a chain, and a fan at its end.
func TestEdges(t *testing.T) {
	var got [][2]string
	p := live().Pipelines[0]
	p.edges(func(from, to int) { got = append(got, [2]string{p.Stages[from].Name, p.Stages[to].Name}) })
	want := [][2]string{{"netlink", "basic"}, {"basic", "memory"}, {"memory", "multicast"}, {"memory", "flow-log"}}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

func TestPerSecond(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0/s", -1: "0/s", 0.25: "0.2/s", 3: "3/s", 9.96: "10/s", 12.3: "12/s", 999.4: "999/s", 999.6: "1.0k/s", 1500: "1.5k/s",
		230400: "230k/s", 999600: "1.0M/s", 1.2e6: "1.2M/s",
	} {
		if got := PerSecond(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}
