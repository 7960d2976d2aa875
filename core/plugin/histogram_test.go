package plugin

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
)

func TestHistogram(t *testing.T) {
	h := newHistogram(ageBounds)
	if m := (&histogram{}).message(ageBounds, 1); m != nil {
		t.Errorf("one that nothing is observed with: %v", m)
	}
	for _, micros := range []int64{0, 100, 101, 2000, 5e6, 5e6 + 1, -1} {
		h.observeAge(micros)
	}
	m := h.message(ageBounds, microsASecond)
	want := make([]uint64, len(ageBounds)+1)
	want[0], want[1], want[4], want[len(ageBounds)-1], want[len(ageBounds)] = 2, 1, 1, 1, 1
	if !slices.Equal(m.Counts, want) || m.Sum != 10.002202 || m.Bounds[0] != 0.0001 || !slices.IsSorted(m.Bounds) {
		t.Errorf("%v, not %v", m, want)
	}
}

func TestAge(t *testing.T) {
	now := time.Now().UnixNano()
	for _, c := range []struct {
		header  flow.Header
		unknown bool
		least   int64
	}{
		{flow.Header{Time: now - int64(time.Hour)}, false, time.Hour.Microseconds()},
		{flow.Header{Time: now + int64(time.Hour)}, false, 0}, // a clock that was set back
		{flow.Header{}, true, 0},
		{flow.Header{Time: now, Replay: 1}, true, 0},
	} {
		var b flow.Builder
		b.Reset(c.header)
		if got := ageOf(b.Bytes()); got == -1 != c.unknown || !c.unknown && got < c.least {
			t.Errorf("%+v: %d", c.header, got)
		}
	}
}

func TestHistogramOfMany(t *testing.T) {
	h := newHistogram(sizeBounds)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 1000 {
				h.observe(sizeBounds, 3)
			}
		})
	}
	wait.Wait()
	if m := h.message(sizeBounds, 1); m.Counts[2] != 4000 || m.Sum != 12000 {
		t.Errorf("%v", m)
	}
}
