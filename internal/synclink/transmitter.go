package synclink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// An OutgoingLink is a link that a Transmitter may send on.
type OutgoingLink struct {
	Interface string
	To        string // where it leads to, for people
	Outlet    Outlet
}

// A Transmitter implements plugin.Sink. Plugins return one from Build.
type Transmitter struct {
	Sending Sending
	// Links are those that it may send on, the preferred one first.
	Links []OutgoingLink
	// Stream: the bytes of datagrams follow each other without borders, so each
	// is to say how long it is.
	Stream bool
	// Inside, if not nil, runs what opens sockets. Tests that have several
	// network namespaces in one process need it.
	Inside func(open func() error) error

	name    string // of the plugin, for errors
	host    plugin.Host
	monitor *monitor
	wake    int           // an eventfd: the keeper is to look
	stop    chan struct{} // closed: the keeper ends
	ended   chan struct{} // closed: it has

	count transmitted
	shown atomic.Pointer[outgoing] // active, for Statistics
	note  atomic.Pointer[string]   // for Note

	mu       sync.Mutex // of everything below
	links    []*outgoing
	active   *outgoing
	identity netip.Addr // by which peers know the node, whichever link it uses
	encoder  *notrack.Encoder
	packer   *notrack.Packer
	event    flow.Event
	group    []byte // the message that is being built; used again
	replay   outgoingReplay
	trouble  trouble
	resize   bool      // the datagrams' size is to be looked at
	last     time.Time // when datagrams were last sent, or tried to be
	greeted  time.Time // when the last Hello was
}

// An outgoingReplay is what became so far of the replay that is being sent.
type outgoingReplay struct {
	id       uint64
	received uint64 // records that reached this stage
	sent     uint64 // messages in datagrams that the kernel took
	lost     bool   // a datagram of it was not
	reached  bool   // the kernel took a datagram, and the link ran
	err      error  // the last one, if there was any
}

// NewTransmitter returns a sink of the given type, as in "multicast".
func NewTransmitter(typ string, s Sending, links []OutgoingLink) *Transmitter {
	return &Transmitter{Sending: s, Links: links, name: "sink " + typ, wake: -1}
}

// Open opens the links and begins to keep the node alive there. It also begins
// while no interface or address of theirs is there yet: the keeper opens them
// when they come.
func (t *Transmitter) Open(_ context.Context, host plugin.Host) (err error) {
	t.host = host
	t.trouble.init()
	if t.monitor, err = openMonitor(); err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	if t.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		t.monitor.close()
		return fmt.Errorf("%s: open eventfd: %w", t.name, err)
	}
	if err := t.openLinks(); err != nil {
		t.closeLinks()
		return fmt.Errorf("%s: %w", t.name, err)
	}
	t.packer = notrack.NewPacker(0, notrack.NewSequencer(uint32(time.Now().Unix())))
	if t.Stream {
		t.packer.SetFramed()
	}
	t.fit()
	t.stop, t.ended = make(chan struct{}), make(chan struct{})
	go t.keep()
	return nil
}

// openLinks opens the links that can be. It is an error if there is none and
// none is to be waited for.
func (t *Transmitter) openLinks() error {
	var all error
	var awaited *outgoing // the first of which something is not there yet
	for _, l := range t.Links {
		o := &outgoing{OutgoingLink: l, iface: Interface{Name: l.Interface}}
		t.links = append(t.links, o)
		if c, ok := l.Outlet.(Connecting); ok {
			c.Start(t.rouse, t.inside)
		}
		err := t.monitor.look(&o.iface)
		if err == nil {
			err = t.open(o)
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("open link %s: %w", o.Interface, err))
			if awaited == nil && o.iface.comes(err) {
				awaited = o
			}
			continue
		}
		t.host.Logger().Info("sending", "to", o.To, "interface", o.Interface, "address", o.address, "mtu", o.iface.MTU)
		t.checkBuffer(o)
		if t.active == nil || t.active.usable() != nil && o.usable() == nil {
			t.active = o
		}
	}
	switch {
	case t.active != nil && all != nil:
		t.host.Logger().Warn("a link can't be used yet", "error", all)
	case t.active == nil && awaited != nil:
		t.active = awaited
		t.host.Logger().Warn("nothing can be sent yet: it begins as soon as a link can be used", "error", all)
	case t.active == nil:
		return all
	}
	return nil
}

func (t *Transmitter) checkBuffer(o *outgoing) {
	if size := o.Outlet.Buffer(); size < int(t.Sending.SendBuffer) {
		t.host.Logger().Warn("send buffer smaller than configured: raise net.core.wmem_max or grant CAP_NET_ADMIN",
			"bytes", size, "configured", t.Sending.SendBuffer)
	}
}

// fit adapts datagrams to the active link.
func (t *Transmitter) fit() {
	t.shown.Store(t.active)
	room := t.active.Outlet.Room(&t.active.iface)
	t.packer.SetRoom(room)
	if t.Stream {
		room -= notrack.FrameSize
	}
	t.encoder = notrack.NewEncoder(t.Sending.settings(room))
}

// Close ends the keeper and closes the sockets.
func (t *Transmitter) Close() error {
	close(t.stop)
	t.rouse()
	<-t.ended
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closeLinks()
}

func (t *Transmitter) closeLinks() error {
	var all error
	for _, o := range t.links {
		all = errors.Join(all, o.Outlet.Close())
	}
	t.monitor.close()
	return errors.Join(all, unix.Close(t.wake))
}

// Write sends a batch. What can't be sent is counted, and repaired by a replay
// that the runner is asked for.
func (t *Transmitter) Write(b *flow.Batch) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.packer.SetReplay(b.Replay)
	for c := b.Cursor(); c.Next(&t.event); {
		switch t.event.Kind {
		case flow.SyncBegin:
			t.replay = outgoingReplay{id: b.Replay}
			if len(t.links) > 1 { // who was started meanwhile must know whose flows these are
				t.hello()
			}
			t.add(notrack.AppendSync(t.group[:0], b.Replay, flow.SyncBegin, t.event.Sync))
		case flow.SyncEnd:
			t.flush()
			t.end(b, t.event.Sync)
		default:
			t.flow(b)
		}
	}
	t.flush()
	return nil
}

// flow adds the message about the event to the datagrams.
func (t *Transmitter) flow(b *flow.Batch) {
	replayed := b.Replay != 0 && b.Replay == t.replay.id
	if replayed {
		t.replay.received++
	}
	group, err := t.encoder.AppendFlow(t.group[:0], &t.event)
	switch {
	case errors.Is(err, notrack.ErrZone):
		t.count.zones.Add(1)
	case err != nil || !t.add(group):
		t.count.tooLong.Add(1)
	case replayed:
		t.replay.sent++
	}
}

// add adds a group of messages to the datagrams, and keeps its memory.
func (t *Transmitter) add(group []byte) bool {
	t.group = group
	return t.packer.Append(group)
}

// hello adds the node's name, and, if it has several links, the address that it
// keeps whichever of them it uses.
func (t *Transmitter) hello() {
	h := notrack.Hello{Name: []byte(t.host.Start().Node)}
	if len(t.links) > 1 {
		h.Node = t.identity
	}
	t.greeted = time.Now()
	t.add(notrack.AppendHello(t.group[:0], &h))
}

// end ends a replay. The mark goes out only if every record arrived here and
// left again: what it does not name, the peers' caches sweep.
func (t *Transmitter) end(b *flow.Batch, end flow.Sync) {
	r := &t.replay
	report := plugin.Report{Replay: b.Replay, Owner: b.Owner}
	switch {
	case r.id != b.Replay:
		report.Failed = "its begin did not arrive at the sink"
	case r.received != end.Count:
		report.Failed = fmt.Sprintf("%d of its %d flows arrived at the sink", r.received, end.Count)
	default:
		end.Count = r.sent
		t.add(notrack.AppendSync(t.group[:0], b.Replay, flow.SyncEnd, end))
		t.flush()
		switch {
		case !r.reached && broken(r.err):
			report.Unreached = t.unreached(r.err).Error()
		case r.lost:
			report.Failed = "not all of it could be sent on the link"
		}
	}
	if report.Failed == "" && report.Unreached == "" {
		t.count.replays.Add(1)
		report.Counts = []plugin.Count{{Name: "sent", Value: r.sent}}
	} else {
		t.count.replaysFailed.Add(1)
	}
	t.replay = outgoingReplay{}
	t.host.Done(report)
}

// Command carries out request-resync.
func (t *Transmitter) Command(_ context.Context, c plugin.Command, out io.Writer) error {
	if c.Name != RequestResync {
		return fmt.Errorf("%s: command %q: there is only %s", t.name, c.Name, RequestResync)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.packer.SetReplay(0)
	t.add(notrack.AppendResync(t.group[:0], notrack.Resync{Asks: t.active.address}))
	switch sent := t.flush(); {
	case !sent.reached && broken(sent.err):
		return fmt.Errorf("%s: %s: %w", t.name, RequestResync, t.unreached(sent.err))
	case sent.err != nil:
		return fmt.Errorf("%s: %s: %w", t.name, RequestResync, sent.err)
	}
	t.count.requests.Add(1)
	if c.JSON {
		_, err := fmt.Fprintf(out, "{\"asked\":%q}\n", t.active.To)
		return err
	}
	_, err := fmt.Fprintf(out, "asked the nodes of %v\n", t.active.To)
	return err
}

// unreached says why nothing was sent; err is the last error of sending, if there
// was any.
func (t *Transmitter) unreached(err error) error {
	if cause := t.active.usable(); cause != nil {
		err = cause
	}
	if err == nil {
		err = errors.New("no peer is there that takes anything")
	}
	return fmt.Errorf("%w: %w", plugin.ErrUnreached, err)
}

// broken says whether what was not sent was not for want of a link, or of
// somebody there; an error that concerns single datagrams is another matter.
func broken(err error) bool { return err == nil || linkDown(err) }

// flush sends all datagrams that are full or begun, and returns what became of
// them. Each error is counted, logged and signalled.
func (t *Transmitter) flush() tally {
	t.packer.Flush()
	sent := tally{t: t, link: t.active}
	if t.packer.Len() > 0 {
		t.last = time.Now()
		t.send(&sent)
		t.packer.Reset()
	}
	if t.resize {
		t.resize = false
		t.relook(t.active)
		t.fit()
	}
	if sent.err != nil {
		t.choose(time.Now())
	}
	return sent
}

func (t *Transmitter) send(y *tally) {
	if t.active.address.IsValid() {
		t.active.Outlet.Send(t.packer, y)
		return
	}
	for range t.packer.Len() { // it was never open
		y.Lost(t.active.usable())
	}
}

// A tally takes what an outlet tells of one link.
type tally struct {
	t       *Transmitter
	link    *outgoing
	err     error // the last one
	reached bool  // the kernel took a datagram, and the link ran
}

// Sent counts what the kernel took. Without a carrier it takes all and drops it,
// so trouble is over only when the link runs.
func (y *tally) Sent(datagrams int, bytes uint64) {
	t := y.t
	t.count.datagrams.Add(uint64(datagrams))
	t.count.bytes.Add(bytes)
	if y.link.iface.Running {
		y.reached, t.replay.reached = true, true
		y.link.sent()
		t.trouble.over(t.host, y.link)
	} else {
		t.replay.lost = true
	}
}

// Fragmented makes the next datagrams shorter.
func (y *tally) Fragmented() {
	y.t.count.fragmented.Add(1)
	y.t.resize = true
}

// Lost counts a datagram that was not sent. Without an error it was for a peer
// that is not there, with ErrBehind for one that is slow; whom a replay awaits:
// see Restored.
func (y *tally) Lost(err error) {
	t := y.t
	t.count.lost.Add(1)
	switch {
	case err == nil:
		t.count.absent.Add(1)
		return
	case errors.Is(err, ErrBehind):
		t.count.full.Add(1)
		t.trouble.log.Do(func() { t.host.Logger().Warn("messages are lost on the link", "error", err) })
		return
	}
	t.count.errors(err).Add(1)
	t.replay.lost, t.replay.err = true, err
	y.err = err
	if linkDown(err) && y.link.address.IsValid() {
		y.link.failed(err)
	}
	t.trouble.begin(t.host, err)
}

// Restored has everything replayed for a peer that missed some of it.
func (y *tally) Restored(peer string) {
	y.t.host.Signal(plugin.SignalLinkUp, peer+" can be reached")
	y.t.greeted = time.Time{} // it is to know who sends
}
