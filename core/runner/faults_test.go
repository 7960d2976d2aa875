package runner

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

func kill(t *testing.T, pid int, signal syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
}

// exists says whether there is a file.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// ended says within the tests' patience how a replay ended.
func ended(t *testing.T, r *replay) error {
	t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(patience):
		t.Fatalf("the replay %q did not end", r.reason)
		return nil
	}
}

func TestReplayOfAStageThatDiesIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	stall := filepath.Join(dir, "stall")
	tr := run(t, usual(filepath.Join(dir, "out"), object{"flows": 10, "stall": stall}))
	eventually(t, "the replay stalls", func() bool { return exists(stall) })
	stalled := tr.stage(0).replays.running()[0]
	kill(t, tr.pids()[0], syscall.SIGKILL)
	if err := ended(t, stalled); err != nil {
		t.Errorf("it ended with %v", err)
	}
}

func TestStageWhoseChildHoldsItsStreamsIsStartedAgain(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	confined = false // what is confined has no children
	t.Cleanup(func() { confined = true })
	stages := usual(filepath.Join(dir, "out"), object{"flows": 4})
	stages[1] = stageOf(plugin.KindFilter, "nasty", object{"does": "grandchild", "path": pidFile}, nil)
	tr := run(t, stages)
	killChild := func() {
		if text, err := os.ReadFile(pidFile); err == nil {
			pid, _ := strconv.Atoi(string(text))
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	t.Cleanup(killChild) // of the process that was started last
	first, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	kill(t, tr.pids()[1], syscall.SIGKILL)
	eventually(t, "it runs again", func() bool {
		s := tr.stage(1).status()
		return s.Restarts == 1 && s.State == stateRunning
	})
	pid, _ := strconv.Atoi(string(first))
	kill(t, pid, syscall.SIGKILL)
}

func TestReplayIntoAStageThatCanNotStartFails(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gone")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	stages := usual(filepath.Join(dir, "out"), object{"flows": 4})
	stages[2] = stageOf(plugin.KindCache, "set", object{"hold": true}, &stagepb.Traits{Hold: true, Commands: []string{"flush"}})
	tr := run(t, stages)
	eventually(t, "start replay", func() bool { return tr.replayed(0) })
	eventually(t, "the node is in sync", func() bool { return len(tr.Health().Unready) == 0 })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	kill(t, tr.pids()[3], syscall.SIGKILL)
	eventually(t, "the sink is dead", func() bool { return tr.stage(3).status().State != stateRunning })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := tr.stage(2).replays.request(nil, flow.SyncCommit, "commit", false).wait(ctx)
	if err == nil || !strings.Contains(err.Error(), "p.sink.lines") || ctx.Err() != nil {
		t.Errorf("commit: %v, want the name of the sink that does not run", err)
	}
	if h := tr.Health(); !slices.Contains(h.Unready, "p.sink.lines does not run") || len(h.Unhealthy) > 0 {
		t.Errorf("%+v: want that the sink does not run, and that this is nobody's business yet", h)
	}
}

func TestReplayAskedForAtTheEndFails(t *testing.T) {
	tr := run(t, usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4}))
	if err := tr.end(); err != nil {
		t.Fatal(err)
	}
	if err := ended(t, tr.stage(0).replays.request(nil, 0, "too late", false)); err == nil {
		t.Error("it ended well")
	}
}

func TestTakeoverEndsARunningPurge(t *testing.T) {
	dir := t.TempDir()
	stages := usual(filepath.Join(dir, "out"), object{"flows": 4})
	// As a source of one use "numbers" never ends, and so the purge does not.
	stages[3].Traits.Scope = "p"
	tr := run(t, stages)
	failed := make(chan error, 1)
	go func() {
		failed <- tr.Do(t.Context(), control.Request{Command: "flush", Targets: []string{"kernel"}}, func(control.Step) {})
	}()
	eventually(t, "the purge runs", func() bool { return len(children(t, "(purge)")) == 3 })
	left := -1
	report := func(s control.Step) {
		if s.Name == "claim" { // the first that reads what a purge would delete
			left = len(children(t, "(purge)"))
		}
	}
	if err := tr.Do(t.Context(), control.Request{Command: "role", Targets: []string{"primary"}}, report); err != nil {
		t.Error(err)
	}
	if left != 0 {
		t.Errorf("the takeover went on beside %d processes that purge", left)
	}
	select {
	case err := <-failed:
		if !errors.Is(err, errCalledOff) {
			t.Errorf("the purge ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("the purge goes on")
	}
}

// children returns this process's children whose command line ends so.
func children(t *testing.T, suffix string) (pids []int) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		line, _ := os.ReadFile(file)
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "status"))
		if strings.HasSuffix(strings.TrimRight(string(line), "\x00"), suffix) &&
			strings.Contains(string(status), "\nPPid:\t"+strconv.Itoa(os.Getpid())+"\n") {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			pids = append(pids, pid)
		}
	}
	return pids
}

func TestDrainGoesOnBelowAStageThatFails(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "out")
	tr := run(t, usual(file, object{"flows": 4}))
	eventually(t, "start replays", func() bool { return tr.replayed(2) })
	kill(t, tr.pids()[1], syscall.SIGSTOP) // the filter can't drain, and is killed
	err := tr.end()
	tr.end = func() error { return nil }
	if err == nil || !strings.Contains(err.Error(), "p.filter.even") {
		t.Errorf("run returned %v, want the name of the filter", err)
	}
	for _, i := range []int{2, 3} {
		if s := tr.stage(i).status(); s.State != stateDrained {
			t.Errorf("%s is %s, want it to drain", s.Address, s.State)
		}
	}
}

func TestIdleStagesAreWatchedCloselyWhileTheyDrain(t *testing.T) {
	tr := newRunner(t, usual("/nonexistent", object{}))
	defer tr.close()
	w := watcher{stage: tr.stage(1), process: &process{}, asked: time.Now()}
	if w.due() {
		t.Error("an idle stage is woken all the time")
	}
	tr.draining.Store(true)
	if !w.due() {
		t.Error("a stage that hangs would use up all the time that the stages below have to drain")
	}
}

func TestStopWhileStagesStartIsNoFailure(t *testing.T) {
	tr := newRunner(t, usual(filepath.Join(t.TempDir(), "out"), object{}))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tr.Run(ctx, nil); err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestFailedStartLeavesNoFolder(t *testing.T) {
	sockets := shortDir(t)
	t.Setenv("TMPDIR", sockets)
	stages := usual(filepath.Join(t.TempDir(), "out"), object{})
	stages[3].Traits.Netns = "/nonexistent"
	if err := newRunner(t, stages).Run(t.Context(), nil); err == nil {
		t.Fatal("it runs in no namespace")
	}
	if left, err := os.ReadDir(sockets); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestStageThatCanNotBeHeardIsStartedAgain(t *testing.T) {
	t.Parallel()
	stages := usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4})
	stages[1] = stageOf(plugin.KindFilter, "nasty", object{"does": "big-signal"}, nil)
	tr := run(t, stages)
	eventually(t, "the stage is started again", func() bool { return tr.stage(1).status().Restarts > 0 })
}

func TestManySignalsAreFewLinesInTheLog(t *testing.T) {
	tr := newRunner(t, usual("/nonexistent", object{}))
	defer tr.close()
	for range 10_000 {
		tr.signalled(tr.stage(1), &stagepb.Signal{Name: string(plugin.SignalPeerUp)})
		tr.signalled(tr.stage(1), &stagepb.Signal{Name: "nonsense"})
	}
	if lines := strings.Count(tr.log.String(), "\n"); lines > 2*signalBurst {
		t.Errorf("%d lines", lines)
	}
	if list := tr.signals.list(); len(list) != 1 || list[0].Times != 10_000 {
		t.Errorf("counted %v", list)
	}
}

func TestStrangeReportsAreIgnored(t *testing.T) {
	tr := newRunner(t, usual("/nonexistent", object{}))
	defer tr.close()
	source, filter, cache, sink := tr.stage(0), tr.stage(1), tr.stage(2), tr.stage(3)
	r := &replay{done: make(chan struct{}), broken: make(chan string, 1), id: 7, receivers: []*stage{cache}}
	source.replays.current = r
	for range 100 {
		tr.replayReported(sink, &stagepb.Report{Replay: 7, Failed: "not on the way"})
		tr.replayReported(filter, &stagepb.Report{Replay: 7, Counts: []*stagepb.Count{{Name: "filter", Value: 1}}})
		tr.replayReported(cache, &stagepb.Report{Replay: 7, Owner: "192.0.2.1"}) // no peers are above
	}
	if !slices.Equal(r.receivers, []*stage{cache}) || len(r.counts) > 0 || len(r.broken) > 0 {
		t.Errorf("strangers changed the replay: %v waiting, counts %v", len(r.receivers), r.counts)
	}
	many := &stagepb.Report{Replay: 7}
	for i := range 10_000 {
		many.Counts = append(many.Counts, &stagepb.Count{Name: strconv.Itoa(i)})
	}
	tr.replayReported(cache, many)
	if len(r.receivers) > 0 || len(r.counts) > maxCounts {
		t.Errorf("%d waiting, %d counts", len(r.receivers), len(r.counts))
	}
	r.end(nil)
	tr.replayReported(cache, &stagepb.Report{Replay: 7, Counts: []*stagepb.Count{{Name: "0", Value: 1}}})
	if r.counts[0].Value != 0 {
		t.Error("what is final was changed")
	}
}

func TestSignalsOfEdgesThatAreNotAreIgnored(t *testing.T) {
	tr := newRunner(t, usual("/nonexistent", object{}))
	defer tr.close()
	for edge := range uint32(1000) {
		tr.signalled(tr.stage(2), &stagepb.Signal{Name: string(plugin.SignalEdgeFull), Edge: edge})
	}
	if n := len(tr.stage(2).replays.waiting); n != 1 {
		t.Errorf("%d replays wait, want 1: of edge 0", n)
	}
}

func TestEndlessAnswerEndsTheFlush(t *testing.T) {
	stages := usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4})
	stages[2] = stageOf(plugin.KindCache, "set", object{"endless": true}, nil)
	tr := run(t, stages)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := tr.Do(ctx, control.Request{Command: "flush", All: true}, func(control.Step) {})
	if err == nil || ctx.Err() != nil {
		t.Errorf("flush: %v", err)
	}
}

// A start that is cancelled must not return while the spawner still uses the
// files, which the caller then closes.
func TestCancelledStartsLeaveTheSpawnerWhole(t *testing.T) {
	s, err := newSpawner()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	start := func(ctx context.Context) error {
		e, err := newEdge("test")
		if err != nil {
			return err
		}
		defer e.close()
		nothing := confine.Nothing()
		p, err := startProcess(ctx, s, processConfig{
			name: "test", path: "/proc/self/exe", args: []string{"sluice", "plugin-exec", "filter-even"},
			files: []*os.File{e.read, e.write}, rules: &nothing, log: slog.New(slog.DiscardHandler),
		})
		if err == nil {
			p.kill()
		}
		return err
	}
	for i := range 300 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*10*time.Microsecond)
		_ = start(ctx)
		cancel()
	}
	if err := start(t.Context()); err != nil {
		t.Error(err)
	}
	if left := children(t, "filter-even"); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}
