package sourcenetlink

import (
	"context"
	"sync"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// A queue keeps the batches that a full edge does not take, so that the reader
// goes on reading, and sends them from a goroutine of its own when it does. Its
// bound is limit bytes of batches; what does not fit is dropped and counted,
// and when the edge has taken all the rest the runner is told.
type queue struct {
	limit  int
	lost   func(events int) // counts what is dropped
	caught func()           // the edge took all, after something was dropped

	mu       sync.Mutex
	filled   *sync.Cond // something to send, or closed
	drained  *sync.Cond // nothing to send, or failed
	batches  [][]byte   // in binary form, each of its own memory
	bytes    int
	dropping bool
	closed   bool
	err      error // of the edge, for good
}

func newQueue(limit int, lost func(int), caught func()) *queue {
	q := &queue{limit: limit, lost: lost, caught: caught}
	q.filled, q.drained = sync.NewCond(&q.mu), sync.NewCond(&q.mu)
	return q
}

// send sends b at once if it can and keeps a copy of it if it can't. It does
// not block. An error means that the edge is gone.
func (q *queue) send(b *flow.Builder, out *plugin.Output) error {
	if b.Len() == 0 {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return q.err
	}
	if len(q.batches) == 0 { // else it would overtake them
		if sent, err := out.TrySend(b); sent || err != nil {
			return err
		}
	}
	p := b.Bytes()
	if q.bytes+len(p) > q.limit {
		q.dropping = true
		q.lost(b.Len())
		return nil
	}
	q.batches = append(q.batches, append([]byte(nil), p...))
	q.bytes += len(p)
	q.filled.Signal()
	return nil
}

// size returns how many bytes wait.
func (q *queue) size() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// awaitEmpty blocks until nothing waits, ctx ends, or the edge is gone.
func (q *queue) awaitEmpty(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		q.mu.Lock()
		q.drained.Broadcast()
		q.mu.Unlock()
	})
	defer stop()
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.batches) > 0 && q.err == nil && ctx.Err() == nil {
		q.drained.Wait()
	}
	if q.err != nil {
		return q.err
	}
	return ctx.Err()
}

// close ends run when nothing waits any more.
func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.filled.Signal()
	q.mu.Unlock()
}

// run sends what is queued until the queue is closed and empty.
func (q *queue) run(out *plugin.Output) {
	var b flow.Builder
	for {
		n := q.next(&b)
		if n == 0 {
			return
		}
		err := sendWaiting(context.Background(), &b, out)
		if q.sent(n, err) {
			q.caught()
		}
		if err != nil {
			return
		}
	}
}

// next waits for batches and puts the first n, as many as fit into one and
// have the same header, into b. They stay queued, so that nothing overtakes
// them. 0 is the end.
func (q *queue) next(b *flow.Builder) (n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.batches) == 0 {
		if q.closed {
			return 0
		}
		q.filled.Wait()
	}
	var header flow.Header
	for size := 0; n < len(q.batches); n++ {
		batch, err := flow.DecodeBatch(q.batches[n])
		if err != nil {
			panic(err) // this stage made it
		}
		if size += len(q.batches[n]); n > 0 && size > flow.MaxBatch {
			break
		}
		h := batch.Header
		if h.Time = header.Time; n > 0 && h != header {
			break
		}
		if n == 0 {
			header = batch.Header
			b.Reset(header)
		}
		var e flow.Event
		for c := batch.Cursor(); c.Next(&e); {
			b.AppendRecord(c.Record())
		}
	}
	return n
}

// sent takes the first n batches off the queue and says whether the edge has
// caught up after a loss.
func (q *queue) sent(n int, err error) (caught bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range q.batches[:n] {
		q.bytes -= len(p)
	}
	q.batches = append(q.batches[:0:0], q.batches[n:]...)
	q.err = err
	if len(q.batches) > 0 && err == nil {
		return false
	}
	q.drained.Broadcast()
	caught, q.dropping = q.dropping && err == nil, false
	return caught
}

// sendWaiting sends b, waiting for room without holding the output, so that
// nobody else waits for it.
func sendWaiting(ctx context.Context, b *flow.Builder, out *plugin.Output) error {
	for {
		if sent, err := out.TrySend(b); sent || err != nil {
			return err
		}
		if err := out.AwaitRoom(ctx, 0); err != nil {
			return err
		}
	}
}
