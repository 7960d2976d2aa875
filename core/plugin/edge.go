package plugin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/wait"
)

// An input is the reading end of an edge: an AF_UNIX SOCK_SEQPACKET socket, one
// batch a packet. It is not registered with the runtime's poller.
type input struct {
	fd   int
	loop wait.Loop
	buf  []byte
}

func newInput(fd int) (*input, error) {
	if err := wait.Prepare(fd); err != nil {
		return nil, fmt.Errorf("prepare edge: %w", err)
	}
	// One byte more than a batch, so that a longer packet shows.
	return &input{fd: fd, buf: make([]byte, flow.MaxBatch+1)}, nil
}

// read returns the next packet, valid until the next read, or io.EOF when the
// runner shut the edge down.
func (in *input) read() ([]byte, error) {
	for {
		switch n, err := in.loop.Packet(in.fd, in.buf); {
		case err == unix.EINTR || err == unix.EAGAIN:
		case err != nil:
			return nil, fmt.Errorf("read edge: %w", err)
		case n == 0:
			return nil, io.EOF
		default:
			return in.buf[:n], nil
		}
	}
}

// An Output takes a stage's batches to the stages below it. Its methods may be
// called from any goroutine.
//
// With one edge a full socket buffer blocks Send: that is the backpressure. With
// several (fan-out) a full edge is marked behind and what is meant for it is
// dropped and counted, so that it does not hold up the others; when it takes
// data again the runner is told and has the flows replayed into it alone.
type Output struct {
	mu         sync.Mutex
	edges      []*edge
	generation uint32
	host       *host

	batches, events, bytes, dropped, beats atomic.Uint64
	sending                                atomic.Bool
	taps                                   taps
}

type edge struct {
	fd     int
	number uint32 // from 1; 0 if it is the only one
	behind bool
}

func newOutput(fds []uint32, generation uint32, h *host) *Output {
	o := &Output{generation: generation, host: h}
	for i, fd := range fds {
		e := &edge{fd: int(fd)}
		if len(fds) > 1 {
			e.number = uint32(i + 1)
		}
		o.edges = append(o.edges, e)
	}
	return o
}

// Send sends the batch that b holds, if it holds any record, and blocks while
// the only edge is full. An error means that the pipeline is gone.
func (o *Output) Send(b *flow.Builder) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.SendLocked(b)
}

// BeatInterval is the longest time between two calls of Beat.
const BeatInterval = 3 * time.Second

// Beat says that the loop of a source's Run goes round. Nobody sees from without
// whether a source that sends nothing has nothing to send. One that calls Beat in
// its loop, also while it waits, is started again when it stops doing so for
// several intervals and is not held up by Send; one that never does is judged by
// its answers to the runner alone.
func (o *Output) Beat() { o.beats.Add(1) }

// Lock and Unlock keep others from sending, so that a stage can settle the
// order of live and replayed batches before it lets go of its state: lock the
// output, lock the state, build, unlock the state, SendLocked, Unlock.
func (o *Output) Lock() { o.mu.Lock() }

// Unlock ends what Lock began.
func (o *Output) Unlock() { o.mu.Unlock() }

// SendLocked is Send for a caller that holds the lock.
func (o *Output) SendLocked(b *flow.Builder) error {
	_, err := o.send(b, 0)
	return err
}

// TrySend is Send, but returns false rather than wait for the only edge.
func (o *Output) TrySend(b *flow.Builder) (sent bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.send(b, unix.MSG_DONTWAIT)
}

func (o *Output) send(b *flow.Builder, flags int) (sent bool, err error) {
	if b.Len() == 0 {
		return true, nil
	}
	p := b.Bytes()
	binary.LittleEndian.PutUint32(p[4:], o.generation)
	if len(o.edges) == 1 {
		o.sending.Store(true)
		err = sendPacket(o.edges[0].fd, p, flags)
		o.sending.Store(false)
		if err == unix.EAGAIN {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("write edge: %w", err)
		}
	} else if err = o.fanOut(p, b.Len()); err != nil {
		return false, err
	}
	o.batches.Add(1)
	o.events.Add(uint64(b.Len()))
	o.bytes.Add(uint64(len(p)))
	o.taps.pass(p, b.Len())
	return true, nil
}

// fanOut sends p to the edge that it names, or to all.
func (o *Output) fanOut(p []byte, events int) error {
	only := uint32(binary.LittleEndian.Uint16(p[24:]))
	for _, e := range o.edges {
		if only != 0 && only != e.number {
			continue
		}
		if e.behind {
			o.dropped.Add(uint64(events))
			continue
		}
		switch err := sendPacket(e.fd, p, unix.MSG_DONTWAIT); err {
		case nil:
		case unix.EAGAIN:
			e.behind = true
			o.dropped.Add(uint64(events))
			go o.awaitRoom(e)
		default:
			return fmt.Errorf("write edge %d: %w", e.number, err)
		}
	}
	return nil
}

// awaitRoom waits until an edge that is behind takes data again.
func (o *Output) awaitRoom(e *edge) {
	if err := awaitWritable(context.Background(), e.fd); err != nil {
		return // the edge is gone, and with it the process
	}
	o.mu.Lock()
	e.behind = false
	o.mu.Unlock()
	o.host.signalEdge(e.number)
}

// AwaitRoom blocks until the edge numbered so takes data, or ctx ends; for 0
// until all do that are not behind already. A replay waits here, before it locks
// anything, so that it never makes live data wait for room. One into all edges
// has the pace of the slowest: it would overrun it, be broken off, and never end.
func (o *Output) AwaitRoom(ctx context.Context, number uint16) error {
	found := false
	for _, e := range o.edges {
		if number != 0 && uint32(number) != e.number {
			continue
		}
		found = true
		if number == 0 && o.isBehind(e) {
			continue
		}
		if err := awaitWritable(ctx, e.fd); err != nil {
			return err
		}
	}
	if !found {
		return fmt.Errorf("no edge %d", number)
	}
	return ctx.Err()
}

func (o *Output) isBehind(e *edge) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return e.behind
}

// pollInterval bounds how long a wait for room outlives its context.
const pollInterval = 200 * time.Millisecond

func awaitWritable(ctx context.Context, fd int) error {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	for ctx.Err() == nil {
		n, err := unix.Poll(poll, int(pollInterval.Milliseconds()))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return fmt.Errorf("await room: %w", err)
		case n == 0:
		case poll[0].Revents&unix.POLLOUT == 0:
			return errors.New("await room: the edge is closed")
		default:
			return nil
		}
	}
	return ctx.Err()
}

func sendPacket(fd int, p []byte, flags int) error {
	for {
		if err := unix.Send(fd, p, flags|unix.MSG_NOSIGNAL); err != unix.EINTR {
			return err
		}
	}
}
