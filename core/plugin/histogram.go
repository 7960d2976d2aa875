package plugin

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The upper bounds of what every stage observes of its batches.
var (
	sizeBounds = []uint64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512} // events; a full batch has some 500
	ageBounds  = []uint64{                                       // microseconds; sources gather for 2 ms unless told otherwise
		100, 250, 500, 1000, 2000, 3000, 5000, 10e3, 25e3, 50e3, 100e3, 250e3, 500e3, 1e6, 5e6,
	}
)

const microsASecond = 1e6

// A histogram counts observations by size. It may be read while another
// goroutine observes. An observation costs two atomic additions: once a batch,
// never once an event. One that newHistogram did not make observes nothing.
type histogram struct {
	counts []atomic.Uint64 // one a bound, and one for what is above all
	sum    atomic.Uint64
}

func newHistogram(bounds []uint64) histogram {
	return histogram{counts: make([]atomic.Uint64, len(bounds)+1)}
}

func (h *histogram) observe(bounds []uint64, v uint64) {
	if h.counts == nil {
		return
	}
	i := 0
	for i < len(bounds) && v > bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(v)
}

// observeAge observes an age in microseconds that is known, as none below 0 is.
func (h *histogram) observeAge(micros int64) {
	if micros >= 0 {
		h.observe(ageBounds, uint64(micros))
	}
}

// message returns what was observed, divided by scale; nil of one that nothing
// is observed with.
func (h *histogram) message(bounds []uint64, scale float64) *stagepb.Histogram {
	if h.counts == nil {
		return nil
	}
	m := &stagepb.Histogram{Sum: float64(h.sum.Load()) / scale}
	for _, b := range bounds {
		m.Bounds = append(m.Bounds, float64(b)/scale)
	}
	for i := range h.counts {
		m.Counts = append(m.Counts, h.counts[i].Load())
	}
	return m
}

// age returns how many microseconds ago the time of a batch's header was, or -1
// if that is not known.
func age(nanos int64) int64 {
	if nanos == 0 {
		return -1
	}
	return max(0, (time.Now().UnixNano()-nanos)/1000)
}

// ageOf returns the age of a live batch in binary form, or -1.
func ageOf(p []byte) int64 {
	if binary.LittleEndian.Uint64(p[8:]) != 0 {
		return -1
	}
	return age(int64(binary.LittleEndian.Uint64(p[16:])))
}
