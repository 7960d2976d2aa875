package plugin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
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
	wake int // an eventfd that ends await; -1 if there is none
	buf  []byte
}

func newInput(fd int) (*input, error) {
	if err := wait.Prepare(fd); err != nil {
		return nil, fmt.Errorf("prepare edge: %w", err)
	}
	// One byte more than a batch, so that a longer packet shows.
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		wake = -1 // poll(2) passes it over
	}
	return &input{fd: fd, wake: wake, buf: make([]byte, flow.MaxBatch+1)}, nil
}

// read returns the next packet, valid until the next read, errQuiet if none comes
// for a moment, or io.EOF when the runner shut the edge down.
func (in *input) read() ([]byte, error) {
	for {
		switch n, err := in.loop.Packet(in.fd, in.buf); {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return nil, errQuiet
		case err != nil:
			return nil, fmt.Errorf("read edge: %w", err)
		case n == 0:
			return nil, io.EOF
		default:
			return in.buf[:n], nil
		}
	}
}

// errQuiet says that nothing came for a moment.
var errQuiet = errors.New("the edge is quiet")

// stir ends await.
func (in *input) stir() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(in.wake, one[:])
}

// await blocks until there is something to read, however long it takes, or stir
// is called.
func (in *input) await() error {
	if err := in.loop.Await([]unix.PollFd{{Fd: int32(in.fd), Events: unix.POLLIN}, {Fd: int32(in.wake), Events: unix.POLLIN}}); err != nil {
		return fmt.Errorf("await edge: %w", err)
	}
	return nil
}

// An Output takes a stage's batches to the stages below it. Its methods may be
// called from any goroutine.
//
// With one edge a full socket buffer blocks Send: that is the backpressure. With
// several (fan-out) a full edge is marked behind and what is meant for it is
// dropped and counted, so that it does not hold up the others; when it takes
// data again the runner is told and has the flows replayed into it alone.
//
// The runner may pause it and give it other edges: what is being sent then waits
// and goes to those.
type Output struct {
	mu         sync.Mutex
	generation uint32
	host       *host

	gate  sync.Mutex // held while a packet is handed to the kernel, which takes no time, and during a pause
	edges []*edge    // changed with the gate held

	batches, events, bytes, dropped, beats atomic.Uint64
	sending                                atomic.Bool
	taps                                   taps
	behind                                 atomic.Int32 // edges that are

	sizes, ages histogram
}

// An edge is the writing end of one. All but fd is guarded by the output's gate.
type edge struct {
	fd     int
	number uint32 // from 1; 0 if it is the only one
	behind bool
	users  int  // that wait for room, without the gate
	gone   bool // it is to be closed when nobody uses it
}

func newOutput(fds []uint32, generation uint32, h *host) *Output {
	o := &Output{generation: generation, host: h, sizes: newHistogram(sizeBounds), ages: newHistogram(ageBounds)}
	for _, fd := range fds {
		o.edges = append(o.edges, &edge{fd: int(fd)})
	}
	o.number()
	return o
}

// number numbers the edges in their order.
func (o *Output) number() {
	for i, e := range o.edges {
		e.number = 0
		if len(o.edges) > 1 {
			e.number = uint32(i + 1)
		}
	}
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
	age := ageOf(p)
	o.sending.Store(true)
	sent, err = o.pass(p, b.Len(), flags)
	o.sending.Store(false)
	if err != nil || !sent {
		return false, err
	}
	o.batches.Add(1)
	o.events.Add(uint64(b.Len()))
	o.bytes.Add(uint64(len(p)))
	o.taps.pass(p, b.Len())
	o.sizes.observe(sizeBounds, uint64(b.Len()))
	o.ages.observeAge(age)
	return true, nil
}

// pass hands p to the edges. It holds the gate at no wait, so that a pause begins
// at once; what waited goes on with whatever edges there are then.
func (o *Output) pass(p []byte, events, flags int) (sent bool, err error) {
	for {
		if !o.enter(flags) {
			return false, nil
		}
		if len(o.edges) != 1 {
			err := o.fanOut(p, events)
			o.gate.Unlock()
			return err == nil, err
		}
		e := o.edges[0]
		err := sendPacket(e.fd, p, unix.MSG_DONTWAIT)
		if err != unix.EAGAIN || flags&unix.MSG_DONTWAIT != 0 {
			o.gate.Unlock()
			if err == unix.EAGAIN {
				return false, nil
			}
			if err != nil {
				return false, fmt.Errorf("write edge: %w", err)
			}
			return true, nil
		}
		e.users++
		o.gate.Unlock()
		_, err = awaitWritable(e.fd)
		o.leave(e)
		if err != nil {
			return false, err
		}
	}
}

// enter takes the gate; a caller that must not wait does not get it during a pause.
func (o *Output) enter(flags int) bool {
	if flags&unix.MSG_DONTWAIT != 0 {
		return o.gate.TryLock()
	}
	o.gate.Lock()
	return true
}

// leave ends the use of an edge.
func (o *Output) leave(e *edge) {
	o.gate.Lock()
	defer o.gate.Unlock()
	e.users--
	e.closeIfUnused()
}

func (e *edge) closeIfUnused() {
	if e.gone && e.users == 0 {
		unix.Close(e.fd)
	}
}

// pause holds all packets up until resume.
func (o *Output) pause()  { o.gate.Lock() }
func (o *Output) resume() { o.gate.Unlock() }

// rewire gives a paused output other edges: present ones by number, from 1, and
// for each 0 one of the descriptors.
func (o *Output) rewire(outputs []uint32, fds []int) error {
	var edges []*edge
	for _, number := range outputs {
		switch {
		case number == 0 && len(fds) > 0:
			edges, fds = append(edges, &edge{fd: fds[0]}), fds[1:]
		case number > 0 && int(number) <= len(o.edges) && !slices.Contains(edges, o.edges[number-1]):
			edges = append(edges, o.edges[number-1])
		default:
			return fmt.Errorf("rewire: there is no edge for %v", outputs)
		}
	}
	if len(fds) > 0 || len(edges) == 0 {
		return fmt.Errorf("rewire: %d descriptors too many for %v", len(fds), outputs)
	}
	for _, e := range o.edges {
		if !slices.Contains(edges, e) {
			e.gone = true
			e.closeIfUnused()
		}
	}
	o.edges = edges
	o.number()
	return nil
}

// fanOut sends p to the edge that it names, or to all. The caller holds the gate.
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
			o.behind.Add(1)
			o.dropped.Add(uint64(events))
			e.users++
			go o.awaitRoom(e)
		default:
			return fmt.Errorf("write edge %d: %w", e.number, err)
		}
	}
	return nil
}

// awaitRoom waits until an edge that is behind takes data again, or is gone.
func (o *Output) awaitRoom(e *edge) {
	defer o.leave(e)
	defer o.behind.Add(-1)
	for {
		room, err := awaitWritable(e.fd)
		if err != nil {
			return // the edge is gone, and with it the process
		}
		o.gate.Lock()
		gone, number := e.gone, e.number
		e.behind = e.behind && !room
		o.gate.Unlock()
		switch {
		case gone:
			return
		case room:
			o.host.signalEdge(number)
			return
		}
	}
}

// AwaitRoom blocks until the edge numbered so takes data, or ctx ends; for 0
// until all do that are not behind already. A replay waits here, before it locks
// anything, so that it never makes live data wait for room. One into all edges
// has the pace of the slowest: it would overrun it, be broken off, and never end.
// Where there is one edge only it is the way to whatever edge further down is
// meant.
func (o *Output) AwaitRoom(ctx context.Context, number uint16) error {
	edges := o.use(uint32(number))
	defer func() {
		for _, e := range edges {
			o.leave(e)
		}
	}()
	if len(edges) == 0 && number != 0 {
		return fmt.Errorf("no edge %d", number)
	}
	for _, e := range edges {
		for room := false; !room; {
			var err error
			if room, err = awaitWritable(e.fd); err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// use returns the edges that a replay into a number waits for, each to be left.
func (o *Output) use(number uint32) (edges []*edge) {
	o.gate.Lock()
	defer o.gate.Unlock()
	for _, e := range o.edges {
		if len(o.edges) == 1 || number == e.number || number == 0 && !e.behind {
			e.users++
			edges = append(edges, e)
		}
	}
	return edges
}

// pollInterval bounds how long a wait for room outlives its reason.
const pollInterval = 200 * time.Millisecond

// awaitWritable waits a while for room and says whether there is some.
func awaitWritable(fd int) (room bool, err error) {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(poll, int(pollInterval.Milliseconds()))
	switch {
	case err == unix.EINTR, err == nil && n == 0:
		return false, nil
	case err != nil:
		return false, fmt.Errorf("await room: %w", err)
	case poll[0].Revents&unix.POLLOUT == 0:
		return false, errors.New("await room: the edge is closed")
	}
	return true, nil
}

func sendPacket(fd int, p []byte, flags int) error {
	for {
		if err := unix.Send(fd, p, flags|unix.MSG_NOSIGNAL); err != unix.EINTR {
			return err
		}
	}
}
