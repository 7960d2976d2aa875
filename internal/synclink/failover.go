package synclink

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// How often what is done.
const (
	aliveAfter = time.Second      // of silence, as conntrackd does
	helloEvery = 30 * time.Second // this node's name and version
	logEvery   = 10 * time.Second // lines about trouble that goes on

	settleAfter = 3 * time.Second // a preferred link works again: then it is used
	avoidFor    = 5 * time.Second // a link on which sending failed, at first
	avoidMost   = time.Minute     // at most, if that happens again and again
)

// An outgoing is a link as it is now.
type outgoing struct {
	OutgoingLink
	iface   Interface
	address netip.Addr // that the outlet sends from; invalid: it is not open
	foreign bool       // that is not the interface's, but another's
	works   time.Time  // since when it can be used; zero: it can't

	err     error // of the last datagram that was not sent, though the interface looked well
	stuck   bool  // since then no other socket was opened
	until   time.Time
	penalty time.Duration // until when, and for how long, it is kept off after that
}

// usable says why the link can't be used, if it can't.
func (o *outgoing) usable() error {
	switch {
	case o.iface.Index == 0:
		return fmt.Errorf("interface %s: %w", o.Interface, unix.ENODEV)
	case !o.iface.Running:
		return fmt.Errorf("interface %s: %w", o.Interface, unix.ENETDOWN)
	case o.lacks():
		return fmt.Errorf("interface %s: %w", o.Interface, unix.EADDRNOTAVAIL)
	case time.Now().Before(o.until):
		return o.err
	}
	return o.Outlet.Ready()
}

// lacks says whether the address that the outlet sends from is not there.
func (o *outgoing) lacks() bool {
	return !o.address.IsValid() || !o.foreign && !o.iface.Has(o.address)
}

// failed keeps off a link on which a datagram could not be sent, though its
// interface looks well, for a while, and longer the next time.
func (o *outgoing) failed(err error) {
	switch now := time.Now(); {
	case now.Before(o.until): // it is kept off already
	case now.Sub(o.until) > avoidMost:
		o.penalty, o.until = avoidFor, now.Add(avoidFor)
	default:
		o.penalty = min(2*o.penalty, avoidMost)
		o.until = now.Add(o.penalty)
	}
	o.err, o.stuck = err, true
}

// sent ends that: there is no other link, and this one works.
func (o *outgoing) sent() {
	if o.err != nil {
		o.err, o.stuck, o.until = nil, false, time.Now()
	}
}

// open opens the link's sockets, anew if they are.
func (t *Transmitter) open(o *outgoing) error {
	return t.inside(func() error {
		address, err := o.Outlet.Open(&o.iface)
		if err == nil {
			o.address, o.foreign, o.stuck = address, !o.iface.Has(address), false
			if !t.identity.IsValid() {
				t.identity = address
			}
		}
		return err
	})
}

// inside runs what opens sockets.
func (t *Transmitter) inside(open func() error) error {
	if t.Inside == nil {
		return open()
	}
	return t.Inside(open)
}

// keep looks after the links when there is news of them, and every second, and
// sends a sign of life after a second of silence and a Hello now and then, until
// Close.
func (t *Transmitter) keep() {
	defer close(t.ended)
	for wait := time.Duration(0); ; {
		poll := []unix.PollFd{{Fd: int32(t.monitor.fd), Events: unix.POLLIN}, {Fd: int32(t.wake), Events: unix.POLLIN}}
		timeout := unix.NsecToTimespec(wait.Nanoseconds())
		_, _ = unix.Ppoll(poll, &timeout, nil) // an error is an early end
		select {
		case <-t.stop:
			return
		default:
			wait = t.tick()
		}
	}
}

// rouse has the keeper look.
func (t *Transmitter) rouse() { _, _ = unix.Write(t.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// tick does what is due and returns when to look again.
func (t *Transmitter) tick() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	var token [8]byte
	_, _ = unix.Read(t.wake, token[:])
	now := time.Now()
	t.watch(now)
	t.packer.SetReplay(0)
	switch {
	case now.Sub(t.greeted) >= helloEvery:
		t.hello()
		t.flush()
	case now.Sub(t.last) >= aliveAfter:
		t.add(notrack.AppendAlive(t.group[:0]))
		t.flush()
	}
	return max(aliveAfter-time.Since(t.last), 10*time.Millisecond)
}

// watch looks at the interfaces of which there is news: datagrams follow the
// MTU, sockets the index and the address, the runner hears when a link goes and
// comes, and another takes over.
func (t *Transmitter) watch(now time.Time) {
	news := t.monitor.news(t.watched)
	for _, o := range t.links {
		if news || o.usable() != nil {
			t.relook(o)
		}
		if o.usable() == nil && o.works.IsZero() {
			o.works = now
		}
		o.Outlet.Tend(now, &tally{t: t, link: o})
	}
	t.choose(now)
}

// watched says whether an interface of that index may be one of the links'.
func (t *Transmitter) watched(index int) bool {
	for _, o := range t.links {
		if o.iface.Index == index || o.iface.Index == 0 {
			return true
		}
	}
	return false
}

// relook looks at a link's interface and adapts to what has changed there.
func (t *Transmitter) relook(o *outgoing) {
	was := o.iface
	if err := t.monitor.look(&o.iface); err != nil {
		o.iface.Running = false
		t.trouble.log.Do(func() { t.host.Logger().Warn("can't look at an interface", "error", err) })
		return
	}
	if o.iface.Index == 0 {
		return
	}
	if o.address.IsValid() && (was.Index != o.iface.Index || was.MTU != o.iface.MTU) {
		t.adapt(o, was.MTU != o.iface.MTU)
	}
	if o.lacks() || o.iface.Running && o.stuck {
		t.reopen(o)
	}
}

func (t *Transmitter) adapt(o *outgoing, size bool) {
	if err := o.Outlet.Adapt(&o.iface); err != nil {
		t.host.Logger().Info("can't go on sending on the interface", "interface", o.Interface, "error", err)
		o.stuck = true
	}
	if o == t.active && size {
		t.host.Logger().Info("link changed", "interface", o.Interface, "mtu", o.iface.MTU)
		t.fit()
	}
}

// reopen opens a link's sockets where those there are can't send any more: the
// address that they are bound to is gone, or, if that was link-local, so is the
// interface that had it, though another of its name is there. Peers see another
// port, and so a new sequence.
func (t *Transmitter) reopen(o *outgoing) {
	first := !o.address.IsValid()
	if err := t.open(o); err != nil {
		return // what is wrong is logged as trouble; it is tried again
	}
	if first {
		t.host.Logger().Info("sending", "to", o.To, "interface", o.Interface, "address", o.address, "mtu", o.iface.MTU)
		t.checkBuffer(o)
	} else {
		t.host.Logger().Info("sending from another socket", "interface", o.Interface, "address", o.address)
	}
	if o == t.active {
		t.fit()
	}
}

// choose has another link take over if the active one can't be used, and takes a
// preferred one when that has worked again for a while:
//
//  1. A link can be used if its interface is up and has a carrier, the address
//     that it sends from is there, and no datagram was refused lately.
//  2. The active link stays until it can't be used, or one that is preferred has
//     been usable for settleAfter.
//  3. If the active one can't be used, the first one that can takes over at
//     once. If there is none the active one stays.
//  4. Whatever link takes over, the runner is told, and has the cache replay:
//     what was sent before may not have arrived.
func (t *Transmitter) choose(now time.Time) {
	defer t.describe()
	cause := t.active.usable()
	for _, o := range t.links {
		if o.usable() != nil {
			o.works = time.Time{}
		}
	}
	if cause != nil {
		t.trouble.begin(t.host, cause)
	}
	for _, o := range t.links {
		if o == t.active && cause == nil {
			return
		}
		if o.usable() == nil && (cause != nil || !o.works.IsZero() && now.Sub(o.works) >= settleAfter) {
			t.use(o, cause)
			return
		}
	}
}

// describe writes down for people which link is used, and what is wrong with the
// others.
func (t *Transmitter) describe() {
	var words []string
	if len(t.links) > 1 {
		words = append(words, "sends on "+t.active.Interface)
	}
	for _, o := range t.links {
		if err := o.usable(); err != nil {
			words = append(words, err.Error())
		}
	}
	note := strings.Join(words, "; ")
	t.note.Store(&note)
}

// Note implements plugin.Noter.
func (t *Transmitter) Note() string {
	if note := t.note.Load(); note != nil {
		return *note
	}
	return ""
}

// use makes a link the active one.
func (t *Transmitter) use(o *outgoing, cause error) {
	t.host.Logger().Info("sending on another link", "interface", o.Interface, "address", o.address, "to", o.To, "before", t.active.Interface)
	t.active.Outlet.Leave()
	t.active = o
	t.count.changes.Add(1)
	t.fit()
	if cause == nil {
		t.host.Signal(plugin.SignalLinkUp, "interface "+o.Interface+" works again")
	}
	t.packer.SetReplay(0)
	t.hello() // and with it who is sending
	t.flush()
}

// trouble is a time in which datagrams are lost here. It tells the runner and
// the log about its begin, and when it is over; in between a line now and then.
type trouble struct {
	cause error // nil: none
	down  bool  // the link, rather than a queue
	log   rate.Sometimes
}

func (t *trouble) init() { t.log = rate.Sometimes{First: 1, Interval: logEvery} }

func (t *trouble) begin(host plugin.Host, err error) {
	down := linkDown(err)
	if down && !t.down {
		host.Signal(plugin.SignalLinkDown, err.Error())
	}
	t.cause, t.down = err, t.down || down
	t.log.Do(func() { host.Logger().Warn("messages are lost on the link", "error", err) })
}

// over asks for a replay of what was lost, now that datagrams go out again.
func (t *trouble) over(host plugin.Host, o *outgoing) {
	if t.cause == nil {
		return
	}
	signal := plugin.SignalEdgeFull
	if t.down {
		signal = plugin.SignalLinkUp
	}
	host.Signal(signal, "datagrams go out again on "+o.Interface+" after: "+t.cause.Error())
	t.cause, t.down = nil, false
}

func linkDown(err error) bool {
	return !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EPERM)
}
