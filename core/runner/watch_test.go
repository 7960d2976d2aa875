package runner

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A source that answers the runner but whose loop hangs is started again.
func TestSourceWhoseLoopHangsIsStartedAgain(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hang := filepath.Join(dir, "hang")
	tr := run(t, usual(filepath.Join(dir, "out"), object{"flows": 4, "beat": hang}))
	pids := tr.pids()
	if err := os.WriteFile(hang, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the source runs again", func() bool {
		s := tr.stage(0).status()
		return s.Restarts == 1 && s.State == stateRunning
	})
	if now := tr.pids(); now[1] != pids[1] || now[2] != pids[2] || now[3] != pids[3] {
		t.Errorf("processes were %v and are %v", pids, now)
	}
}

func beats(n uint64) *stagepb.StatisticsReply { return &stagepb.StatisticsReply{Beats: n} }

func TestSourcesAreJudgedByTheirBeats(t *testing.T) {
	for name, test := range map[string]struct {
		first, then *stagepb.StatisticsReply
		draining    bool
		hangs       bool
	}{
		"never beats":       {first: beats(0), then: beats(0)},
		"beats on":          {first: beats(1), then: beats(2)},
		"stops":             {first: beats(1), then: beats(1), hangs: true},
		"waits for an edge": {first: beats(1), then: &stagepb.StatisticsReply{Beats: 1, Sending: true}},
		"drains":            {first: beats(1), then: beats(1), draining: true},
	} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			w := watcher{stage: &stage{runner: &Runner{}}, progressed: now}
			if w.beat(test.first, now) != "" {
				t.Error("it hangs from the start")
			}
			w.stage.runner.draining.Store(test.draining)
			if w.beat(test.then, now.Add(stuckTimeout-1)) != "" {
				t.Error("it hangs too soon")
			}
			if got := w.beat(test.then, now.Add(stuckTimeout)) != ""; got != test.hangs {
				t.Errorf("it hangs: %v, want %v", got, test.hangs)
			}
		})
	}
}
