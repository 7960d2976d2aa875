package runner

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// able is a stage whose plugin can hand over, as all that use core/plugin can.
func able(s *pipeline.Stage) *pipeline.Stage {
	s.Traits.Handover = true
	return s
}

func named(s *pipeline.Stage, name string) *pipeline.Stage {
	s.Name = name
	return s
}

func filterOf(config object) *pipeline.Stage {
	return able(stageOf(plugin.KindFilter, "even", config, nil))
}
func sourceOf(config object) *pipeline.Stage {
	return able(stageOf(plugin.KindSource, "numbers", config, nil))
}
func cacheOf(config object) *pipeline.Stage {
	return able(stageOf(plugin.KindCache, "set", config, nil))
}
func sinkOf(config object) *pipeline.Stage {
	return able(stageOf(plugin.KindSink, "lines", config, nil))
}

// runReloadable runs a pipeline that the test can change.
func runReloadable(t *testing.T, stages ...*pipeline.Stage) *testRunner {
	t.Helper()
	tr := newRunner(t, stages)
	tr.options.Load = func(context.Context) (*pipeline.Configuration, error) { return nil, errors.New("nothing to load") }
	tr.begin()
	return tr
}

// write makes stages, of the pipelines that they name, what the next reload loads.
func (tr *testRunner) write(stages ...*pipeline.Stage) *pipeline.Configuration {
	c := &pipeline.Configuration{Runner: tr.graph().config.Runner}
	for _, s := range stages {
		p := c.Pipeline(s.Pipeline)
		if p == nil {
			p = &pipeline.Pipeline{Name: s.Pipeline}
			c.Pipelines = append(c.Pipelines, p)
		}
		p.Stages = append(p.Stages, s)
	}
	tr.options.Load = func(context.Context) (*pipeline.Configuration, error) { return c, nil }
	return c
}

// reloadTo reloads to stages, and fails the test if that fails.
func (tr *testRunner) reloadTo(stages ...*pipeline.Stage) {
	tr.t.Helper()
	tr.write(stages...)
	if err := tr.Reload(tr.t.Context()); err != nil {
		tr.t.Fatal(err)
	}
}

// processes returns the processes by the addresses of their stages.
func (tr *testRunner) processes() map[string]int {
	pids := map[string]int{}
	for _, s := range tr.graph().stages {
		pids[s.address] = s.status().PID
	}
	return pids
}

// checkKept fails the test unless the named stages, and no others, have the
// processes that they had.
func (tr *testRunner) checkKept(before map[string]int, kept ...string) {
	tr.t.Helper()
	for address, pid := range tr.processes() {
		if was := slices.Contains(kept, address); was != (before[address] == pid) {
			tr.t.Errorf("%s: process %d before, %d now", address, before[address], pid)
		}
	}
	for address, pid := range before {
		if !slices.Contains(kept, address) && alive(pid) {
			tr.t.Errorf("process %d, which was %s, lives", pid, address)
		}
	}
}

// holds waits until the sink's file has a number.
func (tr *testRunner) holds(file string, number int) {
	tr.t.Helper()
	eventually(tr.t, fmt.Sprintf("%d reaches %s", number, filepath.Base(file)), func() bool {
		return slices.Contains(content(tr.t, file), strconv.Itoa(number))
	})
}

func TestReloadReplacesAChangedFilterAlone(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	source, cache, sink := sourceOf(object{"flows": 10}), cacheOf(object{}), sinkOf(object{"path": file})
	tr := runReloadable(t, source, filterOf(object{}), cache, sink)
	tr.holds(file, 8)
	before := tr.processes()
	tr.reloadTo(source, filterOf(object{"odd": true}), cache, sink)
	tr.checkKept(before, "p.source.numbers", "p.cache.set", "p.sink.lines")
	eventually(t, "the source replays into the cache", func() bool { return dumped(tr) == "1 3 5 7 9" })
	if s := tr.stage(1).status(); s.Restarts != 0 || s.State != stateRunning {
		t.Errorf("%+v: want a stage that never failed", s)
	}
	status, err := tr.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"replace p.filter.even: odd"}; status.Reload == nil || status.Reload.Result != control.ReloadDone ||
		!slices.Equal(status.Reload.Changes, want) || status.Reload.Good != 1 {
		t.Errorf("status has %+v", status.Reload)
	}
	// What does not change what runs changes nothing at all.
	before = tr.processes()
	replays := len(status.Replays)
	tr.reloadTo(source, filterOf(object{"odd": true}), cache, sink)
	tr.checkKept(before, "p.source.numbers", "p.filter.even", "p.cache.set", "p.sink.lines")
	if status, err = tr.Status(t.Context()); err != nil || len(status.Replays) != replays {
		t.Errorf("replays after a reload that changes nothing: %v, %v", status.Replays, err)
	}
}

// dumped lists what the cache of the pipeline holds.
func dumped(tr *testRunner) string {
	var out strings.Builder
	if err := tr.Dump(tr.t.Context(), control.DumpRequest{Target: "p"}, &out); err != nil {
		return err.Error()
	}
	lines := strings.Fields(out.String())
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

func TestReloadThatFailsChangesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	source, filter, sink := sourceOf(object{"flows": 10}), filterOf(object{}), sinkOf(object{"path": file})
	tr := runReloadable(t, source, filter, sink)
	all := []string{"p.source.numbers", "p.filter.even", "p.sink.lines"}
	before, open := tr.processes(), descriptors(t)
	broken := able(stageOf(plugin.KindFilter, "nasty", object{"does": "fail"}, nil))
	changed := filterOf(object{"odd": true})
	other := tr.write(source, filter, sink)
	other.Runner.LockFile = "/elsewhere"
	for want, load := range map[string]func() (*pipeline.Configuration, error){
		"line 3: a typo": func() (*pipeline.Configuration, error) { return nil, errors.New("line 3: a typo") },
		"lock_file: it is what keeps a second runner of this configuration from starting: restart": func() (*pipeline.Configuration, error) { return other, nil },
		"p.filter.nasty: open: the moon": func() (*pipeline.Configuration, error) { return tr.write(source, changed, broken, sink), nil },
		"no such file or directory": func() (*pipeline.Configuration, error) {
			return tr.write(source, changed, sinkOf(object{"path": "/nonexistent/x"})), nil
		},
	} {
		c, loadErr := load()
		tr.options.Load = func(context.Context) (*pipeline.Configuration, error) { return c, loadErr }
		err := tr.Reload(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "reload: nothing is changed: ") {
			t.Errorf("got %v, want %q", err, want)
		}
		if last := tr.LastReload(); last.Result != control.ReloadFailed || !strings.Contains(last.Error, want) {
			t.Errorf("status has %+v, want %q", last, want)
		}
		tr.checkKept(before, all...)
	}
	if bad := tr.LastReload().Bad; bad != 4 {
		t.Errorf("%d failed", bad)
	}
	for _, s := range tr.graph().stages {
		if got := s.status(); got.Restarts != 0 {
			t.Errorf("%s counts %d restarts", s.address, got.Restarts)
		}
	}
	eventually(t, "nothing stays open", func() bool { return descriptors(t) <= open })
}

// Stages are put between others, taken out, and moved, sinks and pipelines come
// and go, and those that did not change go on.
func TestReloadRewires(t *testing.T) {
	dir := t.TempDir()
	out, second, third := filepath.Join(dir, "out"), filepath.Join(dir, "second"), filepath.Join(dir, "third")
	source, cache, sink := sourceOf(object{"flows": 10, "busy": true}), cacheOf(object{}), sinkOf(object{"path": out})
	filter := filterOf(object{})
	tr := runReloadable(t, source, cache, sink)
	tr.holds(out, 3)
	open := descriptors(t)
	chain := []string{"p.source.numbers", "p.cache.set", "p.sink.lines"}

	before := tr.processes()
	tr.reloadTo(source, filter, cache, sink)
	tr.checkKept(before, chain...)
	eventually(t, "the filter is above the cache, which swept", func() bool { return dumped(tr) == "0 2 4 6 8" })

	before = tr.processes()
	other := named(sinkOf(object{"path": second}), "second")
	tr.reloadTo(source, filter, cache, other, sink) // the order of sinks means nothing
	tr.checkKept(before, append(chain, "p.filter.even")...)
	tr.holds(second, 8)

	before = tr.processes()
	tr.reloadTo(source, filter, cache, sink, other)
	tr.checkKept(before, append(chain, "p.filter.even", "p.sink.second")...)

	before = tr.processes()
	tr.reloadTo(source, cache, filter, sink, other) // the filter stands elsewhere
	tr.checkKept(before, append(chain, "p.sink.second")...)
	eventually(t, "the filter is below the cache", func() bool { return dumped(tr) == "0 1 2 3 4 5 6 7 8 9" })

	before = tr.processes()
	tr.reloadTo(source, cache, sink)
	tr.checkKept(before, chain...)

	before = tr.processes()
	side := []*pipeline.Stage{sourceOf(object{"flows": 10, "busy": true}), sinkOf(object{"path": third})}
	for _, s := range side {
		s.Pipeline = "q"
	}
	tr.reloadTo(append(side, source, cache, sink)...)
	tr.checkKept(before, chain...)
	tr.holds(third, 9)

	before = tr.processes()
	tr.reloadTo(source, cache, sink)
	tr.checkKept(before, chain...)
	eventually(t, "nothing stays open", func() bool { return descriptors(t) <= open })
	eventually(t, "no process is left", func() bool { return len(children(t, "")) == len(chain) })
}

// What is queued, and what a stage works on, reaches the end when stages are
// replaced, however often.
func TestReloadLosesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	const events = 20000
	source := sourceOf(object{"flows": 0, "once": events})
	stages := func(mark int) []*pipeline.Stage {
		text := strconv.Itoa(mark)
		list := []*pipeline.Stage{source, filterOf(object{"all": true, "mark": text})}
		if mark%3 != 0 {
			list = append(list, named(filterOf(object{"all": true, "slow": true}), "between"))
		}
		return append(list, named(filterOf(object{"all": true}), "kept"), sinkOf(object{"path": file, "mark": text}))
	}
	tr := runReloadable(t, stages(0)...)
	for mark := 1; mark < 8 || !slices.Contains(content(t, file), strconv.Itoa(events-1)) && mark < 200; mark++ {
		tr.reloadTo(stages(mark)...)
	}
	tr.holds(file, events-1)
	var got []int
	for _, line := range content(t, file) {
		if n, err := strconv.Atoi(line); err == nil {
			got = append(got, n)
		}
	}
	if len(got) != events || !slices.IsSorted(got) {
		t.Errorf("%d events arrived of %d, in order: %v", len(got), events, slices.IsSorted(got))
	}
}

// Of what only one process can have at a time the old one lets go first; if the
// new one then does not start, the old one is started again.
func TestReloadOfAnExclusiveStage(t *testing.T) {
	dir := t.TempDir()
	file, at := filepath.Join(dir, "out"), fmt.Sprintf("sluice-test-%d-only", syscall.Getpid())
	onlyAs := func(name, path string) *pipeline.Stage {
		return named(able(stageOf(plugin.KindSink, "only", object{"path": path, "at": at}, &stagepb.Traits{Exclusive: true})), name)
	}
	source, filter := sourceOf(object{"flows": 4}), filterOf(object{})
	tr := runReloadable(t, source, filter, onlyAs("only", file))
	tr.holds(file, 2)
	before := tr.processes()
	tr.reloadTo(source, filter, onlyAs("only", file+"2"))
	tr.checkKept(before, "p.source.numbers", "p.filter.even")
	tr.holds(file+"2", 2)

	before = tr.processes()
	tr.reloadTo(source, filter, onlyAs("renamed", file+"3")) // one goes, another comes
	tr.checkKept(before, "p.source.numbers", "p.filter.even")
	tr.holds(file+"3", 2)

	before = tr.processes()
	tr.write(source, filterOf(object{"odd": true}), onlyAs("renamed", "/nonexistent/out"))
	err := tr.Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), "started again as before: [p.sink.renamed]") {
		t.Errorf("got %v", err)
	}
	if last := tr.LastReload(); last.Result != control.ReloadPartial {
		t.Errorf("status has %+v", last)
	}
	tr.checkKept(before, "p.source.numbers", "p.filter.even")
	if s := tr.stage(2).status(); s.State != stateRunning {
		t.Errorf("%+v", s)
	}
}

// A plugin that knows nothing of handing over is replaced as if it had died.
func TestReloadOfAPluginThatCanNotHandOver(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	source, sink := stageOf(plugin.KindSource, "numbers", object{"flows": 4, "busy": true}, nil), stageOf(plugin.KindSink, "lines", object{"path": file}, nil)
	tr := runReloadable(t, source, sink)
	tr.holds(file, 3)
	before := tr.processes()
	tr.reloadTo(source, stageOf(plugin.KindFilter, "even", object{}, nil), sink)
	tr.checkKept(before, "p.sink.lines")
	before = tr.processes()
	tr.reloadTo(source, stageOf(plugin.KindFilter, "even", object{"odd": true}, nil), sink)
	tr.checkKept(before, "p.source.numbers", "p.sink.lines")
	read := len(content(t, file))
	eventually(t, "odd numbers come", func() bool { return slices.Contains(content(t, file)[read:], "3") })
}

// A stage that does not start any more is mended by a reload at once, and one that
// is stopped does not keep a reload from being done.
func TestReloadWhileStagesFail(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	if err := syscall.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	source, filter := sourceOf(object{"flows": 4, "busy": true}), filterOf(object{})
	tr := runReloadable(t, source, filter, sinkOf(object{"path": filepath.Join(dir, "out")}))
	if err := syscall.Unlink(filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Rmdir(dir); err != nil {
		t.Fatal(err)
	}
	kill(t, tr.pids()[2], syscall.SIGKILL)
	eventually(t, "the sink does not start", func() bool { return tr.stage(2).status().State == stateWaiting })
	good := dir + "-not"
	tr.reloadTo(source, filter, sinkOf(object{"path": good}))
	tr.holds(good, 2)

	kill(t, tr.pids()[0], syscall.SIGSTOP)
	kill(t, tr.pids()[1], syscall.SIGSTOP)
	tr.reloadTo(source, named(filterOf(object{}), "new"), filterOf(object{"odd": true}), sinkOf(object{"path": good}))
	eventually(t, "the source, which had to be killed, runs again", func() bool {
		s := tr.stage(0).status()
		return s.Restarts == 1 && s.State == stateRunning
	})
	read := len(content(t, good))
	eventually(t, "nothing passes both filters", func() bool { return tr.replayed(0) })
	if got := content(t, good)[read:]; slices.Contains(got, "1") || slices.Contains(got, "2") {
		t.Errorf("both filters passed some of %v", got)
	}
}

// A takeover sees one graph from its begin to its end.
func TestReloadWaitsForATakeover(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	source, sink := sourceOf(object{"flows": 4}), sinkOf(object{"path": file})
	tr := runReloadable(t, source, filterOf(object{}), sink)
	tr.write(source, filterOf(object{"odd": true}), sink)
	before := tr.processes()
	tr.takeovers.RLock() // as role and commit do
	done := make(chan error, 1)
	go func() { done <- tr.Reload(t.Context()) }()
	eventually(t, "the new process is there", func() bool { return len(children(t, "p.filter.even")) == 2 })
	select {
	case err := <-done:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	if tr.processes()["p.filter.even"] != before["p.filter.even"] {
		t.Error("the filter is replaced")
	}
	tr.takeovers.RUnlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// An end that comes while a reload runs leaves nothing behind.
func TestEndDuringReload(t *testing.T) {
	for round := range 3 {
		sink := sinkOf(object{"path": filepath.Join(t.TempDir(), "out")})
		tr := runReloadable(t, sourceOf(object{"flows": 4, "busy": true}), filterOf(object{}), sink)
		tr.write(sourceOf(object{"flows": 4, "busy": true, "mark": "x"}), filterOf(object{"odd": true}), named(filterOf(object{}), "new"), sink)
		done := make(chan error, 1)
		go func() { done <- tr.Reload(t.Context()) }()
		if round > 0 {
			eventually(t, "new processes are there", func() bool { return len(children(t, "p.filter.new")) > 0 })
		}
		if err := tr.end(); err != nil {
			t.Error(err)
		}
		<-done
		eventually(t, "no process is left", func() bool { return len(children(t, "")) == 0 })
	}
}

// A scheduled purge of a sink that is gone is called off.
func TestReloadCallsOffThePurgeOfASinkThatIsGone(t *testing.T) {
	dir := t.TempDir()
	source := sourceOf(object{"flows": 4})
	scoped := able(stageOf(plugin.KindSink, "lines", object{"path": filepath.Join(dir, "a")}, &stagepb.Traits{Scope: "p", PurgeAfter: int64(patience)}))
	tr := runReloadable(t, source, scoped)
	if err := tr.Do(t.Context(), control.Request{Command: "purge", Background: true}, func(control.Step) {}); err != nil {
		t.Fatal(err)
	}
	if tr.purges.next() == nil {
		t.Fatal("no purge is scheduled")
	}
	tr.reloadTo(source, named(sinkOf(object{"path": filepath.Join(dir, "b")}), "other"))
	if tr.purges.next() != nil {
		t.Error("a purge of nothing is scheduled")
	}
}

// Whoever writes to the kernel has a netlink port id of its own, also while its
// successor opens its socket, and after reloads that failed.
func TestProcessesOfAWriterHavePortsInTurn(t *testing.T) {
	writer := able(stageOf(plugin.KindSink, "lines", object{"path": filepath.Join(t.TempDir(), "out")}, &stagepb.Traits{Kernel: true}))
	tr := runReloadable(t, sourceOf(object{"flows": 1}), writer)
	s := tr.stage(1)
	used := s.port
	for range 3 { // two of them of no use
		c, err := s.prepare(t.Context(), s.at())
		if err != nil {
			t.Fatal(err)
		}
		c.proc.kill()
		if c.port == used || c.port == s.ports[2] || !slices.Contains(s.ports[:2], c.port) {
			t.Errorf("a candidate beside port %d has %d of %v", used, c.port, s.ports)
		}
	}
	if !slices.Equal(tr.graph().ports, s.ports[:]) {
		t.Errorf("sources are told of %v, not %v", tr.graph().ports, s.ports)
	}
}
