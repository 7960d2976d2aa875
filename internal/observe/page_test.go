package observe

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
)

// told is a node that is as a test says, and more so each time it is asked.
type told struct {
	mu    sync.Mutex
	times uint64
	make  func(times uint64) *control.Status
}

func (n *told) Status(context.Context) (*control.Status, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.times++
	return n.make(n.times), nil
}

func (n *told) Health() control.Health { return n.make(1).Health }

// firewall is one of a pair under traffic.
func firewall(times uint64) *control.Status {
	now := time.Now()
	stage := func(address string, more control.StageStatus) control.StageStatus {
		parts := strings.Split(address, ".")
		more.Address, more.Kind, more.Type = address, parts[1], parts[2]
		more.State, more.Since, more.PID, more.Answered = "running", now.Add(-26*time.Hour), 4711, now
		more.EventsIn, more.EventsOut = 81234567+24000*times, 81234567+24000*times
		more.CPUSeconds, more.MemoryBytes, more.QueueLimit = 1234+0.12*float64(times), 19<<20, 2<<20
		return more
	}
	flows := func(held uint64, by ...control.Statistic) []control.Statistic {
		return append([]control.Statistic{{Name: "flows", Type: "gauge", Value: held}, {Name: "flows_limit", Type: "gauge", Value: 1048576}}, by...)
	}
	of := func(protocol, state string, n uint64) control.Statistic {
		return control.Statistic{Name: "flows_by_state", Type: "gauge", Value: n, Labels: map[string]string{"protocol": protocol, "state": state}}
	}
	return &control.Status{
		Node: "fw1", Version: "1.0", Started: now.Add(-26 * time.Hour), Role: "primary",
		Pipelines: []control.PipelineStatus{
			{Name: "local", Stages: []control.StageStatus{
				stage("local.source.netlink", control.StageStatus{}),
				stage("local.filter.basic", control.StageStatus{QueueUsed: 9 << 10}),
				stage("local.cache.memory", control.StageStatus{QueueUsed: 70 << 10, Statistics: flows(187034+times,
					of("tcp", "SYN_SENT", 312), of("tcp", "ESTABLISHED", 143870+times), of("tcp", "TIME_WAIT", 20411), of("udp", "", 22402), of("icmp", "", 39))}),
				stage("local.sink.multicast", control.StageStatus{Note: "sends on eth2"}),
			}},
			{Name: "peers", Stages: []control.StageStatus{
				stage("peers.source.multicast", control.StageStatus{Lost: 12, Restarts: 1, LastError: "signal: killed",
					Peers:      []control.PeerStatus{{Address: "192.168.100.101", Name: "fw2", Up: true, Marks: true, Flows: 90211, Replayed: 3120, Heard: now}},
					Statistics: []control.Statistic{{Name: "messages_lost", Type: "loss", Value: 12, Peer: "fw2 (192.168.100.101)"}},
				}),
				stage("peers.cache.memory", control.StageStatus{Statistics: flows(3120, of("tcp", "ESTABLISHED", 3120))}),
				stage("peers.sink.kernel", control.StageStatus{}),
			}},
		},
		Signals: []control.SignalStatus{{Stage: "peers.source.multicast", Name: "gap", Times: 2, Last: now.Add(-3 * time.Hour), Detail: "12 <messages> of fw2 are missing"}},
		Replays: []control.ReplayStatus{{Stage: "local.source.netlink", Reason: "claim", State: "done", Started: now.Add(-25 * time.Hour), Elapsed: 41 * time.Millisecond,
			Counts: []control.Count{{Name: "flows", Value: 3000}, {Name: "new", Value: 3000}}}},
	}
}

// pageOf serves the page of a node.
func pageOf(t *testing.T, n *told) *httptest.Server {
	t.Helper()
	s := newServer(pipeline.Metrics{Page: true}, slog.New(slog.DiscardHandler))
	log := slog.New(s.Lines().Handler(slog.LevelInfo))
	log.Info("stage runs", "stage", "local.source.netlink", "pid", 4711)
	log.Warn("signal", "stage", "peers.source.multicast", "signal", "gap", "detail", "12 <messages> of fw2 are missing")
	server := httptest.NewServer(s.handler(n))
	t.Cleanup(server.Close)
	return server
}

func get(t *testing.T, url string) string {
	t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var b strings.Builder
	if _, err := fmt.Fprint(&b, answer.Header.Get("Content-Security-Policy"), "\n"); err != nil {
		t.Fatal(err)
	}
	text := make([]byte, 1<<20)
	for {
		n, err := answer.Body.Read(text)
		b.Write(text[:n])
		if err != nil {
			return b.String()
		}
	}
}

// Without a script the page says how the node is.
func TestPageWithoutScript(t *testing.T) {
	text := get(t, pageOf(t, &told{make: firewall}).URL)
	for _, want := range []string{
		"<h1>fw1</h1>", "in sync", "<b>primary</b>", `<tr id="local.cache.memory">`, `href="#local.cache.memory"`, "<svg ",
		"192.168.100.101", "fw2 (Sluice)", "143\u202f871", "last error: signal: killed", "12 &lt;messages&gt;",
		"12 &lt;messages&gt; of fw2 are missing&#34;", "default-src 'none'", "<noscript><meta http-equiv=\"refresh\"",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// Everything that the page loads is its own.
func TestPageIsItsOwn(t *testing.T) {
	server := pageOf(t, &told{make: firewall})
	text := get(t, server.URL)
	for _, m := range regexp.MustCompile(`(?:src|href)="([^"]*)"`).FindAllStringSubmatch(text, -1) {
		switch target := m[1]; {
		case strings.HasPrefix(target, "data:,"):
		case strings.HasPrefix(target, "#"):
			if !strings.Contains(text, `id="`+target[1:]+`"`) {
				t.Errorf("%s leads nowhere", target)
			}
		case strings.Contains(target, ":") || strings.HasPrefix(target, "/"):
			t.Errorf("%s is not relative", target)
		default:
			if answer, err := http.Get(server.URL + "/" + target); err != nil || answer.StatusCode >= 400 && target != "readyz" {
				t.Errorf("%s: %v, %v", target, answer, err)
			}
		}
	}
}

func TestNoPageUnlessWanted(t *testing.T) {
	s := newServer(pipeline.Metrics{}, slog.New(slog.DiscardHandler))
	server := httptest.NewServer(s.handler(&told{make: firewall}))
	defer server.Close()
	for path, want := range map[string]int{"/": 404, "/now": 404, "/debug/pprof/": 404, "/debug/pprof/heap": 404, "/metrics": 200, "/readyz": 200} {
		answer, err := http.Get(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != want {
			t.Errorf("%s: %s, not %d", path, answer.Status, want)
		}
	}
	if s.Lines() != nil {
		t.Error("lines are kept for nobody")
	}
}

func TestLines(t *testing.T) {
	l := &Lines{}
	log := slog.New(l.Handler(slog.LevelInfo))
	log.Debug("too fine")
	for i := range 2 * keepLines {
		log.Info("line", "i", i, "long", strings.Repeat("ü", maxLine))
	}
	got := l.newest()
	if len(got) != keepLines || !strings.Contains(got[0], fmt.Sprintf("i=%d ", 2*keepLines-1)) || len(got[0]) > maxLine+4 {
		t.Errorf("%d lines, the newest is %s", len(got), got[0])
	}
}

// browse runs Chromium without a window on a page, for some seconds of its time.
func browse(t *testing.T, args ...string) string {
	t.Helper()
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("needs chromium: apt-get install chromium")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, chromium, append([]string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--user-data-dir=" + t.TempDir(),
	}, args...)...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	return string(out)
}

// reloaded is the firewall, but for what it was told when it was asked a second
// time: a filter stands in the place of a cache, and a sink is gone.
func reloaded(times uint64) *control.Status {
	s := firewall(times)
	if times > 1 {
		s.Reload = &control.ReloadStatus{Time: time.Now().Add(-90 * time.Second), Result: control.ReloadFailed, Error: "nothing is changed: <line> 4"}
		stage := &s.Pipelines[0].Stages[2]
		stage.Address, stage.Kind, stage.Type, stage.Statistics = "local.filter.vendor", "filter", "vendor", nil
		s.Pipelines[1].Stages = s.Pipelines[1].Stages[:2]
	}
	return s
}

// The page tells of the last reload.
func TestPageAfterAReload(t *testing.T) {
	n := &told{make: reloaded}
	url := pageOf(t, n).URL
	if text := get(t, url); strings.Contains(text, "reload") {
		t.Errorf("there was none yet: %s", text)
	}
	var text string
	eventually(t, "the node is asked again", func() bool { text = get(t, url); return strings.Contains(text, "reload") })
	for _, want := range []string{"the last reload failed: nothing is changed: &lt;line&gt; 4", "reload failed</b> <b>1m", `<tr id="local.filter.vendor">`} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
}

// In a browser rates come to life, also where a reload brought other stages.
func TestPageInABrowser(t *testing.T) {
	n := &told{make: reloaded}
	server := pageOf(t, n)
	// The browser's own time goes on only while it waits for nobody; each look
	// takes as long as it must for a rate.
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/now" {
			time.Sleep(shortestLook)
		}
		server.Config.Handler.ServeHTTP(w, r)
	}))
	defer slow.Close()
	text := browse(t, "--virtual-time-budget=5000", "--dump-dom", slow.URL)
	looks := regexp.MustCompile(`data-looks="([0-9]+)"`).FindStringSubmatch(text)
	if looks == nil || !regexp.MustCompile(`<td class="n">[0-9.]+k?/s`).MatchString(text) || !strings.Contains(text, `sluice-rate`) {
		t.Errorf("looks %v; no rates in the page:\n%s", looks, text)
	}
	if strings.Contains(text, "local.cache.memory") || strings.Contains(text, "peers.sink.kernel") || strings.Count(text, "local.filter.vendor") < 3 || strings.Count(text, "<tr id=") != 6 {
		t.Errorf("the page does not show what a reload made:\n%s", text)
	}
	if strings.Contains(text, `class="old"`) || !strings.Contains(text, `<button id="pause" type="button" aria-pressed="false">Pause</button>`) {
		t.Errorf("the script has not done its work:\n%s", text)
	}
}
