package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/control"
)

var update = flag.Bool("update", false, "write the golden files")

// asSluice is set in the environment of a copy of this test that is to be the
// command itself.
const asSluice = "SLUICE_TEST_AS_COMMAND"

// TestMain lets this binary be sluice, too: for tests that need a process, and
// for the plugins that a runner starts by executing its own binary again.
func TestMain(m *testing.M) {
	confine.Main()
	if os.Getenv(asSluice) != "" || len(os.Args) > 1 && os.Args[1] == pluginExecName {
		main()
	}
	os.Exit(m.Run())
}

// A fake is a running node that is always the same.
type fake struct{}

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return testNow.Add(-d) }

func (fake) Status(context.Context) (*control.Status, error) {
	purge := testNow.Add(12 * time.Second)
	return &control.Status{
		Node: "fw1", Version: "1.0.0", PID: 812, Started: ago(3*time.Hour + 12*time.Minute), Role: "backup", Purge: &purge, Scheduler: "rr 50", Health: control.Health{Unhealthy: []string{}, Unready: []string{"local.sink.multicast does not run"}},
		Pipelines: []control.PipelineStatus{{Name: "local", Stages: localStages()}, {Name: "peers", Stages: peersStages()}},
		Signals: []control.SignalStatus{
			{Stage: "local.source.netlink", Name: "overrun", Times: 2, Last: ago(90 * time.Second), Detail: "ENOBUFS: 128 messages read since"},
			{Stage: "peers.source.multicast", Name: "gap", Times: 1234567, Last: ago(26 * time.Hour),
				Detail: "192.168.100.2:43210: 17 messages after 1203 never came, which is more than the window of the sequence numbers allows"},
		},
		Replays: []control.ReplayStatus{
			{Stage: "local.source.netlink", Reason: "overrun", Started: ago(89 * time.Second), Elapsed: 412 * time.Millisecond, State: "done",
				Counts: []control.Count{{Name: "flows", Value: 65535}, {Name: "swept", Value: 12}}},
			{Stage: "peers.cache.memory", Reason: "commit", Started: ago(time.Hour), Elapsed: 75 * time.Second, State: "failed", Error: "peers.sink.kernel: commit: operation not permitted"},
			{Stage: "peers.source.multicast", Reason: "gap", Started: ago(time.Second), Elapsed: 999 * time.Millisecond, State: "running"},
		},
	}, nil
}

func localStages() []control.StageStatus {
	stage := control.StageStatus{State: "running", Since: ago(3*time.Hour + 11*time.Minute), EventsIn: 99999, EventsOut: 99998, CPUSeconds: 12.34, MemoryBytes: 18 << 20}
	source, cache, filter, sink := stage, stage, stage, stage
	source.Address, source.Kind, source.Type, source.PID, source.Lost, source.EventsOut = "local.source.netlink", "source", "netlink", 820, 3, 123_456_789
	source.Statistics = []control.Statistic{
		{Name: "events_lost", Help: "times that the kernel dropped events", Type: "loss", Value: 3},
		{Name: "buffer_size", Help: "bytes of the socket's receive buffer", Type: "gauge", Value: 2097152},
	}
	source.May = &control.Permissions{User: "60612", Capabilities: []string{"net_admin"}, Network: true, Read: []string{"/proc"}, Write: []string{"/proc/sys/net/netfilter"},
		NoNewPrivileges: true, Seccomp: true, Landlock: 7}
	cache.May = &control.Permissions{User: "root", NoNewPrivileges: true, Seccomp: true}
	cache.Address, cache.Kind, cache.Type, cache.PID, cache.MemoryBytes, cache.QueueBytes = "local.cache.memory", "cache", "memory", 821, 5<<30+1, 212_992
	filter.Address, filter.Kind, filter.Type, filter.PID, filter.CPUSeconds = "local.filter.a-name-longer-than-thirty-columns", "filter", "basic", 822, 7325
	sink.Address, sink.Kind, sink.Type, sink.State, sink.Restarts = "local.sink.multicast", "sink", "multicast", "waiting", 4
	sink.LastError = "open: group 225.0.0.50 on eth2: no such network interface; the next attempt is in 8s, after which they come every 30s"
	sink.Since, sink.CPUSeconds, sink.MemoryBytes = ago(5*time.Second), 0, 0
	return []control.StageStatus{source, cache, filter, sink}
}

func peersStages() []control.StageStatus {
	stage := control.StageStatus{State: "running", Since: ago(50 * time.Hour), PID: 4194304}
	source, cache, sink := stage, stage, stage
	source.Address, source.Kind, source.Type = "peers.source.multicast", "source", "multicast"
	source.Statistics = []control.Statistic{
		{Name: "messages", Help: "messages received", Type: "counter", Value: 17, Peer: "192.168.100.2"},
		{Name: "messages_lost", Help: "messages that never came", Type: "loss", Value: 0, Peer: "192.168.100.2"},
	}
	cache.Address, cache.Kind, cache.Type = "peers.cache.memory", "cache", "memory"
	sink.Address, sink.Kind, sink.Type, sink.State, sink.PID = "peers.sink.kernel", "sink", "kernel", "failed", 0
	return []control.StageStatus{source, cache, sink}
}

func (fake) Dump(ctx context.Context, r control.DumpRequest, out io.Writer) error {
	if r.Target == "nosuch" {
		return errors.New(`dump: no pipeline or stage "nosuch": pipelines are [local peers]`)
	}
	text := "tcp      6 431999 ESTABLISHED src=192.0.2.1 dst=198.51.100.1 sport=40000 dport=443\n"
	if r.What == control.DumpExpectations {
		text = "300 proto=6 src=192.0.2.1 dst=198.51.100.1 sport=0 dport=40000\n"
	}
	if slices.Contains(r.Args, "format=recording") {
		return recorded(ctx, out)
	}
	if r.What == control.DumpTap {
		_, err := io.WriteString(out, "# tapping; interrupt to end\n [UPDATE] "+text)
		return err
	}
	if r.What == control.DumpStats {
		text = "flows 2\n"
	}
	if r.JSON {
		text = `{"protocol":"tcp"}` + "\n"
	}
	for range 2 {
		io.WriteString(out, text)
	}
	if len(r.Args) > 0 {
		return errors.New("peers.cache.memory: dump: unknown filter " + strconv.Quote(strings.Join(r.Args, " ")))
	}
	return nil
}

func (fake) Plan(_ context.Context, configuration []byte) (*control.Plan, error) {
	plan := &control.Plan{Stages: []control.StagePlan{
		{Address: "local.source.netlink", Pipeline: "local", Action: control.Rewire, Reasons: []control.ReasonPlan{{Text: "it has other stages below it"}}},
		{Address: "local.filter.basic", Pipeline: "local", Action: control.Replace, Cost: []string{"a moment"},
			Reasons: []control.ReasonPlan{{Attribute: "protocol.accept", Old: `["tcp"]`, New: `["tcp","udp"]`}, {Attribute: "name", New: `"x"`}}},
		{Address: "local.cache.memory", Pipeline: "local", Action: control.Keep},
		{Address: "peers.sink.log", Pipeline: "peers", Action: control.Add},
	}, Replays: []control.ReplayPlan{
		{Stage: "local.source.netlink", From: "kernel", Down: true}, {Stage: "peers.cache.memory", From: "memory", Into: "peers.sink.log"},
	}}
	if len(configuration) > 0 { // of a file, in which the socket is another one
		plan = &control.Plan{Stages: []control.StagePlan{{Address: "p.source.netlink", Pipeline: "p", Action: control.Keep}},
			Settings: []control.SettingPlan{{Name: "control.path", Old: `"/a"`, New: `"/b"`, Refused: "administrators find this runner there: restart the runner for it"},
				{Name: "log.level", Old: `"info"`, New: `"debug"`}}}
	}
	return plan, nil
}

func (fake) Do(_ context.Context, r control.Request, report func(control.Step)) error {
	if r.Expectations {
		report(control.Step{Name: "expectations"})
	}
	report(control.Step{Name: r.Command, Stage: strings.Join(r.Targets, " "), Elapsed: 1234 * time.Millisecond,
		Counts: []control.Count{{Name: "flows", Value: 12031}, {Name: "without_master", Value: 3}}})
	if r.All {
		report(control.Step{Name: "all", Elapsed: 36 * time.Microsecond, Note: "a\x1b[2Jnote"})
	}
	if r.Command == "commit" {
		failed := errors.New("peers.sink.kernel: commit: operation not permitted")
		report(control.Step{Name: "commit", Stage: "peers.sink.kernel", Error: failed.Error()})
		return errors.Join(failed, errors.New("another"))
	}
	return nil
}

// serve puts b behind a socket and returns its path.
func serve(t *testing.T, b control.Backend) string {
	t.Helper()
	socket := filepath.Join(shortDir(t), "s")
	l, err := control.Listen(control.Socket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	s := control.NewServer(b, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-served); err != nil {
			t.Error(err)
		}
	})
	return socket
}

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// execute runs a command line and returns what it did as a transcript.
func execute(t *testing.T, stdin, socket string, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	a := newApp(strings.NewReader(stdin), &stdout, &stderr)
	a.getenv = func(name string) string { return map[string]string{"SLUICE_SOCKET": socket}[name] }
	a.now = func() time.Time { return testNow }
	status := a.execute(t.Context(), args)
	text := "$ sluice " + strings.Join(args, " ") + "\n" + stdout.String()
	if stderr.Len() > 0 {
		text += "--- stderr\n" + stderr.String()
	}
	if status != 0 {
		text += "--- exit status " + strconv.Itoa(status) + "\n"
	}
	if socket == "" {
		return text
	}
	return strings.ReplaceAll(text, socket, "SOCKET")
}

// golden compares a text with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", path, diff)
	}
}
