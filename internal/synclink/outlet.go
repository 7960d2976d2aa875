package synclink

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/notrack"
)

// An Outlet is the sending end of one link. The Transmitter calls its methods
// one at a time.
type Outlet interface {
	// Open makes the outlet send on an interface as it is now, from the address
	// that it returns, in place of what was open before. An error leaves that.
	Open(i *Interface) (netip.Addr, error)

	// Adapt is told of another index or MTU, while the address is the same. An
	// error has the outlet opened again.
	Adapt(i *Interface) error

	// Room is how many bytes a datagram may have.
	Room(i *Interface) int

	// Send sends the packer's datagrams and tells what became of each, in order.
	Send(p *notrack.Packer, t Tally)

	// Tend is called every second, so that what has to be done now and then is.
	Tend(now time.Time, t Tally)

	// Ready says whether anybody can be reached, as far as the outlet knows.
	Ready() error

	// Leave is called when another link is used from now on: what has not arrived
	// must not arrive after what goes out there.
	Leave()

	// Buffer is the size of a socket's send buffer as getsockopt shows it.
	Buffer() int

	// Close ends it.
	Close() error
}

// Connecting is an Outlet that connects by itself. Start is called once, before
// Open: wake has Tend called soon, and inside runs what opens sockets.
type Connecting interface {
	Start(wake func(), inside func(open func() error) error)
}

// ErrBehind says that a datagram was dropped for a peer that does not take what
// it is sent.
var ErrBehind = errors.New("a peer does not keep up")

// A Tally hears what becomes of datagrams.
type Tally interface {
	Sent(datagrams int, bytes uint64) // the kernel took them
	Fragmented()                      // one was sent, but is longer than the MTU has become
	Lost(err error)                   // one was not sent; nil: its peer is not there
	Restored(peer string)             // a peer that had missed some can be reached again
}

// DatagramOutlet is an Outlet of UDP sockets, one a destination.
type DatagramOutlet struct {
	// Dial opens the sockets on an interface, from one address of it, which it
	// returns.
	Dial func(i *Interface) ([]*DatagramSocket, netip.Addr, error)
	// Family is that of all destinations.
	Family Family
	// Sockets are those that are open.
	Sockets []*DatagramSocket

	index int // of the interface
}

// Open opens the sockets.
func (o *DatagramOutlet) Open(i *Interface) (netip.Addr, error) {
	fresh, address, err := o.Dial(i)
	if err != nil {
		for _, s := range fresh {
			_ = s.Close()
		}
		return address, err
	}
	_ = o.Close()
	o.Sockets, o.index = fresh, i.Index
	return address, nil
}

// Adapt tells the sockets of another index.
func (o *DatagramOutlet) Adapt(i *Interface) error {
	var all error
	for _, s := range o.Sockets {
		switch {
		case s.adapt != nil:
			all = errors.Join(all, s.adapt(s.fd, i))
		case i.Index != o.index:
			all = errors.New("it is another one of this name")
		}
	}
	return all
}

// Room is what the MTU leaves: the interface's, or that of the way to a peer if
// that is known to be less.
func (o *DatagramOutlet) Room(i *Interface) int {
	mtu := i.MTU
	if mtu == 0 { // it is not there yet
		mtu = leastMTU
	}
	for _, s := range o.Sockets {
		level, option := unix.IPPROTO_IP, unix.IP_MTU
		if o.Family == 6 {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU
		}
		if way, err := unix.GetsockoptInt(s.fd, level, option); err == nil && s.connected && way >= leastMTU {
			mtu = min(mtu, way)
		}
	}
	return notrack.Room(mtu, o.Family == 6)
}

const leastMTU = 576 // what IPv4 hosts take; IPv6 has 1280

// Ready is nil: datagrams need nobody who listens.
func (o *DatagramOutlet) Ready() error { return nil }

// Leave does nothing: datagrams arrive at once or never.
func (o *DatagramOutlet) Leave() {}

// Buffer is that of the first socket.
func (o *DatagramOutlet) Buffer() (size int) {
	for _, s := range o.Sockets[:min(1, len(o.Sockets))] {
		size, _ = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	}
	return size
}

// Close closes the sockets.
func (o *DatagramOutlet) Close() error {
	var all error
	for _, s := range o.Sockets {
		all = errors.Join(all, s.Close())
	}
	o.Sockets = nil
	return all
}

// Send sends everything to every destination. Of several the link may lead to
// some alone: it is broken if none can be sent to.
func (o *DatagramOutlet) Send(p *notrack.Packer, t Tally) {
	until := time.Now().Add(patience)
	if len(o.Sockets) == 1 {
		o.Sockets[0].send(p, until, t)
		return
	}
	one := oneOfSeveral{Tally: t}
	for _, s := range o.Sockets {
		one.socket = s
		s.send(p, until, &one)
	}
	if one.err != nil && !one.sent {
		t.Lost(one.err)
	}
}

// oneOfSeveral is the tally of a socket that is not the only one.
type oneOfSeveral struct {
	Tally
	socket *DatagramSocket
	sent   bool
	err    error
}

func (y *oneOfSeveral) Sent(datagrams int, bytes uint64) {
	y.sent = true
	y.Tally.Sent(datagrams, bytes)
}

func (y *oneOfSeveral) Lost(err error) {
	if err != nil && linkDown(err) {
		y.socket.absent, y.err = time.Now(), err
		err = nil
	}
	y.Tally.Lost(err)
}

// Tend looks for peers that can be reached again.
func (o *DatagramOutlet) Tend(now time.Time, t Tally) {
	for _, s := range o.Sockets {
		if !s.absent.IsZero() && now.Sub(s.absent) >= backAfter {
			s.absent = time.Time{}
			t.Restored(s.to.String())
		}
	}
}

// SendOptions sets what every socket that sends datagrams needs.
func SendOptions(fd int, f Family, s *Sending, checksum bool) error {
	SetBuffer(fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, int(s.SendBuffer))
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) // nothing is ever read
	if !checksum && f == 4 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			return fmt.Errorf("checksum: %w", err)
		}
	}
	// With RECVERR the kernel says ENOBUFS when the interface's queue drops a
	// datagram (net/ipv4/udp.c, udp_send_skb); without it, it says nothing.
	level, recvErr, discover, do := unix.IPPROTO_IP, unix.IP_RECVERR, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if f == 6 {
		level, recvErr, discover, do = unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	}
	if err := unix.SetsockoptInt(fd, level, recvErr, 1); err != nil {
		return fmt.Errorf("report loss: %w", err)
	}
	// Never fragment, so that a smaller MTU shows: see fragmented.
	return unix.SetsockoptInt(fd, level, discover, do)
}

// SetBuffer sets a socket's buffer to what getsockopt then shows; 0 leaves the
// system's. What is more than the system allows is capped: see Buffer.
func SetBuffer(fd, option, force, bytes int) {
	if bytes > 0 {
		// The kernel doubles what it is given, for its own bookkeeping.
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes/2) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, bytes/2)
		}
	}
}

// SetOptions sets options of a socket: level, option and value of each.
func SetOptions(fd int, options [][3]int) error {
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fmt.Errorf("set option %d of level %d: %w", o[1], o[0], err)
		}
	}
	return nil
}
