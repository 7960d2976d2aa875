package runner

import (
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A stage counts as looked after while its state or its answers change.
func TestSupervision(t *testing.T) {
	answer := func(s *stage) { s.statistics = &stagepb.StatisticsReply{} }
	tried := func(s *stage) { s.setState(stateWaiting) }
	nothing := func(*stage) {}
	for _, c := range []struct {
		name, state string
		meanwhile   func(*stage)
		want        bool
	}{
		{"runs and answers", stateRunning, answer, false},
		{"runs and is silent", stateRunning, nothing, true},
		{"can't start", stateWaiting, tried, false},
		{"is not tried to be started", stateWaiting, nothing, true},
		{"hangs in its start", stateStarting, nothing, true},
		{"is drained", stateDrained, nothing, false},
	} {
		s := &stage{address: "local.cache.memory", state: c.state, since: time.Now()}
		r, seen, now := &Runner{}, map[*stage]sighting{}, time.Now()
		r.current.Store(&graph{stages: []*stage{s}})
		for range 10 {
			if got := r.unsupervised(seen, now); len(got) > 0 && !c.want {
				t.Errorf("%s: %q", c.name, got)
			}
			c.meanwhile(s)
			now = now.Add(supervisionTimeout / 4)
		}
		if got := r.unsupervised(seen, now); len(got) > 0 != c.want {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
