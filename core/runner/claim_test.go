package runner

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// What a node sends its peers is claimed while it carries the flows: from the
// takeover on until it is told that another does.
func TestBulkClaims(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	stages := usual(file, object{"flows": 2})
	stages[3].Traits.Link = "there"
	tr := run(t, stages)
	eventually(t, "the cache replays at the start", func() bool { return tr.replayed(2) })
	begun := 1
	if got := content(t, file); !slices.Equal(got, []string{"begin", "0", "end"}) {
		t.Fatalf("at the start: %v", got)
	}
	for _, c := range []struct {
		command, role string
		want          string
	}{
		{"bulk", "", "begin"},
		{"role", "primary", "begin-claim"},
		{"bulk", "", "begin-claim"},
		{"role", "backup", ""},
		{"bulk", "", "begin"},
		{"role", "primary", "begin-claim"},
		{"role", "fault", ""},
		{"bulk", "", "begin"},
	} {
		q := control.Request{Command: c.command}
		if c.role != "" {
			q.Targets = []string{c.role}
		}
		if err := tr.Do(t.Context(), q, func(control.Step) {}); err != nil {
			t.Fatal(err)
		}
		all := slices.DeleteFunc(content(t, file), func(s string) bool { return s != "begin" && s != "begin-claim" })
		if got := all[begun:]; c.want == "" && len(got) > 0 || c.want != "" && !slices.Equal(got, []string{c.want}) {
			t.Errorf("%s %s: %v, not %s", c.command, c.role, got, c.want)
		}
		begun = len(all)
	}
}

// While a takeover commits, sources hear nothing of new flows; before it claims
// what they have, they do again, also if the commit failed.
func TestTakeoverIgnoresNewFlows(t *testing.T) {
	dir := t.TempDir()
	file, endless := filepath.Join(dir, "out"), false
	for range 2 {
		stages := usual(file, object{"flows": 2, "told": file})
		stages[0].Traits.Commands = []string{plugin.IgnoreNew, plugin.HearNew}
		stages[2] = stageOf(plugin.KindCache, "set", object{"hold": true, "endless": endless}, &stagepb.Traits{Hold: true, Commands: []string{"flush"}})
		tr := run(t, stages)
		eventually(t, "the source replays at the start", func() bool { return len(tr.graph().stages[0].replays.last) > 0 })
		err := tr.Do(t.Context(), control.Request{Command: "role", Targets: []string{"primary"}}, func(control.Step) {})
		if failed := err != nil; failed != endless {
			t.Error(err)
		}
		var told []string
		for _, line := range content(t, file) {
			if line == "begin" || strings.ContainsAny(line, "-m") { // the commit, the commands, the claim
				told = append(told, line)
			}
		}
		if want := []string{"ignore-new", "begin", "hear-new", "claim"}; !slices.Equal(told, want) {
			t.Errorf("flush fails %v: %v, not %v", endless, told, want)
		}
		file, endless = filepath.Join(dir, "failing"), true
	}
}

// TestClaims: who claims, by what is below and what peers' flows are used for.
func TestClaims(t *testing.T) {
	toPeers, toKernel := &stagepb.Traits{Link: "there"}, &stagepb.Traits{Kernel: true}
	for i, c := range []struct {
		kinds             []plugin.Kind
		sink              *stagepb.Traits
		through, carries  bool
		replaying         int
		flags, wantedFlag flow.SyncFlags
	}{
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache}, toPeers, false, false, 1, 0, 0},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache}, toPeers, false, true, 1, 0, flow.SyncClaim},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache, plugin.KindFilter}, toPeers, false, true, 1, 0, flow.SyncClaim},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache}, toPeers, false, true, 1, flow.SyncKeep, 0},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache}, toPeers, false, true, 0, 0, 0}, // a dump into a cache
		{[]plugin.Kind{plugin.KindSource}, toPeers, false, true, 0, 0, flow.SyncClaim},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache}, toKernel, false, true, 1, flow.SyncCommit, 0},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache}, nil, false, true, 1, 0, 0},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache}, toPeers, true, true, 1, 0, 0}, // both nodes carry flows
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache, plugin.KindCache}, nil, true, false, 1, 0, flow.SyncClaim},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache, plugin.KindCache}, nil, true, false, 0, 0, 0},
		{[]plugin.Kind{plugin.KindSource, plugin.KindCache, plugin.KindCache}, nil, false, true, 1, 0, 0},
	} {
		var stages []*pipeline.Stage
		for n, kind := range c.kinds {
			typ := map[plugin.Kind]string{plugin.KindSource: "numbers", plugin.KindFilter: "even", plugin.KindCache: "set"}[kind]
			stages = append(stages, stageOf(kind, typ, object{}, nil))
			stages[n].Name = fmt.Sprint(typ, n)
		}
		stages = append(stages, stageOf(plugin.KindSink, "lines", object{}, c.sink))
		r := newRunner(t, stages)
		r.graph().pipelines[0].kernelSink = c.through
		r.role.setCarries(c.carries)
		if got := r.graph().stages[c.replaying].claims(&replay{flags: c.flags}); got != c.wantedFlag {
			t.Errorf("case %d: flags %d, not %d", i, got, c.wantedFlag)
		}
		r.close()
	}
}
