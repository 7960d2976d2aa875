package plugin

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// pair returns the two ends of an edge, as the runner makes them.
func pair(t *testing.T) (write, read int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func event(n uint32) *flow.Event {
	e := &flow.Event{Kind: flow.Update}
	e.Family, e.Protocol = flow.IPv4, flow.TCP
	binary.BigEndian.PutUint32(e.Original.Source[:], n)
	return e
}

func number(e *flow.Event) uint32 { return binary.BigEndian.Uint32(e.Original.Source[:]) }

func builder(h flow.Header, events ...*flow.Event) *flow.Builder {
	b := &flow.Builder{}
	b.Reset(h)
	for _, e := range events {
		if !b.Append(e) {
			panic("full")
		}
	}
	return b
}

func begin() *flow.Event { return &flow.Event{Kind: flow.SyncBegin} }
func end(n uint64) *flow.Event {
	return &flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Count: n}}
}

func testHost() *host { return newHost(slog.New(slog.DiscardHandler)) }

// batches reads what is queued in fd.
func batches(t *testing.T, fd int) (list []flow.Batch) {
	t.Helper()
	for {
		buf := make([]byte, flow.MaxBatch)
		n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || n == 0 {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := flow.DecodeBatch(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, b)
	}
}

type evenFilter struct{ rewrite bool }

func (f evenFilter) Filter(e *flow.Event) Verdict {
	if number(e)%2 == 1 {
		return Drop
	}
	if f.rewrite {
		e.Tail = slices.Clone(e.Tail).Append(flow.AttrHelper, make([]byte, 1000))
		return Rewrite
	}
	return Pass
}

// runStage feeds batches to a stage over real sockets until the end.
func runStage(t *testing.T, plugin any, h *host, packets ...[]byte) (*stage, int) {
	t.Helper()
	feed, input := pair(t)
	output, result := pair(t)
	for _, fd := range []int{feed, output} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 4<<20); err != nil {
			t.Fatal(err)
		}
	}
	in, err := newInput(input)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{plugin: plugin, host: h, in: in, out: newOutput([]uint32{uint32(output)}, 7, h)}
	for _, p := range packets {
		if err := sendPacket(feed, p, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Shutdown(feed, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if err := s.run(context.Background()); err != nil {
		t.Fatal(err)
	}
	return s, result
}

func TestFilterLowersTheEndByWhatItDropped(t *testing.T) {
	owner := netip.MustParseAddr("192.0.2.1")
	h := flow.Header{Origin: flow.Peer, Owner: owner, Replay: 5, Edge: 2, Time: 99}
	live := builder(flow.Header{}, event(1), event(3))
	_, result := runStage(t, evenFilter{}, testHost(),
		builder(h, begin(), event(1), event(2), event(3)).Bytes(), live.Bytes(), builder(h, event(4), end(4)).Bytes())
	got := batches(t, result)
	if len(got) != 2 { // the live batch had nothing left in it
		t.Fatalf("%d batches", len(got))
	}
	for _, b := range got {
		want := h
		want.Generation = 7 // stamped by the output
		if b.Header != want {
			t.Errorf("header %+v, want %+v", b.Header, want)
		}
	}
	var e flow.Event
	c := got[1].Cursor()
	for c.Next(&e) && !e.IsMark() {
	}
	if e.Kind != flow.SyncEnd || e.Sync.Count != 2 {
		t.Errorf("end %+v, want a count of 2", e)
	}
}

func TestBeginForgetsWhatWasDroppedBefore(t *testing.T) {
	one, two := flow.Header{Replay: 1}, flow.Header{Replay: 2}
	_, result := runStage(t, evenFilter{}, testHost(),
		builder(one, begin(), event(1)).Bytes(), builder(two, begin(), event(1), event(2), end(2)).Bytes(), builder(one, end(1)).Bytes())
	var counts []uint64
	var e flow.Event
	for _, b := range batches(t, result) {
		for c := b.Cursor(); c.Next(&e); {
			if e.Kind == flow.SyncEnd {
				counts = append(counts, e.Sync.Count)
			}
		}
	}
	// The end of the cancelled replay names a record that nobody got.
	if !slices.Equal(counts, []uint64{1, 1}) {
		t.Errorf("counts %v", counts)
	}
}

// Anybody on a link can make replays up: records without a begin, and begins of
// ever new owners.
func TestReplaysThatAreMadeUpTakeNoRoom(t *testing.T) {
	write, _ := pair(t)
	l := filterLoop{filter: evenFilter{}, out: newOutput([]uint32{uint32(write)}, 1, testHost()), dropped: map[uint64]dropCount{}}
	apply := func(h flow.Header, e *flow.Event) {
		b, err := flow.DecodeBatch(builder(h, e).Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if e.IsMark() {
			l.event = *e
			l.mark(&b)
		} else if err := l.apply(&b); err != nil {
			t.Fatal(err)
		}
	}
	for id := range uint64(3 * maxReplays) {
		apply(flow.Header{Replay: id + 1}, event(1))
	}
	if n := len(l.dropped); n > 0 {
		t.Errorf("it counts for %d replays that did not begin", n)
	}
	for id := range uint64(3 * maxReplays) {
		owner := netip.AddrFrom4([4]byte{10, byte(id >> 16), byte(id >> 8), byte(id)})
		apply(flow.Header{Replay: id + 1, Owner: owner, Origin: flow.Peer}, begin())
	}
	if n := len(l.dropped); n > maxReplays {
		t.Errorf("it counts for %d replays", n)
	}
}

func TestRewrittenEventsThatOverflowABatchFillAnother(t *testing.T) {
	b := &flow.Builder{}
	b.Reset(flow.Header{})
	n := uint32(0)
	for b.Append(event(2 * n)) {
		n++
	}
	s, result := runStage(t, evenFilter{rewrite: true}, testHost(), b.Bytes())
	var got []uint32
	var e flow.Event
	for _, b := range batches(t, result) {
		for c := b.Cursor(); c.Next(&e); {
			got = append(got, number(&e)/2)
		}
	}
	if len(got) != int(n) || !slices.IsSorted(got) || got[len(got)-1] != n-1 {
		t.Errorf("%d events of %d, in order: %v", len(got), n, slices.IsSorted(got))
	}
	if s.out.batches.Load() < 2 {
		t.Error("they fitted in one batch: the test tests nothing")
	}
}

func TestMalformedAndTruncatedBatchesAreCountedAndSignalled(t *testing.T) {
	h := testHost()
	good := builder(flow.Header{}, event(2))
	long := make([]byte, flow.MaxBatch+10)
	s, result := runStage(t, evenFilter{}, h, []byte("nonsense"), long, good.Bytes())
	if n := s.malformed.Load(); n != 2 {
		t.Errorf("%d malformed, want 2", n)
	}
	if got := batches(t, result); len(got) != 1 {
		t.Errorf("%d batches passed, want the good one", len(got))
	}
	if p := h.take(); len(p) != 1 || p[0].Name != string(SignalGap) || p[0].Times != 2 {
		t.Errorf("signals %v, want gap twice in one", p)
	}
}

func TestSignalsCoalesceByNameAndEdge(t *testing.T) {
	h := testHost()
	h.Signal(SignalOverrun, "a")
	h.Signal(SignalOverrun, "b")
	h.signalEdge(1)
	h.signalEdge(2)
	h.Done(Report{Replay: 1})
	h.Done(Report{Replay: 2})
	var got []string
	for _, s := range h.take() {
		got = append(got, s.Name)
	}
	if want := []string{"overrun", "edge-full", "edge-full", "replay-done", "replay-done"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for range 3 * maxPending {
		h.Done(Report{Replay: 1})
	}
	h.Signal(SignalOverrun, "not crowded out")
	p := h.take()
	if len(p) != maxPending+1 || p[maxPending].Name != string(SignalOverrun) {
		t.Errorf("%d signals pending, the last is %v", len(p), p[len(p)-1].Name)
	}
}

// fill sends batches until the edge refuses one.
func fill(t *testing.T, o *Output) (sent int) {
	t.Helper()
	for ; ; sent++ {
		ok, err := o.TrySend(builder(flow.Header{}, event(1)))
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return sent
		}
	}
}

func TestOnlyEdgeBlocksUntilThereIsRoom(t *testing.T) {
	write, read := pair(t)
	o := newOutput([]uint32{uint32(write)}, 1, testHost())
	sent := fill(t, o)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := o.AwaitRoom(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("AwaitRoom on a full edge: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- o.Send(builder(flow.Header{}, event(2))) }()
	waitFor(t, o.sending.Load) // it blocks
	var got int
	for got <= sent {
		got += len(batches(t, read))
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got != sent+1 {
		t.Errorf("%d batches arrived, %d were sent", got, sent+1)
	}
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

func TestReplayIntoAllEdgesWaitsForTheSlowest(t *testing.T) {
	fast, _ := pair(t)
	slow, slowRead := pair(t)
	o := newOutput([]uint32{uint32(fast), uint32(slow)}, 1, testHost())
	fill(t, newOutput([]uint32{uint32(slow)}, 1, testHost()))
	ctx, cancel := context.WithTimeout(t.Context(), 2*pollInterval)
	defer cancel()
	if err := o.AwaitRoom(ctx, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a replay would overrun the second edge: %v", err)
	}
	batches(t, slowRead)
	if err := o.AwaitRoom(t.Context(), 0); err != nil {
		t.Error(err)
	}
	fill(t, newOutput([]uint32{uint32(slow)}, 1, testHost()))
	o.mu.Lock()
	o.edges[1].behind = true // what comes is dropped for it: it is replayed alone later
	o.mu.Unlock()
	if err := o.AwaitRoom(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if err := o.AwaitRoom(t.Context(), 3); err == nil {
		t.Error("there is no edge 3")
	}
}

func TestFanOutGoesOnWithoutTheFullEdge(t *testing.T) {
	slowWrite, slowRead := pair(t)
	fastWrite, fastRead := pair(t)
	h := testHost()
	o := newOutput([]uint32{uint32(slowWrite), uint32(fastWrite)}, 1, h)
	total, fast := 0, 0
	for o.dropped.Load() == 0 {
		if err := o.Send(builder(flow.Header{}, event(1))); err != nil {
			t.Fatal(err)
		}
		total++
		fast += len(batches(t, fastRead))
	}
	if err := o.Send(builder(flow.Header{Edge: 1, Replay: 1}, begin())); err != nil {
		t.Fatal(err)
	}
	if fast != total {
		t.Errorf("the fast edge got %d of %d", fast, total)
	}
	if n := o.behind.Load(); n != 1 {
		t.Errorf("%d edges are behind, want 1", n)
	}
	if o.dropped.Load() != 2 {
		t.Errorf("%d events dropped and counted, want 2", o.dropped.Load())
	}
	if p := h.take(); len(p) != 0 {
		t.Fatalf("signals before there is room: %v", p)
	}
	slow := len(batches(t, slowRead)) // now there is
	var signals []*stagepb.Signal
	waitFor(t, func() bool { signals = append(signals, h.take()...); return len(signals) > 0 })
	if signals[0].Name != string(SignalEdgeFull) || signals[0].Edge != 1 {
		t.Errorf("signal %v, want edge-full of edge 1", signals[0])
	}
	if n := o.behind.Load(); n != 0 {
		t.Errorf("%d edges are behind, want none", n)
	}
	if err := o.Send(builder(flow.Header{Edge: 1, Replay: 1}, begin())); err != nil {
		t.Fatal(err)
	}
	if n := len(batches(t, slowRead)); n != 1 {
		t.Errorf("the edge that was full got %d batches of its own replay", n)
	}
	if n := len(batches(t, fastRead)); n != 0 {
		t.Errorf("the other edge got %d batches of it", n)
	}
	if slow != total-1 {
		t.Errorf("the slow edge got %d of %d", slow, total-1)
	}
}

// countingSink reports nothing itself.
type countingSink struct{}

func (countingSink) Write(*flow.Batch) error { return nil }

func TestSinkThatDoesNotReportIsReportedFor(t *testing.T) {
	h := testHost()
	runStage(t, countingSink{}, h, builder(flow.Header{Replay: 9}, begin(), event(1), end(1)).Bytes())
	p := h.take()
	if len(p) != 1 || p[0].Done == nil || p[0].Done.Replay != 9 || p[0].Done.Counts[0].Value != 1 {
		t.Errorf("signals %v, want the end of replay 9 with one flow", p)
	}
}

// A source whose replay waits for its context.
type waitingSource struct{ begun chan uint64 }

func (s waitingSource) Run(ctx context.Context, _ *Output) error { <-ctx.Done(); return nil }
func (s waitingSource) Replay(ctx context.Context, r Replay, _ *Output) error {
	s.begun <- r.ID
	<-ctx.Done()
	return ctx.Err()
}

func TestReplayEndsTheOneBefore(t *testing.T) {
	h := testHost()
	source := waitingSource{make(chan uint64, 2)}
	s := &stage{plugin: source, host: h}
	for id := uint64(1); id <= 2; id++ {
		if err := s.replay(Replay{ID: id}); err != nil {
			t.Fatal(err)
		}
		if got := <-source.begun; got != id {
			t.Fatalf("replay %d began, want %d", got, id)
		}
	}
	p := h.take()
	if len(p) != 1 || p[0].Done.Replay != 1 || p[0].Done.Failed == "" {
		t.Errorf("signals %v, want the failure of replay 1", p)
	}
	if err := (&stage{plugin: evenFilter{}, host: h}).replay(Replay{}); err == nil {
		t.Error("a filter replays")
	}
}

func BenchmarkFilterLoop(b *testing.B) {
	write, read := 0, 0
	if fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0); err == nil {
		write, read = fds[0], fds[1]
	}
	defer unix.Close(write)
	defer unix.Close(read)
	l := filterLoop{filter: evenFilter{}, out: newOutput([]uint32{uint32(write)}, 1, testHost()), dropped: map[uint64]dropCount{}}
	batch := &flow.Builder{}
	batch.Reset(flow.Header{})
	for n := range uint32(100) {
		batch.Append(event(n))
	}
	buf := make([]byte, flow.MaxBatch)
	b.ReportAllocs()
	for b.Loop() {
		decoded, err := flow.DecodeBatch(batch.Bytes())
		if err != nil {
			b.Fatal(err)
		}
		if err := l.apply(&decoded); err != nil {
			b.Fatal(err)
		}
		if _, err := unix.Read(read, buf); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/event")
}
