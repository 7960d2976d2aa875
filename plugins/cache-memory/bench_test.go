package cachememory

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// discard takes batches and forgets them.
type discard struct{ edge }

func (d *discard) SendLocked(*flow.Builder) error { return nil }

// batchOf returns a batch of n events, each of its own flow from first on.
func batchOf(kind flow.Kind, first, n int) []byte {
	var b flow.Builder
	b.Reset(live)
	for i := range n {
		e := event(kind, 1, uint32(first))
		binary.BigEndian.PutUint32(e.Original.Source[:], uint32(10<<24+first+i))
		e.Reply = e.Original.Inverted(flow.TCP)
		b.Append(&e)
	}
	return b.Bytes()
}

func (r *rig) feedFast(p []byte, out output) {
	b, err := flow.DecodeBatch(p)
	if err == nil {
		err = r.cache.apply(&b, out)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

const perBatch = 120 // what 2 ms bring at 60,000 events a second

func TestNoAllocations(t *testing.T) {
	r, out := newRig(t), &discard{}
	var batches [][]byte
	for _, kind := range []flow.Kind{flow.New, flow.Update, flow.Update, flow.Destroy} {
		batches = append(batches, append([]byte(nil), batchOf(kind, 0, perBatch)...))
	}
	n := testing.AllocsPerRun(50, func() {
		for _, p := range batches {
			r.feedFast(p, out)
		}
	})
	if n != 0 {
		t.Errorf("%v allocations a flow's life", n)
	}
}

var raceDetector bool // see race_test.go

// TestMemory fills a cache with half a million flows and asks the kernel what
// the process takes more than before.
func TestMemory(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("fills 60 MB, and the race detector several times that")
	}
	const number, most = 500000, 140
	debug.FreeOSMemory()
	before := resident(t)
	r, out := newRig(t), &discard{}
	for i := 0; i < number; i += 500 {
		r.feedFast(batchOf(flow.New, i, 500), out)
	}
	debug.FreeOSMemory()
	after := resident(t)
	each := float64(after-before) / number
	t.Logf("%.0f bytes a flow resident, %.0f by the cache's own count", each, float64(r.cache.core.bytes())/number)
	if r.cache.core.count.of[flows].held != number {
		t.Fatalf("%d flows", r.cache.core.count.of[flows].held)
	}
	if each > most {
		t.Errorf("%.0f bytes a flow resident, more than %d", each, most)
	}
}

// resident returns the resident memory of this process in bytes.
func resident(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// BenchmarkApply has live events in batches, in a cache of many flows; ns/op is
// per event.
func BenchmarkApply(b *testing.B) {
	for _, kind := range []flow.Kind{flow.New, flow.Update} {
		b.Run(kind.String(), func(b *testing.B) {
			const number = 100 * perBatch * 10
			r, out := newRig(b), &discard{}
			var batches [][]byte
			for i := 0; i < number; i += perBatch {
				p := append([]byte(nil), batchOf(kind, i, perBatch)...)
				r.feedFast(p, out)
				batches = append(batches, p)
			}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += perBatch {
				r.feedFast(batches[n/perBatch%len(batches)], out)
			}
		})
	}
}

// BenchmarkReplayed has replayed records that tell nothing new; ns/op is per
// record.
func BenchmarkReplayed(b *testing.B) {
	r, out := newRig(b), &discard{}
	p := append([]byte(nil), batchOf(flow.Update, 0, 500)...)
	r.feedFast(p, out)
	r.feed(during(live, 5), begin(0))
	p[8] = 5
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += 500 {
		r.feedFast(p, out)
	}
}

// BenchmarkReplay sends what a cache holds; ns/op is per flow.
func BenchmarkReplay(b *testing.B) {
	const number = 50000
	r, out := newRig(b), &discard{}
	for i := 0; i < number; i += 500 {
		r.feedFast(batchOf(flow.New, i, 500), out)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for n := 0; n < b.N; n += number {
		if err := r.cache.replay(b.Context(), plugin.Replay{ID: 1}, out); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkDump writes a cache's flows; ns/op is per flow.
func BenchmarkDump(b *testing.B) {
	const number = 50000
	r, out := newRig(b), &discard{}
	for i := 0; i < number; i += 500 {
		r.feedFast(batchOf(flow.New, i, 500), out)
	}
	for _, asJSON := range []bool{false, true} {
		b.Run(fmt.Sprintf("json=%v", asJSON), func(b *testing.B) {
			b.ReportAllocs()
			for n := 0; n < b.N; n += number {
				if err := r.cache.Command(b.Context(), plugin.Command{Name: "dump", JSON: asJSON}, io.Discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
