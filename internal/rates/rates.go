package rates

import (
	"time"

	"github.com/sluice-project/sluice/core/control"
)

// A Rate is what passed a stage, a second.
type Rate struct {
	In, Out float64 // events
	Lost    float64 // events, of all causes
	CPU     float64 // percent of a core
}

// Rates are those of a node's stages by address. A stage that was not there
// before has none.
type Rates map[string]Rate

// A Meter measures between one status and the next. Its zero value is ready. It
// must be used by one goroutine at a time.
type Meter struct {
	last *control.Status
	at   time.Time
}

// Next takes a status that was read at a time and returns the rates since the one
// before; nil for the first, and if no time has passed.
func (m *Meter) Next(s *control.Status, at time.Time) Rates {
	before, elapsed := m.last, at.Sub(m.at)
	m.last, m.at = s, at
	if before == nil || elapsed <= 0 {
		return nil
	}
	return Between(before, s, elapsed)
}

// Between returns the rates from one status to another that was read later.
func Between(before, after *control.Status, elapsed time.Duration) Rates {
	old := map[string]*control.StageStatus{}
	each(before, func(s *control.StageStatus) { old[s.Address] = s })
	rates := Rates{}
	each(after, func(s *control.StageStatus) {
		was, known := old[s.Address]
		if !known {
			return
		}
		cpu := was.CPUSeconds
		if was.PID != s.PID { // a new process's CPU time begins at 0; what is counted of events goes on
			cpu = 0
		}
		second := elapsed.Seconds()
		rates[s.Address] = Rate{
			In:   since(was.EventsIn, s.EventsIn) / second,
			Out:  since(was.EventsOut, s.EventsOut) / second,
			Lost: since(was.Lost, s.Lost) / second,
			CPU:  100 * max(0, s.CPUSeconds-cpu) / second,
		}
	})
	return rates
}

func each(s *control.Status, do func(*control.StageStatus)) {
	for i := range s.Pipelines {
		for j := range s.Pipelines[i].Stages {
			do(&s.Pipelines[i].Stages[j])
		}
	}
}

// since is how much a counter has grown; one that was reset counts from 0.
func since(before, after uint64) float64 {
	if after < before {
		return float64(after)
	}
	return float64(after - before)
}
