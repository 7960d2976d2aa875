package plugin

import (
	"context"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/recording"
)

// A recording has every batch that passes, as it is, and what did not fit is told
// of where it is missing.
func TestRecord(t *testing.T) {
	s, feed, sent := evenStage(t)
	ctx, cancel := context.WithCancel(t.Context())
	out, in := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- s.tap(ctx, Command{Args: []string{"format=recording", "edge=input"}}, in) }()
	r := recording.NewLiveReader(out)
	if b, err := r.Read(); err != nil || b.At != 0 || b.Lost != 0 {
		t.Fatalf("it begins with %+v, %v", b, err)
	}
	// Nobody reads: the writer is held up, and the stage is not.
	const batches = 2 * recordQueue
	buf := make([]byte, flow.MaxBatch)
	pass := func(first, last uint32) {
		for i := first; i < last; i++ {
			feedEvents(t, feed, flow.Header{}, event(2*i), event(2*i+1))
			if n, _, err := unix.Recvfrom(sent, buf, 0); err != nil || n == 0 {
				t.Fatal(err)
			}
		}
	}
	pass(0, batches)
	const later = 10 // that find room again, behind what was lost
	var got, lost uint64
	for got+lost < 2*(batches+later) {
		if got == recordQueue/2 {
			pass(batches, batches+later)
		}
		b, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		lost += b.Lost
		if b.Packet == nil {
			continue
		}
		var e flow.Event
		if c := b.Cursor(); !c.Next(&e) || e.Original.Source != event(uint32(got+lost)).Original.Source {
			t.Fatalf("after %d events and a loss of %d comes %v", got, lost, &e)
		}
		got += uint64(b.Count)
	}
	if lost == 0 || got < recordQueue {
		t.Errorf("%d events recorded, %d lost", got, lost)
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, out) }()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := s.tap(t.Context(), Command{Args: []string{"format=text"}}, io.Discard); err == nil {
		t.Error("there is no such format")
	}
}
