package sourcemulticast

import (
	"context"
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
	"github.com/sluice-project/sluice/internal/notrack"
)

const logEvery = 10 * time.Second // lines about trouble that goes on

// output is what of plugin.Output the loop uses.
type output interface {
	Send(b *flow.Builder) error
}

// Source implements plugin.Source.
type Source struct {
	config   Config
	host     plugin.Host
	socket   *socket
	receiver *receiver
	wake     int // an eventfd: a barrier waits, or the context ended

	out output // the loop's

	// mu guards the rest. The loop holds it while it works, but not while it
	// waits for datagrams or for the next stage.
	mu       sync.Mutex
	barriers []barrier
	count    counters
	decoder  notrack.Decoder
	message  notrack.Message
	builder  flow.Builder
	header   flow.Header
	building bool
	peers    peers
	dropped  uint32 // as the socket counts
	looked   time.Time
	log      rate.Sometimes
}

// A barrier is a replay of kind SyncKeep that waits for the socket to be empty.
type barrier struct {
	replay plugin.Replay
	done   chan error
}

func newSource(c Config) *Source {
	s := &Source{config: c, peers: peers{}, wake: -1}
	s.decoder.ReversedNAT = c.PeerVersion.ReversesNAT()
	s.log = rate.Sometimes{First: 1, Interval: logEvery}
	return s
}

// Open opens the socket and joins the group.
func (s *Source) Open(_ context.Context, host plugin.Host) (err error) {
	s.host = host
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("source multicast: open eventfd: %w", err)
	}
	if s.socket, err = openSocket(&s.config); err != nil {
		return fmt.Errorf("source multicast: %w", err)
	}
	s.looked = time.Now()
	if want := s.config.ReceiveBuffer; want > 0 && s.socket.receiveBuffer < int(want) {
		host.Logger().Warn("receive buffer smaller than configured: raise net.core.rmem_max or grant CAP_NET_ADMIN",
			"bytes", s.socket.receiveBuffer, "configured", want)
	}
	s.receiver = newReceiver(s.socket.fd)
	host.Logger().Info("receiving", "group", s.config.Group, "port", s.config.Port, "interface", s.config.Interface)
	return nil
}

// Close closes the socket.
func (s *Source) Close() error {
	if s.socket != nil {
		s.socket.close()
	}
	return unix.Close(s.wake)
}

// Run receives until ctx ends, and then what is still in the socket.
func (s *Source) Run(ctx context.Context, out *plugin.Output) error { return s.run(ctx, out) }

func (s *Source) run(ctx context.Context, out output) error {
	s.out = out
	stop := context.AfterFunc(ctx, s.wakeUp)
	defer stop()
	for {
		last, read := ctx.Err() != nil, time.Now()
		all, err := s.drain()
		if err != nil || last {
			return err
		}
		s.maintain(read)
		if all > 0 { // more may come at once: let it gather
			if woken := s.pause(time.Duration(s.config.Coalesce) - time.Since(read)); woken {
				continue
			}
		}
		if err := s.await(); err != nil {
			return err
		}
	}
}

// pause waits out the interval, unless somebody wakes the loop.
func (s *Source) pause(d time.Duration) (woken bool) {
	if d <= 0 {
		return false
	}
	poll := []unix.PollFd{{Fd: int32(s.wake), Events: unix.POLLIN}}
	timeout := unix.NsecToTimespec(d.Nanoseconds())
	n, _ := unix.Ppoll(poll, &timeout, nil) // an error is an early end
	return n > 0
}

// await waits for datagrams, for a barrier, or for the time to look after
// peers and interface.
func (s *Source) await() error {
	poll := []unix.PollFd{
		{Fd: int32(s.socket.fd), Events: unix.POLLIN},
		{Fd: int32(s.wake), Events: unix.POLLIN},
	}
	_, err := unix.Poll(poll, int(lookEvery.Milliseconds()))
	if err != nil && err != unix.EINTR {
		return fmt.Errorf("source multicast: wait: %w", err)
	}
	return nil
}

func (s *Source) wakeUp() {
	_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // full: it is awake
}

// drain receives until the socket is empty, sends what came, and then the marks
// of barriers that had been asked for before. It returns the number of
// datagrams.
func (s *Source) drain() (all int, err error) {
	var token [8]byte
	_, _ = unix.Read(s.wake, token[:]) // empty: nobody called
	s.mu.Lock()
	defer s.mu.Unlock()
	waiting := s.barriers
	s.barriers = nil
	// Who sends faster than this reads never leaves the socket empty. But after
	// so many datagrams all those are read that were in it at first.
	for most := s.socket.receiveBuffer/smallestCharge + vectorLength; all < most; {
		n, err := s.receiver.receive()
		if err != nil {
			s.trouble("receive", err)
			break
		}
		all += n
		for i := range n {
			if err := s.datagram(s.receiver.datagram(i)); err != nil {
				return all, err
			}
		}
		if err := s.send(); err != nil {
			return all, err
		}
		if n < vectorLength {
			break
		}
	}
	for _, b := range waiting {
		b.done <- s.marks(b.replay)
	}
	return all, nil
}

// smallestCharge is less than what any datagram takes of a receive buffer.
const smallestCharge = 256

// datagram decodes one datagram, unless it is not a peer's.
func (s *Source) datagram(d received) error {
	s.count.datagrams++
	s.count.bytes += uint64(len(d.payload))
	s.overflow(d.dropped)
	p := s.sender(&d)
	if p == nil {
		return nil
	}
	tracker := p.tracker(d.from.Port())
	gaps, lost := tracker.Gaps, tracker.Lost
	s.decoder.Reset(d.payload, tracker)
	s.heard(p)
	for s.decoder.Next(&s.message) {
		if err := s.take(p); err != nil {
			return err
		}
	}
	if tracker.Gaps != gaps {
		s.host.Signal(plugin.SignalGap, fmt.Sprintf("%d messages of %s are missing", tracker.Lost-lost, p.who()))
	}
	return nil
}

// sender returns the peer that a datagram is from, or nil if it is to be
// ignored; each cause has its counter.
func (s *Source) sender(d *received) *peer {
	from := d.from.Addr()
	switch {
	case d.truncated:
		s.count.truncated++
	case d.to != s.socket.group.Addr() || d.device != s.socket.index:
		s.count.elsewhere++
	case s.socket.isOwn(from):
		s.count.own++
	case !s.accepted(from):
		s.count.refused++
		s.log.Do(func() { s.host.Logger().Warn("datagrams refused: see accept_from", "from", from) })
	default:
		if p := s.peers.get(from); p != nil {
			return p
		}
		s.count.tooMany++
	}
	return nil
}

func (s *Source) accepted(a netip.Addr) bool {
	return len(s.config.AcceptFrom) == 0 ||
		slices.ContainsFunc(s.config.AcceptFrom, func(p netip.Prefix) bool { return p.Contains(a) })
}

// overflow notices datagrams that the socket dropped: each one that it takes
// tells how many there were before it. The gap that a sender's leave shows with
// its next message alone; this shows with the next of any sender.
func (s *Source) overflow(dropped uint32) {
	if n := dropped - s.dropped; dropped != 0 && n != 0 {
		s.count.dropped += uint64(n)
		s.dropped = dropped
		s.host.Signal(plugin.SignalGap, fmt.Sprintf("%d datagrams did not fit into the receive buffer", n))
	}
}

// take uses one message.
func (s *Source) take(p *peer) error {
	m := &s.message
	switch m.Kind {
	case notrack.Flow:
		s.count.flows++
		p.flows++
		if m.Replay != 0 {
			p.replayed++
		}
		return s.append(p, m)
	case notrack.Mark:
		p.marks = true
		p.replayed++
		// A peer may say that its sweep is quiet, but not what is this node's.
		m.Event.Sync.Flags &= flow.SyncQuiet
		return s.append(p, m)
	case notrack.Asks:
		s.asked(p, m.Resync)
	case notrack.Greeting:
		s.greeted(p, &m.Hello)
	case notrack.Expectation:
		s.count.expectations++
	}
	return nil
}

// append adds an event to the batch that is being built, after sending that
// one if it is of another owner or replay, or full.
func (s *Source) append(p *peer, m *notrack.Message) error {
	if !s.building || s.header.Owner != p.address || s.header.Replay != m.Replay {
		if err := s.send(); err != nil {
			return err
		}
		s.begin(p.address, m.Replay)
	}
	if s.builder.Append(&m.Event) {
		return nil
	}
	if err := s.send(); err != nil {
		return err
	}
	s.begin(p.address, m.Replay)
	if !s.builder.Append(&m.Event) {
		s.count.tooLong++
	}
	return nil
}

func (s *Source) begin(owner netip.Addr, replay uint64) {
	s.header = flow.Header{Origin: flow.Peer, Owner: owner, Replay: replay, Time: time.Now().UnixNano()}
	s.builder.Reset(s.header)
	s.building = true
}

// send sends the batch that is being built, if there is one.
func (s *Source) send() error {
	if !s.building {
		return nil
	}
	s.building = false
	s.mu.Unlock()
	defer s.mu.Lock()
	return s.out.Send(&s.builder)
}

// asked passes on that a peer wants all that this node has.
func (s *Source) asked(p *peer, r notrack.Resync) {
	if r.Asked.IsValid() && !s.socket.isOwn(r.Asked) {
		return
	}
	s.count.resyncs++
	s.host.Signal(plugin.SignalResync, p.who()+" asks for all flows")
}

// Replay serves a barrier: a begin and an end behind all that had been received
// when it was called. Anything else the peers are asked for, through a sink.
func (s *Source) Replay(ctx context.Context, r plugin.Replay, _ *plugin.Output) error {
	return s.barrier(ctx, r)
}

func (s *Source) barrier(ctx context.Context, r plugin.Replay) error {
	if r.Flags&flow.SyncKeep == 0 {
		return errors.New("source multicast: replay: the peers hold the flows: ask them through a sink on the same link")
	}
	b := barrier{r, make(chan error, 1)}
	s.mu.Lock()
	s.barriers = append(s.barriers, b)
	s.mu.Unlock()
	s.wakeUp()
	select {
	case err := <-b.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// marks sends the two marks of a barrier.
func (s *Source) marks(r plugin.Replay) error {
	s.builder.Reset(flow.Header{Replay: r.ID, Edge: r.Edge})
	s.builder.Append(&flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: r.Flags}})
	s.builder.Append(&flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: r.Flags}})
	s.building = true
	return s.send()
}
