package plugin

import (
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// serverOf is a server whose stage has begun.
func serverOf(t *testing.T, st *stage) *server {
	t.Helper()
	s := newServer(Definition{}, st.host.logger)
	s.stage, s.drain = st, func() {}
	return s
}

// numbers returns the numbers of the events that are queued in fd.
func numbers(t *testing.T, fd int) (list []uint32) {
	t.Helper()
	for _, b := range batches(t, fd) {
		var e flow.Event
		for c := b.Cursor(); c.Next(&e); {
			list = append(list, number(&e))
		}
	}
	return list
}

func mustInput(t *testing.T, fd int) *input {
	t.Helper()
	in, err := newInput(fd)
	must(t, err)
	return in
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// handoverSocket returns what sends descriptors as the runner does.
func handoverSocket(t *testing.T) (send func(token uint64, fds ...int)) {
	t.Helper()
	ours, theirs := pair(t)
	t.Setenv(EnvHandover, strconv.Itoa(theirs))
	return func(token uint64, fds ...int) {
		t.Helper()
		must(t, unix.Sendmsg(ours, binary.LittleEndian.AppendUint64(nil, token), unix.UnixRights(fds...), nil, 0))
	}
}

// A stage that is paused neither reads nor sends, and goes on with other edges;
// what waited for room goes to those.
func TestPauseAndRewire(t *testing.T) {
	send := handoverSocket(t)
	feed, input := pair(t)
	first, firstRead := pair(t)
	second, secondRead := pair(t)
	h := testHost()
	own, err := unix.Dup(first) // the stage's, which it closes
	must(t, err)
	st := &stage{plugin: evenFilter{}, host: h, in: mustInput(t, input), out: newOutput([]uint32{uint32(own)}, 1, h)}
	s := serverOf(t, st)
	fill(t, newOutput([]uint32{uint32(own)}, 1, h))
	ended := make(chan error, 1)
	go func() { ended <- st.run(t.Context()) }()
	must(t, sendPacket(feed, builder(flow.Header{}, event(2)).Bytes(), 0))
	for !st.out.sending.Load() { // it waits for room in the first edge
		time.Sleep(time.Millisecond)
	}
	_, err = s.Pause(t.Context(), &stagepb.PauseRequest{})
	must(t, err)
	stray, _ := pair(t)
	send(6, stray) // of a call that failed
	send(7, second)
	_, err = s.Rewire(t.Context(), &stagepb.RewireRequest{Outputs: []uint32{0}, Token: 7})
	must(t, err)
	_, err = s.Resume(t.Context(), &stagepb.Empty{})
	must(t, err)
	var got []uint32
	for len(got) == 0 {
		got = numbers(t, secondRead)
	}
	if !slices.Equal(got, []uint32{2}) {
		t.Errorf("the other edge has %v", got)
	}
	if slices.Contains(numbers(t, firstRead), 2) {
		t.Error("the event went to the edge that is gone")
	}

	_, err = s.Pause(t.Context(), &stagepb.PauseRequest{Input: true})
	must(t, err)
	must(t, sendPacket(feed, builder(flow.Header{}, event(4)).Bytes(), 0))
	third, thirdRead := pair(t)
	send(8, third)
	_, err = s.Rewire(t.Context(), &stagepb.RewireRequest{Outputs: []uint32{1, 0}, Token: 8})
	must(t, err)
	if n := st.eventsIn.Load(); n != 1 {
		t.Errorf("it read %d events", n)
	}
	_, err = s.Drain(t.Context(), &stagepb.Empty{}) // ends the pause, and what is queued stays so
	must(t, err)
	must(t, <-ended)
	if got := append(numbers(t, secondRead), numbers(t, thirdRead)...); len(got) > 0 {
		t.Errorf("it went on to send %v", got)
	}
	if left := numbers(t, input); !slices.Equal(left, []uint32{4}) {
		t.Errorf("its input has %v", left)
	}
}

// A stage that is idle is told of a drain.
func TestDrainWakesAStageThatWaits(t *testing.T) {
	_, input := pair(t)
	output, _ := pair(t)
	h := testHost()
	st := &stage{plugin: evenFilter{}, host: h, in: mustInput(t, input), out: newOutput([]uint32{uint32(output)}, 1, h)}
	s := serverOf(t, st)
	ended := make(chan error, 1)
	go func() { ended <- st.run(t.Context()) }()
	time.Sleep(20 * time.Millisecond) // it has come to wait; nothing depends on that
	_, err := s.Drain(t.Context(), &stagepb.Empty{})
	must(t, err)
	must(t, <-ended)
}

func TestRewireRefusesWhatItCanNotDo(t *testing.T) {
	send := handoverSocket(t)
	output, _ := pair(t)
	h := testHost()
	st := &stage{plugin: evenFilter{}, host: h, out: newOutput([]uint32{uint32(output)}, 1, h)}
	s := serverOf(t, st)
	if _, err := s.Rewire(t.Context(), &stagepb.RewireRequest{Outputs: []uint32{1}}); err == nil {
		t.Error("it was rewired while it runs")
	}
	_, err := s.Pause(t.Context(), &stagepb.PauseRequest{})
	must(t, err)
	for token, outputs := range [][]uint32{{}, {2}, {1, 1}, {0, 0}, {0}} {
		if token < 4 {
			fd, _ := pair(t)
			send(uint64(token), fd)
		}
		if _, err := s.Rewire(t.Context(), &stagepb.RewireRequest{Outputs: outputs, Token: uint64(token)}); err == nil {
			t.Errorf("%v was taken", outputs)
		}
	}
	if len(st.out.edges) != 1 || st.out.edges[0].fd != output {
		t.Errorf("edges are %v", st.out.edges)
	}
}

// The batch in hand ends before a pause has begun, or the pause does not come.
func TestPauseWaitsForTheBatchInHand(t *testing.T) {
	feed, input := pair(t)
	output, read := pair(t)
	h := testHost()
	st := &stage{plugin: evenFilter{}, host: h, in: mustInput(t, input), out: newOutput([]uint32{uint32(output)}, 1, h)}
	s := serverOf(t, st)
	fill(t, newOutput([]uint32{uint32(output)}, 1, h))
	go func() { _ = st.run(t.Context()) }()
	must(t, sendPacket(feed, builder(flow.Header{}, event(2)).Bytes(), 0))
	for !st.out.sending.Load() {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Pause(ctx, &stagepb.PauseRequest{Input: true}); err == nil {
		t.Error("it is paused with a batch in hand")
	}
	paused := make(chan error, 1)
	go func() {
		_, err := s.Pause(t.Context(), &stagepb.PauseRequest{Input: true})
		paused <- err
	}()
	var got []uint32
	for !slices.Contains(got, 2) {
		got = append(got, numbers(t, read)...)
	}
	must(t, <-paused)
	_, err := s.Drain(t.Context(), &stagepb.Empty{})
	must(t, err)
}
