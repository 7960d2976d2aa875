package sinkmulticast

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// How often what is sent.
const (
	aliveAfter = time.Second      // of silence, as conntrackd does
	helloEvery = 30 * time.Second // this node's name and version
	logEvery   = 10 * time.Second // lines about trouble that goes on
)

// A link is the interface as it was last seen. It has a netlink socket of its
// own, which stays in the namespace where it was opened.
type link struct {
	handle  *netlink.Handle
	name    string
	index   int
	mtu     int
	running bool
}

func openLink(name string) (l link, err error) {
	l.name = name
	if l.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return l, fmt.Errorf("open route socket: %w", err)
	}
	if _, err = l.refresh(); err != nil {
		l.close()
	}
	return l, err
}

func (l *link) close() { l.handle.Close() }

// refresh looks at the interface and says whether index or MTU changed.
func (l *link) refresh() (changed bool, err error) {
	device, err := l.handle.LinkByName(l.name)
	if err != nil {
		l.running = false
		return false, fmt.Errorf("interface %s: %w", l.name, err)
	}
	a := device.Attrs()
	changed = l.index != a.Index || l.mtu != a.MTU
	l.index, l.mtu, l.running = a.Index, a.MTU, a.RawFlags&unix.IFF_RUNNING != 0
	return changed, nil
}

// address returns the configured address of this node, or the interface's first
// of the group's family: a global one rather than a link-local one.
func (l *link) address(c *Config) (netip.Addr, error) {
	if c.Address.IsValid() {
		return c.Address.Unmap(), nil
	}
	family := netlink.FAMILY_V4
	if c.Group.Unmap().Is6() {
		family = netlink.FAMILY_V6
	}
	device, err := l.handle.LinkByName(l.name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("interface %s: %w", l.name, err)
	}
	list, err := l.handle.AddrList(device, family)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("addresses of %s: %w", l.name, err)
	}
	var local netip.Addr
	for _, one := range list {
		a, _ := netip.AddrFromSlice(one.IP)
		switch a = a.Unmap(); {
		case !a.IsLinkLocalUnicast():
			return a, nil
		case !local.IsValid():
			local = a
		}
	}
	if local.IsValid() {
		return local, nil
	}
	return local, fmt.Errorf("interface %s has no address of the family of %v: add one, or set address", l.name, c.Group)
}

// keep looks every second after the link, and sends a sign of life after a
// second of silence and a Hello now and then, until Close.
func (s *Sink) keep() {
	defer close(s.ended)
	timer := time.NewTimer(0)
	for {
		select {
		case <-s.stop:
			return
		case <-timer.C:
			timer.Reset(s.tick())
		}
	}
}

// tick does what is due and returns when to look again.
func (s *Sink) tick() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watch()
	now := time.Now()
	s.packer.SetReplay(0)
	switch {
	case now.Sub(s.greeted) >= helloEvery:
		s.greeted = now
		s.add(notrack.AppendHello(s.group[:0], &notrack.Hello{Name: []byte(s.host.Start().Node)}))
		s.flush()
	case now.Sub(s.last) >= aliveAfter:
		s.add(notrack.AppendAlive(s.group[:0]))
		s.flush()
	}
	return max(aliveAfter-time.Since(s.last), 10*time.Millisecond)
}

// watch looks at the interface: datagrams follow its MTU, the socket its index,
// and the runner hears when it goes and comes.
func (s *Sink) watch() {
	wasRunning := s.link.running
	changed, err := s.link.refresh()
	if changed {
		s.resized()
	}
	switch {
	case err != nil && wasRunning:
		s.trouble.begin(s.host, err)
	case wasRunning && !s.link.running:
		s.trouble.begin(s.host, fmt.Errorf("interface %s: %w", s.link.name, unix.ENETDOWN))
	}
	if s.stuck && s.link.running {
		s.reopen()
	}
	s.stuck = false
}

// reopen opens the socket anew where the one there is can't send any more: the
// address that it is bound to is gone, or, if that was link-local, so is the
// interface that had it, though another of its name is there. Peers see another
// port, and so a new sequence.
func (s *Sink) reopen() {
	fresh, err := openSocket(&s.config, &s.link)
	if err != nil {
		return // what is wrong is logged as trouble; the next failure tries again
	}
	_ = s.socket.close()
	s.socket = fresh
	s.host.Logger().Info("sending from another socket", "interface", s.link.name, "address", fresh.address)
}

// resized adapts to a link that changed.
func (s *Sink) resized() {
	s.resize()
	if err := s.socket.use(&s.link); err != nil {
		s.host.Logger().Warn("can't send on the interface", "interface", s.link.name, "error", err)
	}
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
func (t *trouble) over(host plugin.Host) {
	if t.cause == nil {
		return
	}
	signal := plugin.SignalEdgeFull
	if t.down {
		signal = plugin.SignalLinkUp
	}
	host.Signal(signal, "datagrams go out again after: "+t.cause.Error())
	t.cause, t.down = nil, false
}

func linkDown(err error) bool {
	return !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ENOMEM) && !errors.Is(err, unix.EPERM)
}
