package cachememory

import (
	"context"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// TestAtOnce does everything that goes on beside each other, for the race
// detector and for deadlocks.
func TestAtOnce(t *testing.T) {
	r, out := newRig(t), &discard{}
	ctx, cancel := context.WithCancel(context.Background())
	var others sync.WaitGroup
	beside := func(do func()) {
		others.Go(func() {
			for ctx.Err() == nil {
				do()
			}
		})
	}
	beside(func() { _ = r.cache.replay(ctx, plugin.Replay{ID: 3}, out) })
	beside(func() {
		if r.cache.Command(ctx, plugin.Command{Name: "dump"}, io.Discard) != nil && ctx.Err() == nil {
			t.Error("dump failed")
		}
	})
	beside(func() { _ = r.cache.Command(ctx, plugin.Command{Name: "flush"}, io.Discard) })
	beside(func() { _ = r.cache.stats(false, io.Discard); r.cache.Statistics() })

	random := rand.New(rand.NewPCG(1, 1))
	for id := range uint64(200) {
		h := live
		if random.IntN(2) == 0 {
			h = fromA
		}
		feedRandom(r, out, random, h, 1000)
		feedRandom(r, out, random, during(h, id+1), 1000)
	}
	cancel()
	others.Wait()
	r.check()
}

// feedRandom feeds a batch of random events; of a replay, with its marks.
func feedRandom(r *rig, out output, random *rand.Rand, h flow.Header, keys int) {
	var b flow.Builder
	b.Reset(h)
	mark := func(e flow.Event) {
		if h.Replay != 0 {
			b.Append(&e)
		}
	}
	mark(begin(0))
	for range perBatch {
		e := event(flow.Kind(1+random.IntN(3)), uint16(random.IntN(keys)), random.Uint32())
		if h.Replay != 0 {
			e.Kind = flow.Update
		}
		if random.IntN(4) == 0 {
			e.Tail = e.Tail.Append(4242, make([]byte, random.IntN(200)))
		}
		b.Append(&e)
	}
	mark(end(0, perBatch))
	r.feedFast(b.Bytes(), out)
}
