package synclink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/wait"
	"github.com/sluice-project/sluice/internal/notrack"
)

// An IncomingLink is a link that a Receiver receives on.
type IncomingLink struct {
	Interface string
	At        string // where it receives, for people
	Inlet     Inlet
}

// Output is what a Receiver uses of plugin.Output.
type Output interface {
	Send(b *flow.Builder) error
}

// A Receiver implements plugin.Source. Plugins return one from Build.
type Receiver struct {
	Receiving Receiving
	// Links are all on which it receives, the preferred one first.
	Links []IncomingLink
	// Inside, if not nil, runs what opens sockets. Tests that have several
	// network namespaces in one process need it.
	Inside func(open func() error) error

	name    string // of the plugin, for errors
	host    plugin.Host
	monitor *monitor
	wake    int // an eventfd: a barrier waits, or the context ended

	out  Output // the loop's
	poll []unix.PollFd
	loop wait.Loop

	// mu guards the rest. The loop holds it while it works, but not while it
	// waits for datagrams or for the next stage.
	mu       sync.Mutex
	links    []*incoming
	recent   int // the link on which something was received last
	barriers []barrier
	count    received
	decoder  notrack.Decoder
	message  notrack.Message
	builder  flow.Builder
	header   flow.Header
	building bool
	nodes    nodes
	node     *node // that sent the datagram that is being read
	sender   *sender
	looked   time.Time
	log      rate.Sometimes
}

// An incoming is a link as it is now.
type incoming struct {
	IncomingLink
	number  int
	iface   Interface
	open    bool
	dropped uint32 // as the socket counts
}

// A barrier is a replay of kind SyncKeep that waits for the sockets to be empty.
type barrier struct {
	replay plugin.Replay
	done   chan error
}

// NewReceiver returns a source of the given type, as in "multicast".
func NewReceiver(typ string, r Receiving, links []IncomingLink) *Receiver {
	s := &Receiver{Receiving: r, Links: links, name: "source " + typ, wake: -1}
	s.decoder.ReversedNAT = r.PeerVersion.ReversesNAT()
	s.log = rate.Sometimes{First: 1, Interval: logEvery}
	return s
}

// Open opens the links that can be. It also begins while no interface or address
// of theirs is there yet: the loop opens them when they come.
func (r *Receiver) Open(_ context.Context, host plugin.Host) (err error) {
	r.host = host
	if r.monitor, err = openMonitor(); err != nil {
		return fmt.Errorf("%s: %w", r.name, err)
	}
	if r.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		r.monitor.close()
		return fmt.Errorf("%s: open eventfd: %w", r.name, err)
	}
	r.looked = time.Now()
	if err = r.openLinks(); err != nil {
		r.Close()
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}

// openLinks opens the links that can be. It is an error if there is none and
// none is to be waited for.
func (r *Receiver) openLinks() error {
	var all error
	opened, awaited := false, false
	for i, l := range r.Links {
		n := &incoming{IncomingLink: l, number: i, iface: Interface{Name: l.Interface}}
		r.links = append(r.links, n)
		err := r.monitor.look(&n.iface)
		if err == nil {
			err = r.openLink(n)
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("open link %s: %w", n.Interface, err))
			awaited = awaited || n.iface.comes(err)
			continue
		}
		opened = true
		if size, want := n.Inlet.Buffer(), int(r.Receiving.ReceiveBuffer); size < want {
			r.host.Logger().Warn("receive buffer smaller than configured: raise net.core.rmem_max or grant CAP_NET_ADMIN",
				"bytes", size, "configured", want)
		}
		r.host.Logger().Info("receiving", "at", n.At, "interface", n.Interface)
	}
	switch {
	case opened && all != nil:
		r.host.Logger().Warn("a link can't be used yet", "error", all)
	case !opened && awaited:
		r.host.Logger().Warn("nothing can be received yet: it begins as soon as a link can be used", "error", all)
		r.host.Signal(plugin.SignalLinkDown, all.Error())
	case !opened:
		return all
	}
	return nil
}

// openLink opens a link's inlet, or makes it adapt to its interface.
func (r *Receiver) openLink(n *incoming) error {
	if n.iface.Index == 0 {
		return n.iface.absent()
	}
	inside := r.Inside
	if inside == nil {
		inside = func(open func() error) error { return open() }
	}
	err := inside(func() error { return n.Inlet.Open(&n.iface) })
	n.open = n.open || err == nil
	return err
}

// Close closes the sockets.
func (r *Receiver) Close() error {
	var all error
	for _, n := range r.links {
		all = errors.Join(all, n.Inlet.Close())
	}
	r.monitor.close()
	return errors.Join(all, unix.Close(r.wake))
}

// Run receives until ctx ends, and then what is still in the sockets.
func (r *Receiver) Run(ctx context.Context, out *plugin.Output) error { return r.RunInto(ctx, out) }

// RunInto is Run into any output.
func (r *Receiver) RunInto(ctx context.Context, out Output) error {
	r.out = out
	beat := func() {}
	if real, ok := out.(*plugin.Output); ok {
		beat = real.Beat
	}
	stop := context.AfterFunc(ctx, r.wakeUp)
	defer stop()
	for {
		beat()
		last, read := ctx.Err() != nil, time.Now()
		all, err := r.drain()
		if err != nil || last {
			return err
		}
		r.maintain(read)
		if all > 0 { // more may come at once: let it gather
			if woken := r.pause(time.Duration(r.Receiving.Coalesce) - time.Since(read)); woken {
				continue
			}
		}
		if err := r.await(); err != nil {
			return err
		}
	}
}

// pause waits out the interval, unless somebody wakes the loop.
func (r *Receiver) pause(d time.Duration) (woken bool) {
	r.poll = append(r.poll[:0], unix.PollFd{Fd: int32(r.wake), Events: unix.POLLIN})
	woken, _ = r.loop.Pause(r.poll, d) // an error is an early end
	return woken
}

// await waits for datagrams, for a barrier, for news of interfaces, or for the
// time to look after peers.
func (r *Receiver) await() error {
	r.poll = append(r.poll[:0],
		unix.PollFd{Fd: int32(r.wake), Events: unix.POLLIN},
		unix.PollFd{Fd: int32(r.monitor.fd), Events: unix.POLLIN})
	for _, n := range r.links {
		r.poll = n.Inlet.Poll(r.poll)
	}
	if _, err := r.loop.Descriptors(r.poll, lookEvery); err != nil {
		return fmt.Errorf("%s: wait: %w", r.name, err)
	}
	return nil
}

func (r *Receiver) wakeUp() {
	_, _ = unix.Write(r.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full: it is awake
}

// drain receives until the sockets are empty, sends what came, and then the
// marks of barriers that had been asked for before. It returns the number of
// datagrams.
func (r *Receiver) drain() (all int, err error) {
	var token [8]byte
	_, _ = unix.Read(r.wake, token[:]) // empty: nobody called
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.barriers
	r.barriers = nil
	// A node that takes another link was on the one before until then: what is
	// left there was sent first.
	for i, first := 0, r.recent; i < len(r.links) && err == nil; i++ {
		var n int
		n, err = r.drainLink(r.links[(first+i)%len(r.links)])
		all += n
	}
	if err != nil {
		return all, err
	}
	for _, b := range waiting {
		b.done <- r.marks(b.replay)
	}
	return all, nil
}

func (r *Receiver) drainLink(n *incoming) (all int, err error) {
	// Who sends faster than this reads never leaves the socket empty. But after
	// so many datagrams, or bytes, all those are read that were in it at first.
	most, mostBytes := n.Inlet.Buffer()/smallestCharge+vectorLength, r.count.bytes+n.mostBytes()
	for all < most && r.count.bytes < mostBytes {
		count, more, err := n.Inlet.Receive(func(d *Datagram) error { return r.datagram(n, d) })
		all += count
		if err != nil {
			if r.stopped(err) {
				return all, err
			}
			r.failed("receive", err)
			more = false
		}
		if err := r.send(); err != nil {
			return all, err
		}
		if !more {
			break
		}
	}
	if all > 0 {
		r.recent = n.number
	}
	return all, nil
}

// mostBytes is more than can wait in the link's sockets. (A connection whose
// buffer nobody has set has one that grows.)
func (n *incoming) mostBytes() uint64 {
	return uint64(max(n.Inlet.Buffer(), 8<<20) * (len(n.Inlet.Poll(nil)) + 1))
}

// smallestCharge is less than what any datagram takes of a receive buffer.
const smallestCharge = 256

// A pipelineError is an error of the stage below, which ends the loop.
type pipelineError struct{ error }

func (r *Receiver) stopped(err error) bool { return errors.As(err, &pipelineError{}) }

// datagram decodes one datagram, unless it is not a peer's.
func (r *Receiver) datagram(n *incoming, d *Datagram) error {
	r.count.datagrams++
	r.count.bytes += uint64(len(d.Payload))
	r.overflow(n, d.Dropped)
	if !r.from(n, d) {
		return nil
	}
	tracker := r.node.tracker(r.sender, d.From.Port())
	if len(d.Payload) >= 8 && !r.node.moved(tracker, n.number, d.Since, binary.BigEndian.Uint32(d.Payload[4:])) {
		r.count.late++
		return nil
	}
	gaps, lost := tracker.Gaps, tracker.Lost
	r.decoder.Reset(d.Payload, tracker)
	malformed, heard := r.decoder.Counters.Malformed, false
	for r.decoder.Next(&r.message) {
		if !heard { // not before: who sends nonsense is no peer
			r.heard()
			heard = true
		}
		if err := r.take(); err != nil {
			return err
		}
	}
	if !heard && len(d.Payload) > 0 && r.decoder.Counters.Malformed == malformed {
		r.heard()
	}
	if tracker.Gaps != gaps {
		r.host.Signal(plugin.SignalGap, fmt.Sprintf("%d messages of %s are missing", tracker.Lost-lost, r.node.who()))
	}
	return nil
}

// from finds the node that a datagram is from, and says false if it is to be
// ignored; each cause has its counter.
func (r *Receiver) from(n *incoming, d *Datagram) bool {
	from := d.From.Addr()
	switch {
	case d.Truncated:
		r.count.truncated++
	case d.Elsewhere:
		r.count.elsewhere++
	case r.isOwn(from):
		r.count.own++
	case !r.Receiving.Accepts(from):
		r.count.refused++
		r.log.Do(func() { r.host.Logger().Warn("datagrams refused: see accept_from", "from", from) })
	default:
		if r.node, r.sender = r.nodes.get(from, n.number); r.node != nil {
			return true
		}
		r.count.tooMany++
	}
	return false
}

// Accepts says whether a peer may have the address.
func (c *Receiving) Accepts(a netip.Addr) bool {
	return len(c.AcceptFrom) == 0 ||
		slices.ContainsFunc(c.AcceptFrom, func(p netip.Prefix) bool { return p.Contains(a) })
}

// isOwn says whether an address is this node's.
func (r *Receiver) isOwn(a netip.Addr) bool {
	return slices.ContainsFunc(r.links, func(n *incoming) bool { return n.iface.Has(a) })
}

// overflow notices datagrams that the socket dropped: each one that it takes
// tells how many there were before it. The gap that a sender's leave shows with
// its next message alone; this shows with the next of any sender.
func (r *Receiver) overflow(n *incoming, dropped uint32) {
	if count := dropped - n.dropped; dropped != 0 && count != 0 {
		r.count.dropped += uint64(count)
		n.dropped = dropped
		r.host.Signal(plugin.SignalGap, fmt.Sprintf("%d datagrams did not fit into the receive buffer", count))
	}
}

// take uses one message.
func (r *Receiver) take() error {
	m := &r.message
	switch m.Kind {
	case notrack.Flow:
		if m.Event.IsExpectation() {
			r.count.expectations++
		} else {
			r.count.flows++
		}
		r.node.flows++
		if m.Replay != 0 {
			r.node.replayed++
		}
		return r.append(m)
	case notrack.Mark:
		r.node.marks = true
		r.node.replayed++
		// A peer may say that its sweep is quiet and that its flows are its own,
		// but not that they go into the kernel.
		m.Event.Sync.Flags &= flow.SyncQuiet | flow.SyncClaim
		return r.append(m)
	case notrack.Asks:
		r.asked(m.Resync)
	case notrack.Greeting:
		r.greeted(&m.Hello)
	}
	return nil
}

// append adds an event to the batch that is being built, after sending that
// one if it is of another owner or replay, or full.
func (r *Receiver) append(m *notrack.Message) error {
	r.node = r.nodes.settle(r.node, r.sender)
	owner := r.node.owner
	if !r.building || r.header.Owner != owner || r.header.Replay != m.Replay {
		if err := r.send(); err != nil {
			return err
		}
		r.begin(owner, m.Replay)
	}
	if r.builder.Append(&m.Event) {
		return nil
	}
	if err := r.send(); err != nil {
		return err
	}
	r.begin(owner, m.Replay)
	if !r.builder.Append(&m.Event) {
		r.count.tooLong++
	}
	return nil
}

func (r *Receiver) begin(owner netip.Addr, replay uint64) {
	r.header = flow.Header{Origin: flow.Peer, Owner: owner, Replay: replay, Time: time.Now().UnixNano()}
	r.builder.Reset(r.header)
	r.building = true
}

// send sends the batch that is being built, if there is one.
func (r *Receiver) send() error {
	if !r.building {
		return nil
	}
	r.building = false
	r.mu.Unlock()
	defer r.mu.Lock()
	if err := r.out.Send(&r.builder); err != nil {
		return pipelineError{err}
	}
	return nil
}

// asked passes on that a peer wants all that this node has.
func (r *Receiver) asked(q notrack.Resync) {
	if q.Asked.IsValid() && !r.isOwn(q.Asked) {
		return
	}
	r.count.resyncs++
	r.host.Signal(plugin.SignalResync, r.node.who()+" asks for all flows")
}

// Replay serves a barrier: a begin and an end behind all that had been received
// when it was called. Anything else the peers are asked for, through a sink.
func (r *Receiver) Replay(ctx context.Context, p plugin.Replay, _ *plugin.Output) error {
	return r.Barrier(ctx, p)
}

// Barrier is Replay into the output of Run.
func (r *Receiver) Barrier(ctx context.Context, p plugin.Replay) error {
	if p.Flags&flow.SyncKeep == 0 {
		return errors.New(r.name + ": replay: the peers hold the flows: ask them through a sink on the same link")
	}
	b := barrier{p, make(chan error, 1)}
	r.mu.Lock()
	r.barriers = append(r.barriers, b)
	r.mu.Unlock()
	r.wakeUp()
	select {
	case err := <-b.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// marks sends the two marks of a barrier.
func (r *Receiver) marks(p plugin.Replay) error {
	r.builder.Reset(flow.Header{Replay: p.ID, Edge: p.Edge})
	r.builder.Append(&flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: p.Flags}})
	r.builder.Append(&flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: p.Flags}})
	r.building = true
	return r.send()
}
