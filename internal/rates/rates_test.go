package rates

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/control"
)

func status(stages ...control.StageStatus) *control.Status {
	return &control.Status{Pipelines: []control.PipelineStatus{{Name: "local", Stages: stages}}}
}

func TestMeter(t *testing.T) {
	var m Meter
	begin := time.Unix(1000, 0)
	first := status(
		control.StageStatus{Address: "a", PID: 1, EventsIn: 100, EventsOut: 90, Lost: 5, CPUSeconds: 1},
		control.StageStatus{Address: "b", PID: 2, EventsIn: 1000, Lost: 7, CPUSeconds: 9},
		control.StageStatus{Address: "gone", PID: 3},
	)
	if got := m.Next(first, begin); got != nil {
		t.Errorf("rates of the first status: %v", got)
	}
	second := status(
		control.StageStatus{Address: "a", PID: 1, EventsIn: 300, EventsOut: 130, Lost: 6, CPUSeconds: 1.5},
		control.StageStatus{Address: "b", PID: 22, EventsIn: 1040, Lost: 17, CPUSeconds: 0.2}, // started again
		control.StageStatus{Address: "new", PID: 4, EventsIn: 1000},
	)
	want := Rates{
		"a": {In: 100, Out: 20, Lost: 0.5, CPU: 25},
		"b": {In: 20, Lost: 5, CPU: 10},
	}
	if d := cmp.Diff(want, m.Next(second, begin.Add(2*time.Second))); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
	if got := m.Next(second, begin.Add(2*time.Second)); got != nil {
		t.Errorf("rates over no time: %v", got)
	}
	third := status(control.StageStatus{Address: "a", PID: 1, EventsIn: 10}) // its counters were reset
	if got := m.Next(third, begin.Add(3*time.Second))["a"].In; got != 10 {
		t.Errorf("after a reset: %v", got)
	}
}
