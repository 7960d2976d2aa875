package kit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The checks of what a stage does when something is wrong around it.

// nonsense are packets that are no batches, each in a way of its own.
func nonsense() map[string][]byte {
	whole := func(change func([]byte)) []byte {
		p := Pack(flow.Header{}, 0, Events(0, 2, flow.Update)...)[0]
		change(p)
		return p
	}
	first := 48 // where records begin: docs/batch.md
	return map[string][]byte{
		"text":                      []byte("nonsense"),
		"a version of its own":      whole(func(p []byte) { p[0] = 99 }),
		"an unknown origin":         whole(func(p []byte) { p[1] = 9 }),
		"a wrong number of records": whole(func(p []byte) { p[2]++ }),
		"a record beyond the end":   whole(func(p []byte) { binary.LittleEndian.PutUint16(p[first:], 0xfffc) }),
		"a record of no size":       whole(func(p []byte) { binary.LittleEndian.PutUint16(p[first:], 0) }),
		"an unknown kind":           whole(func(p []byte) { p[first+2] = 99 }),
		"an unknown family":         whole(func(p []byte) { p[first+8] = 99 }),
		"an attribute too long":     whole(func(p []byte) { binary.LittleEndian.PutUint16(p[first+112+2:], 0xfff0) }),
		"a mark in a live batch":    whole(func(p []byte) { p[first+2] = 4 }),
		"too many bytes":            make([]byte, flow.MaxBatch+1),
	}
}

func (s *session) malformed() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	refused := uint64(0)
	for what, p := range nonsense() {
		if err := stage.Feed(p); err != nil {
			return err
		}
		refused++
		if err := stage.AwaitRead(); err != nil {
			return fmt.Errorf("a batch with %s: %w", what, err)
		}
		n, err := stage.Numbers()
		if err != nil {
			return err
		}
		if n.Malformed != refused {
			return fmt.Errorf("a batch with %s is not counted as malformed: the count is %d, not %d", what, n.Malformed, refused)
		}
	}
	if err := stage.AwaitSignal(plugin.SignalGap, 0); err != nil {
		return err
	}
	if err := stage.FeedEvents(Events(0, 50, flow.New)...); err != nil {
		return err
	}
	if err := stage.AwaitRead(); err != nil {
		return err
	}
	out, err := stage.Drain()
	if err != nil {
		return err
	}
	_, err = EventsOf(out)
	return err
}

// backpressureBatches are more than two edges hold and a stage may keep in hand:
// 31 full ones an edge.
const backpressureBatches = 120

// fullPackets are batches that are full, of flows of their own.
func fullPackets(n int) (packets [][]byte) {
	for first := uint32(0); len(packets) < n; {
		packets = append(packets, Pack(flow.Header{}, 0, Events(first, 400, flow.New)...)[0])
		first += 400
	}
	return packets
}

// stall feeds until the stage takes no more, and returns how many packets are
// left over.
func (s *session) stall(stage *Stage, packets [][]byte) (left [][]byte, err error) {
	for i, p := range packets {
		ctx, cancel := context.WithTimeout(s.ctx, 400*time.Millisecond)
		err := stage.Send(ctx, p)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return packets[i:], nil
		}
		if err != nil {
			return nil, err
		}
		stage.sent++
	}
	return nil, nil
}

func (s *session) backpressure() error {
	if s.traits.Hold {
		return skip("it holds, and sends nothing")
	}
	stage, err := s.begin(1)
	if err != nil {
		return err
	}
	defer s.end(stage)
	left, err := s.stall(stage, fullPackets(backpressureBatches))
	if err != nil {
		return err
	}
	n, err := stage.Numbers()
	if err != nil {
		return fmt.Errorf("while nobody reads what it sends: %w", err)
	}
	full := len(left) > 0
	if full && !n.Sending {
		return errors.New("it waits for room and its statistics do not say sending: a runner would take it for one that hangs, and kill it")
	}
	stage.Collect(0)
	if err := stage.Feed(left...); err != nil {
		return err
	}
	if err := stage.AwaitRead(); err != nil {
		return err
	}
	if n, err = stage.Numbers(); err != nil {
		return err
	}
	out, err := stage.Drain()
	if err != nil {
		return err
	}
	events, err := EventsOf(out)
	if err != nil {
		return err
	}
	if uint64(len(events)) < n.EventsOut {
		return fmt.Errorf("it sent %d events and %d arrived", n.EventsOut, len(events))
	}
	if size := bytesOf(out); !full && size > 2*edgeRoom {
		return fmt.Errorf("nobody read, and it took %d batches and kept them: %d bytes came out later, and a socket has room for %d; a queue must have a bound", backpressureBatches, size, edgeRoom)
	}
	if !full {
		return skip("so little passes that it never had to wait")
	}
	return nil
}

// edgeRoom is what an edge holds, in bytes: 31 full batches.
const edgeRoom = 2 << 20

func bytesOf(packets []Packet) (n int) {
	for _, p := range packets {
		n += len(p.Raw)
	}
	return n
}

// fanOut reads one of two outputs.
func (s *session) fanOut() error {
	if s.traits.Hold {
		return skip("it holds, and sends nothing")
	}
	stage, err := s.begin(2)
	if err != nil {
		return err
	}
	defer s.end(stage)
	stage.Collect(1)
	// Less at a time than an edge holds, or the other output may be full, too.
	for some := range slices.Chunk(fullPackets(backpressureBatches), backpressureBatches/12) {
		err := stage.Feed(some...)
		if err == nil {
			err = stage.AwaitRead()
		}
		if err == nil {
			err = stage.await("what came out of the other output", func() bool { return stage.Empty(1) })
		}
		if err != nil {
			return fmt.Errorf("one of two outputs is full: %w", err)
		}
	}
	n, err := stage.Numbers()
	if err != nil {
		return err
	}
	if n.EdgeDropped == 0 {
		return skip("so little passes that no output was ever full")
	}
	stage.Collect(0) // there is room again
	if err := stage.AwaitSignal(plugin.SignalEdgeFull, 1); err != nil {
		return fmt.Errorf("the first of two outputs was full and takes data again: %w", err)
	}
	if _, err := stage.Drain(); err != nil {
		return err
	}
	if first, second := len(stage.Packets(0)), len(stage.Packets(1)); second <= first {
		return fmt.Errorf("%d batches went to the output that was full and %d to the other", first, second)
	}
	return nil
}

// signals sends the process what a terminal or a service manager sends to all.
func (s *session) signals() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		if err := syscall.Kill(stage.PID(), signal); err != nil {
			return err
		}
	}
	for range 3 { // it may take a moment to die
		if _, err := stage.Numbers(); err != nil {
			return fmt.Errorf("after TERM, INT and HUP, which are the runner's business: %w", err)
		}
		select {
		case <-stage.Exited():
			return errors.New("it ends by a signal: TERM, INT and HUP are the runner's business, a stage ends by its input")
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

// crash kills the process and starts another on the same edges.
func (s *session) crash() error {
	stage, err := s.begin(1)
	if err != nil {
		return err
	}
	defer s.end(stage)
	stage.Kill()
	if err := stage.Feed(Pack(flow.Header{}, 20, Events(0, 100, flow.New)...)...); err != nil {
		return err
	}
	if err := stage.Run(s.config, s.request(&stagepb.StartRequest{})); err != nil {
		return fmt.Errorf("started again: %w", err)
	}
	if plugin.Kind(s.description.Kind) != plugin.KindSink {
		stage.Collect(0)
	}
	if err := stage.AwaitRead(); err != nil {
		return fmt.Errorf("started again: %w", err)
	}
	out, err := stage.Drain()
	if err != nil {
		return err
	}
	for _, p := range out {
		if p.Err != nil || p.Header.Generation != 2 {
			return cmpError(p.Err, fmt.Errorf("it was started the second time, and its batches say generation %d", p.Header.Generation))
		}
	}
	return nil
}

func (s *session) lifeline() error {
	stage, err := s.begin(1)
	if err != nil {
		return err
	}
	defer s.end(stage)
	stage.CutLifeline()
	select {
	case <-stage.Exited():
		return nil
	case <-time.After(s.options.Patience):
		return fmt.Errorf("the pipe SLUICE_LIFELINE has ended and it still runs after %v", s.options.Patience)
	}
}

// Bounds of the check memory, in bytes. A cache that has all the flows is warm
// after the first round.
const (
	memoryRounds = 4
	memoryBatch  = 60       // batches a round
	memoryGrowth = 32 << 20 // from the first round to the last
	memoryMost   = 1 << 30
)

func (s *session) memory() error {
	stage, err := s.begin(1)
	if err != nil {
		return err
	}
	defer s.end(stage)
	if plugin.Kind(s.description.Kind) != plugin.KindSink {
		stage.discard(0)
	}
	packets := Pack(flow.Header{}, 0, Events(0, 2000, flow.Update)...)
	var after [memoryRounds]uint64
	for round := range after {
		for i := range memoryBatch {
			if err := stage.Feed(packets[i%len(packets)]); err != nil {
				return err
			}
		}
		if err := stage.AwaitRead(); err != nil {
			return err
		}
		if after[round] = stage.Memory(); after[round] > memoryMost {
			return fmt.Errorf("it takes %d MiB of memory for 2000 flows", after[round]>>20)
		}
	}
	first, last := after[0], after[memoryRounds-1]
	if last > first+memoryGrowth {
		return fmt.Errorf("the same 2000 flows passed again and again, and its memory grew from %d to %d MiB", first>>20, last>>20)
	}
	return nil
}
