package observe

import (
	"bytes"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/sluice-project/sluice/core/control"
)

var update = flag.Bool("update", false, "write golden files anew")

func at(second int64) time.Time { return time.Unix(second, 0) }

// example is a node with one of everything.
func example() *control.Status {
	purge := at(1700000100)
	histogram := &control.Histogram{Bounds: []float64{1, 2}, Counts: []uint64{3, 4, 5}, Sum: 30}
	return &control.Status{
		Node: "fw1", Version: "1.0", Started: at(1700000000), Role: "backup", Purge: &purge,
		Signals: []control.SignalStatus{{Stage: "peers.source.multicast", Name: "gap", Times: 2}},
		Reload:  &control.ReloadStatus{Time: at(1700000090), Result: control.ReloadFailed, Error: "no such file", Good: 2, Bad: 1, Loaded: at(1700000060)},
		Health:  control.Health{Unready: []string{"peers.source.multicast replays (gap)"}},
		Pipelines: []control.PipelineStatus{{Name: "peers", Stages: []control.StageStatus{{
			Address: "peers.source.multicast", Kind: "source", Type: "multicast", State: "running", PID: 1, Since: at(1700000001),
			Restarts: 1, EventsOut: 10, BatchesOut: 2, BytesOut: 1000, Answered: at(1800000000), CPUSeconds: 0.5, MemoryBytes: 1 << 20,
			BatchSizes: histogram, BatchAges: histogram, Lost: 7,
			Peers: []control.PeerStatus{{Address: "10.0.0.2", Name: "fw2", Up: true, Flows: 8, Replayed: 3, Heard: at(1700000050)}},
			Statistics: []control.Statistic{
				{Name: "datagrams_received", Help: "datagrams read, of whomever", Type: "counter", Value: 4},
				{Name: "message_gaps", Help: "times that messages of the peer were missing", Type: "counter", Value: 1, Peer: "fw2 (10.0.0.2)"},
				{Name: "messages_lost", Help: "messages of the peer that were missing", Type: "loss", Value: 7, Peer: "fw2 (10.0.0.2)"},
				{Name: "datagrams_dropped", Help: "datagrams that did not fit into the receive buffer", Type: "loss", Value: 0},
			},
		}, {
			Address: "peers.cache.memory", Kind: "cache", Type: "memory", State: "waiting", Since: at(1700000002), LastError: "killed",
			EventsIn: 10, BatchesIn: 2, BytesIn: 1000, QueueBytes: 100, QueueUsed: 768, QueueLimit: 4096, Malformed: 1, EdgeDropped: 2,
			Statistics: []control.Statistic{
				{Name: "flows", Help: "flows in the cache", Type: "gauge", Value: 5},
				{Name: "flows_by_state", Help: "of a state", Type: "gauge", Value: 4, Labels: map[string]string{"protocol": "tcp", "state": "ESTABLISHED"}},
				{Name: "flows_by_state", Help: "of a state", Type: "gauge", Value: 1, Labels: map[string]string{"protocol": "udp", "state": "-"}},
			},
		}}}},
	}
}

func exposition(t *testing.T, s *control.Status) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{&node{last: s, asked: time.Now().Add(time.Hour)}})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// What Prometheus reads of a node is in testdata.
func TestCollect(t *testing.T) {
	const golden = "testdata/metrics.txt"
	got := exposition(t, example())
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", golden, diff)
	}
}

// Names and help are as Prometheus' linter wants them.
func TestConventions(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collector{&node{last: example(), asked: time.Now().Add(time.Hour)}}, durationsOf(metricReplays), durationsOf(metricCommand))
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// Whatever a plugin makes up, the scrape goes on without it.
func TestOddStatistics(t *testing.T) {
	s := example()
	stage := &s.Pipelines[0].Stages[1]
	long := string(bytes.Repeat([]byte("x"), 1<<16))
	stage.Statistics = []control.Statistic{
		{Name: "Odd-Name", Help: "a\nb", Type: "counter", Value: 1},
		{Name: "odd_name", Help: "the same again", Type: "counter", Value: 2},
		{Name: "twice", Type: "loss", Value: 1}, {Name: "twice", Type: "loss", Value: 2},
		{Name: "bad_label", Type: "gauge", Labels: map[string]string{"stage": "another", "0": "digit", "ok": "\xff"}},
		{Name: "", Type: "gauge"}, {Name: "\xff", Type: "unheard of"}, {Name: long, Help: long, Type: "gauge"},
		{Name: "x_total", Type: "gauge", Value: 1}, {Name: "x", Type: "counter", Value: 1},
	}
	for range 2 * maxStatistics {
		stage.Statistics = append(stage.Statistics, control.Statistic{Name: "many", Type: "gauge"})
	}
	text := exposition(t, s)
	for _, want := range []string{
		`sluice_cache_odd_name_total{stage="peers.cache.memory"} 1`,
		`sluice_stage_losses_total{cause="twice",peer="",stage="peers.cache.memory"} 1`,
		`sluice_cache_x_total{stage="peers.cache.memory"} 1`,
		`sluice_source_datagrams_received_total{stage="peers.source.multicast"} 4`,
	} {
		if !bytes.Contains([]byte(text), []byte(want+"\n")) {
			t.Errorf("no line %s", want)
		}
	}
}

func TestMetricOf(t *testing.T) {
	for _, c := range [][4]string{
		{"cache", "flows", "gauge", "sluice_cache_flows"},
		{"cache", "inserted", "counter", "sluice_cache_inserted_total"},
		{"source", "overruns", "loss", "sluice_stage_losses_total"},
		{"filter", "Seen-Total", "counter", "sluice_filter_seen_total"},
	} {
		if got := MetricOf(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%v: %s", c, got)
		}
	}
	for peer, want := range map[string]string{"fw2 (10.0.0.2)": "10.0.0.2", "10.0.0.2": "10.0.0.2", "a (b) (fe80::1)": "fe80::1", "eth2": "eth2"} {
		if got := addressOf(peer); got != want {
			t.Errorf("%s: %s", peer, got)
		}
	}
}
