package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/core/recording"
)

// patience bounds waits for conditions; it is never the thing measured.
const patience = 30 * time.Second

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

// lockedBuffer is a log that tests read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// scratch is where tests have their files, and stages may write.
var scratch = os.TempDir()

// stageOf describes a stage of the pipeline "p".
func stageOf(kind plugin.Kind, typ string, config any, traits *stagepb.Traits) *pipeline.Stage {
	text, err := json.Marshal(config)
	if err != nil {
		panic(err)
	}
	if traits == nil {
		traits = &stagepb.Traits{}
	}
	if traits.Needs == nil {
		traits.Needs = &stagepb.Needs{Write: []string{scratch}, RunnerUser: true}
	}
	return &pipeline.Stage{Pipeline: "p", Kind: kind, Type: typ, Name: typ, Config: text, Traits: traits}
}

type object = map[string]any

// usual is source → filter → cache → sink.
func usual(file string, source object) []*pipeline.Stage {
	return []*pipeline.Stage{
		stageOf(plugin.KindSource, "numbers", source, nil),
		stageOf(plugin.KindFilter, "even", object{}, nil),
		stageOf(plugin.KindCache, "set", object{}, nil),
		stageOf(plugin.KindSink, "lines", object{"path": file}, nil),
	}
}

// A testRunner is a runner of one pipeline that the test's end drains.
type testRunner struct {
	*Runner
	t   *testing.T
	log *lockedBuffer
	end func() error
}

// newRunner returns a runner that does not run yet.
func newRunner(t *testing.T, stages []*pipeline.Stage) *testRunner {
	t.Helper()
	tr := &testRunner{t: t, log: &lockedBuffer{}}
	r, err := New(Options{
		Config:  &pipeline.Configuration{Runner: pipeline.Runner{Name: "node"}, Pipelines: []*pipeline.Pipeline{{Name: "p", Stages: stages}}},
		Plugins: Plugins{Bundled: bundledNames()}, Log: slog.New(slog.NewTextHandler(tr.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	tr.Runner = r
	return tr
}

func run(t *testing.T, stages []*pipeline.Stage) *testRunner {
	t.Helper()
	tr := newRunner(t, stages)
	tr.begin()
	return tr
}

// begin runs the runner until the test's end.
func (tr *testRunner) begin() {
	t, r := tr.t, tr.Runner
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.Run(ctx, func() { close(ready) }) }()
	tr.end = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := tr.end(); err != nil {
			t.Errorf("run: %v", err)
		}
		if t.Failed() {
			t.Log(tr.log.String())
		}
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- err
		t.Fatalf("run: %v", err)
	}
}

func (tr *testRunner) stage(i int) *stage { return tr.graph().stages[i] }

func (tr *testRunner) pids() (pids []int) {
	for _, s := range tr.graph().stages {
		pids = append(pids, s.status().PID)
	}
	return pids
}

func (tr *testRunner) replayed(i int) bool {
	p := tr.stage(i).replays
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.current == nil && len(p.waiting) == 0 && len(p.last) > 0
}

func content(t *testing.T, file string) []string {
	text, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(text))
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func TestStartReplaysDownAndDrainLeavesNothing(t *testing.T) {
	sockets := shortDir(t)
	t.Setenv("TMPDIR", sockets)
	before := descriptors(t)
	file := filepath.Join(t.TempDir(), "out")
	tr := run(t, usual(file, object{"flows": 10}))
	eventually(t, "the cache replays into the sink at the start", func() bool { return tr.replayed(2) })
	want := []string{"begin", "0", "2", "4", "6", "8", "end"}
	got := content(t, file)
	slices.Sort(got[1 : len(got)-1])
	if !slices.Equal(got, want) {
		t.Errorf("sink got %v, want %v", got, want)
	}
	pids := tr.pids()
	if err := tr.end(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	eventually(t, "descriptors are closed", func() bool { return descriptors(t) <= before })
	left, err := os.ReadDir(sockets)
	if err != nil || len(left) > 0 {
		t.Errorf("socket folders are left: %v, %v", left, err)
	}
}

// shortDir is a folder whose name leaves room for those of sockets.
func shortDir(t *testing.T) string {
	t.Helper()
	t.TempDir() // others of the test are beside that one, whatever TMPDIR is then
	dir, err := os.MkdirTemp("", "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func descriptors(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDeadStageIsStartedAgainAloneAndReplayedInto(t *testing.T) {
	for i, name := range []string{"source", "filter", "cache", "sink"} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "out")
			tr := run(t, usual(file, object{"flows": 10, "busy": true}))
			eventually(t, "start replays", func() bool { return tr.replayed(2) })
			before := tr.pids()
			if err := syscall.Kill(before[i], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			eventually(t, "it runs again", func() bool {
				s := tr.stage(i).status()
				return s.Restarts == 1 && s.State == stateRunning
			})
			replayer := map[string]int{"source": 0, "filter": 0, "cache": 2, "sink": 2}[name]
			eventually(t, "a replay repairs what was lost", func() bool {
				p := tr.stage(replayer).replays
				p.mu.Lock()
				defer p.mu.Unlock()
				return len(p.last) > 1 && p.last[len(p.last)-1].err == nil
			})
			for k, pid := range tr.pids() {
				if k != i && pid != before[k] {
					t.Errorf("stage %d was started again too", k)
				}
			}
		})
	}
}

func TestStoppedStageIsKilledAndStartedAgain(t *testing.T) {
	t.Parallel()
	tr := run(t, usual(filepath.Join(t.TempDir(), "out"), object{"flows": 10, "busy": true}))
	eventually(t, "start replays", func() bool { return tr.replayed(2) })
	pid := tr.pids()[1]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if _, err := tr.Status(ctx); err != nil {
		t.Errorf("status while a stage hangs: %v", err)
	}
	eventually(t, "the stage runs again", func() bool {
		s := tr.stage(1).status()
		return s.Restarts == 1 && s.State == stateRunning
	})
	if alive(pid) {
		t.Error("the stopped process lives")
	}
}

func TestStoppedStageDoesNotHangTheEnd(t *testing.T) {
	t.Parallel()
	tr := run(t, usual(filepath.Join(t.TempDir(), "out"), object{"flows": 10}))
	pid := tr.pids()[3]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	err := tr.end()
	if err == nil || !strings.Contains(err.Error(), "p.sink.lines") {
		t.Errorf("run returned %v, want the name of the stage that had to be killed", err)
	}
	eventually(t, "nothing is left", func() bool { return !alive(pid) })
	tr.end = func() error { return nil }
}

func TestNastyPluginsHarmNobody(t *testing.T) {
	for _, does := range []string{"panic-log", "flood", "stdout"} {
		t.Run(does, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "out")
			stages := usual(file, object{"flows": 4})
			stages[1] = stageOf(plugin.KindFilter, "nasty", object{"does": does}, nil)
			tr := run(t, stages)
			eventually(t, "flows reach the sink", func() bool { return len(content(t, file)) == 6 })
			if strings.Contains(tr.log.String(), "\x1b") {
				t.Error("control characters in the log")
			}
			if len(tr.log.String()) > 100<<20 {
				t.Error("the flood is in the log")
			}
			if tr.stage(1).status().Restarts != 0 {
				t.Error("it was started again")
			}
		})
	}
}

func TestStartErrorsSayWhatAndWhere(t *testing.T) {
	stages := usual("/nonexistent/out", object{})
	failing := slices.Clone(stages)
	failing[1] = stageOf(plugin.KindFilter, "nasty", object{"does": "fail"}, nil)
	failing[3] = stageOf(plugin.KindSink, "lines", object{"path": filepath.Join(t.TempDir(), "out")}, nil)
	unknown := slices.Clone(failing)
	unknown[1] = stageOf(plugin.KindFilter, "none", object{}, nil)
	for want, stages := range map[string][]*pipeline.Stage{
		"p.sink.lines: open: open /nonexistent/out":                  stages,
		"p.filter.nasty: open: the moon is in the wrong phase":       failing,
		"unknown plugin: no bundled plugin filter-none, and no exec": unknown,
	} {
		r, err := New(Options{
			Config:  &pipeline.Configuration{Pipelines: []*pipeline.Pipeline{{Name: "p", Stages: stages}}},
			Plugins: Plugins{Bundled: bundledNames()},
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(t.Context(), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("run returned %v, want %q", err, want)
		}
	}
}

// A fan-out: a sink that does not read must not hold up the other, and gets a
// replay of its own once it reads again.
func TestFullEdgeOfFanOutIsReplayedAlone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stages := usual(filepath.Join(dir, "slow"), object{"flows": 100, "busy": true})
	second := stageOf(plugin.KindSink, "lines", object{"path": filepath.Join(dir, "fast")}, nil)
	second.Name = "fast"
	stages = append([]*pipeline.Stage{stages[0]}, stages[3], second) // source to both
	tr := run(t, stages)
	slow := tr.stage(1)
	if err := syscall.Kill(slow.status().PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the slow sink is started again", func() bool { return slow.status().Restarts > 0 })
	eventually(t, "the replay into it ends", func() bool {
		p := tr.stage(0).replays
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.ContainsFunc(p.last, func(r *replay) bool { return r.into == slow && r.err == nil })
	})
	if got := content(t, filepath.Join(dir, "fast")); !slices.Contains(got, "99") {
		t.Error("the fast sink was held up")
	}
	eventually(t, "the node is in sync again", func() bool { return len(tr.Health().Unready) == 0 })
}

func TestHoldCacheReplaysToCommitAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	stages := usual(file, object{"flows": 4})
	stages[2] = stageOf(plugin.KindCache, "set", object{"hold": true}, &stagepb.Traits{Hold: true, Commands: []string{"flush"}})
	tr := run(t, stages)
	eventually(t, "the source replays", func() bool { return tr.replayed(0) })
	// Nothing that happens to a stage makes the hold cache replay.
	for _, i := range []int{1, 3} {
		if err := syscall.Kill(tr.pids()[i], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it runs again", func() bool { return tr.stage(i).status().Restarts == 1 && tr.stage(i).status().State == stateRunning })
	}
	eventually(t, "the source replays again", func() bool { return tr.replayed(0) })
	if got := content(t, file); len(got) != 0 {
		t.Fatalf("the sink got %v before any commit", got)
	}
	var names []string
	report := func(s control.Step) { names = append(names, s.Name) }
	if err := tr.Do(t.Context(), control.Request{Command: "role", Targets: []string{"primary"}}, report); err != nil {
		t.Fatal(err)
	}
	if want := []string{"settle", "commit", "flush", "claim"}; !slices.Equal(names, want) {
		t.Errorf("steps %v, want %v", names, want)
	}
	if got := content(t, file); len(got) != 4 { // begin, 0, 2, end
		t.Errorf("the sink got %v", got)
	}
}

func TestCommandsNameWhatThereIs(t *testing.T) {
	tr := run(t, usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4}))
	for want, q := range map[string]control.Request{
		`no pipeline or stage "x": pipelines are [p]`:                     {Command: "resync", Targets: []string{"x"}},
		"no stage of the configuration is a cache with hold":              {Command: "commit"},
		"name a cache, a pipeline, kernel, or --all; caches: p.cache.set": {Command: "flush"},
		"name one: primary, backup or fault":                              {Command: "role"},
		`unknown command "x"`:                                             {Command: "x"},
	} {
		err := tr.Do(t.Context(), q, func(control.Step) {})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", q, err, want)
		}
	}
	if err := tr.Do(t.Context(), control.Request{Command: "resync"}, func(control.Step) {}); err != nil {
		t.Error(err)
	}
	var out bytes.Buffer
	if err := tr.Dump(t.Context(), control.DumpRequest{Target: "p"}, &out); err != nil || len(strings.Fields(out.String())) != 2 {
		t.Errorf("dump: %q, %v", out.String(), err)
	}
}

// A cache is told if a sink below it wants every flow, whatever is between.
func TestEveryFlow(t *testing.T) {
	for _, want := range []bool{false, true} {
		stages := usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4})
		second := stageOf(plugin.KindSink, "lines", object{"path": filepath.Join(t.TempDir(), "out")}, &stagepb.Traits{EveryFlow: want})
		second.Name = "second"
		tr := run(t, []*pipeline.Stage{stages[0], stages[2], stages[1], stages[3], second})
		var out bytes.Buffer
		if err := tr.Dump(t.Context(), control.DumpRequest{Target: "p"}, &out); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(out.String(), "every flow"); got != want {
			t.Errorf("the cache was told %v, not %v", got, want)
		}
	}
}

// runUntilKilled is the main function of a process that the next test kills.
func runUntilKilled() {
	scratch = filepath.Dir(os.Args[2]) // TMPDIR is the sockets' alone
	r, err := New(Options{
		Config:  &pipeline.Configuration{Pipelines: []*pipeline.Pipeline{{Name: "p", Stages: usual(os.Args[2], object{"busy": true})}}},
		Plugins: Plugins{Bundled: bundledNames()},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	err = r.Run(context.Background(), func() {
		for _, s := range r.graph().stages {
			fmt.Print(s.status().PID, " ")
		}
		fmt.Println()
	})
	fmt.Fprintln(os.Stderr, err)
}

func TestKilledRunnerTakesItsPluginsWithIt(t *testing.T) {
	t.Parallel()
	sockets := shortDir(t)
	cmd := exec.Command("/proc/self/exe", "run-until-killed", filepath.Join(t.TempDir(), "out"))
	cmd.Env = append(os.Environ(), "TMPDIR="+sockets)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pids [4]int
	if _, err := fmt.Fscan(stdout, &pids[0], &pids[1], &pids[2], &pids[3]); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pids[2], syscall.SIGSTOP); err != nil { // also one that hangs
		t.Fatal(err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	for _, pid := range pids {
		eventually(t, fmt.Sprintf("process %d ends", pid), func() bool { return !alive(pid) })
	}
	sweepSocketFolders(sockets) // as the next runner does
	if left, err := os.ReadDir(sockets); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// What passes any stage can be watched, whatever its plugin knows.
func TestTap(t *testing.T) {
	tr := run(t, usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4}))
	out, tapping := &lockedBuffer{}, make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		request := control.DumpRequest{Target: "p.filter.even", What: control.DumpTap, Args: []string{"count=4"}}
		ended <- tr.Dump(t.Context(), request, writerFunc(func(p []byte) (int, error) {
			defer sync.OnceFunc(func() {
				if bytes.Contains(p, []byte("# tapping")) {
					close(tapping)
				}
			})()
			return out.Write(p)
		}))
	}()
	<-tapping
	if err := tr.Do(t.Context(), control.Request{Command: "resync"}, func(control.Step) {}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	text := out.String()
	for _, want := range []string{"sync-begin", "src=0.0.0.0 ", "src=0.0.0.2 ", "sync-end"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "src=0.0.0.1 ") {
		t.Errorf("what the filter drops left it:\n%s", text)
	}
	for want, r := range map[string]control.DumpRequest{
		"several stages":          {Target: "p"},
		"no pipeline or stage":    {Target: "q"},
		"nothing enters":          {Target: "p.source.numbers", Args: []string{"edge=input"}},
		`"colour=red" chooses no`: {Target: "p.sink.lines", Args: []string{"colour=red"}},
	} {
		r.What = control.DumpTap
		if err := tr.Dump(t.Context(), r, out); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", r, err, want)
		}
	}
}

// What passes any stage can be recorded, from its first batch on.
func TestRecord(t *testing.T) {
	tr := run(t, usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4}))
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- tr.Dump(ctx, control.DumpRequest{Target: "p.filter.even", What: control.DumpTap, Args: []string{"format=recording"}}, in)
	}()
	r := recording.NewLiveReader(out)
	if _, err := r.Read(); err != nil { // it records
		t.Fatal(err)
	}
	go tr.Do(t.Context(), control.Request{Command: "resync"}, func(control.Step) {})
	var kinds []flow.Kind
	for !slices.Contains(kinds, flow.SyncEnd) {
		b, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		var e flow.Event
		for c := b.Cursor(); c.Next(&e); {
			kinds = append(kinds, e.Kind)
		}
	}
	if want := []flow.Kind{flow.SyncBegin, flow.Update, flow.Update, flow.SyncEnd}; !slices.Equal(kinds, want) {
		t.Errorf("recorded %v", kinds)
	}
	cancel()
	go io.Copy(io.Discard, out)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
