package runner

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

func TestHealthOfAStage(t *testing.T) {
	now := time.Now()
	for _, c := range []struct {
		stage              *stage
		unhealthy, unready string
	}{
		{&stage{state: stateRunning, answered: now}, "", ""},
		{&stage{state: stateRunning, answered: now.Add(-silentTimeout / 2)}, "", ""},
		{&stage{state: stateRunning, answered: now.Add(-2 * silentTimeout)}, "s has not answered for 40s", ""},
		{&stage{state: stateWaiting, down: now.Add(-downTimeout / 2)}, "", "s does not run"},
		{&stage{state: stateStarting, down: now.Add(-2 * downTimeout), lastError: "no such\ndevice"}, "s has not run for 2m0s: no such?device", "s does not run"},
		{&stage{state: stateDrained, down: now.Add(-2 * downTimeout)}, "", ""},
		{&stage{state: stateRunning, answered: now, statistics: &stagepb.StatisticsReply{Behind: 2}}, "", "2 of the edges below s are full"},
	} {
		c.stage.address = "s"
		if got := c.stage.broken(now); got != c.unhealthy {
			t.Errorf("unhealthy: %q, not %q", got, c.unhealthy)
		}
		if got := strings.Join(c.stage.missing(), "; "); got != c.unready {
			t.Errorf("unready: %q, not %q", got, c.unready)
		}
	}
}

func TestHealthOfReplays(t *testing.T) {
	unready := func(p *replayer) string { return strings.Join(p.missing(), "; ") }
	p := &replayer{stage: &stage{address: "s"}}
	p.current = &replay{reason: "poll", repair: repairs("poll")}
	p.waiting = []*replay{{reason: "bulk", repair: repairs("bulk")}}
	if got := unready(p); got != "" {
		t.Errorf("replays that repair nothing: %q", got)
	}
	p.current = &replay{reason: "x was started again", repair: repairs("x was started again")}
	p.waiting = []*replay{{reason: "gap", repair: repairs("gap")}}
	if got := unready(p); got != "s replays (restart); s is to replay (gap)" {
		t.Errorf("%q", got)
	}
	p.current, p.waiting = nil, nil
	failed := errors.New("broken")
	one, other := &stage{}, &stage{}
	p.note(&replay{into: one, repair: true}, failed)
	p.note(&replay{into: other, repair: true}, failed)
	p.note(&replay{}, failed) // somebody wanted it, and knows
	p.note(&replay{into: one}, nil)
	if got := unready(p); got != "s failed to replay: broken" {
		t.Errorf("%q", got)
	}
	p.note(&replay{into: one, repair: true}, failed)
	one.setState(stateDrained)
	if got := unready(p); got != "s failed to replay: broken" {
		t.Errorf("after a reload that took one away: %q", got)
	}
	p.note(&replay{}, nil)
	if got := unready(p); got != "" {
		t.Errorf("after one into all edges: %q", got)
	}
}

// Whoever wants to know is told of every replay, by one of a few reasons.
func TestReplaysAreTold(t *testing.T) {
	tr := newRunner(t, usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4}))
	var mu sync.Mutex
	var told []string
	tr.options.Replayed = func(stage, reason string, elapsed time.Duration, err error) {
		mu.Lock()
		defer mu.Unlock()
		if elapsed > 0 && err == nil {
			told = append(told, stage+" "+reason)
		}
	}
	if h := tr.Health(); !slices.Contains(h.Unready, "the runner starts") || len(h.Unhealthy) > 0 {
		t.Errorf("before the start: %+v", h)
	}
	tr.begin()
	eventually(t, "the start's replays", func() bool { return tr.replayed(2) })
	kill(t, tr.pids()[1], 9)
	eventually(t, "all replays", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Equal(told, []string{"p.source.numbers start", "p.cache.set start", "p.source.numbers restart"})
	})
	eventually(t, "the node is in sync", func() bool { return len(tr.Health().Unready) == 0 })
	if err := tr.end(); err != nil {
		t.Fatal(err)
	}
	if h := tr.Health(); !slices.Equal(h.Unready, []string{"the runner drains"}) || len(h.Unhealthy) > 0 {
		t.Errorf("at the end: %+v", h)
	}
}
