package synclink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
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
			s.conn.Close()
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
			all = errors.Join(all, s.adapt(i))
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
		if way, err := Getsockopt(s.conn, level, option); err == nil && s.connected && way >= leastMTU {
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
		size, _ = Getsockopt(s.conn, unix.SOL_SOCKET, unix.SO_SNDBUF)
	}
	return size
}

// Getsockopt returns an option of a socket.
func Getsockopt(conn syscall.Conn, level, option int) (v int, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), level, option) })
	return v, errors.Join(controlErr, err)
}

// Close closes the sockets.
func (o *DatagramOutlet) Close() error {
	var all error
	for _, s := range o.Sockets {
		all = errors.Join(all, s.conn.Close())
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

// patience is how long sockets that take nothing hold up the pipeline, all of
// them together.
const patience = 500 * time.Millisecond

// backAfter is how long nothing was heard of a peer's absence before it counts
// as back: a node without an answer on the link is told of every three seconds.
const backAfter = 5 * time.Second

// A DatagramSocket sends to one destination. It is bound to the node's address
// and one port for its whole life, since peers track sequences by both.
type DatagramSocket struct {
	conn      *net.UDPConn
	v4        *ipv4.PacketConn // one of the two
	v6        *ipv6.PacketConn
	to        *net.UDPAddr
	connected bool // then a peer's answer that nobody listens is for the sender to hear
	adapt     func(*Interface) error
	absent    time.Time // when such an answer last came, or there was none; zero: never

	messages []ipv4.Message // used again; ipv6.Message is the same type
	buffers  [][1][]byte
}

// NewDatagramSocket returns a socket that sends to an address over conn. adapt
// is called with the interface when that has another index, and may be nil.
func NewDatagramSocket(conn *net.UDPConn, to netip.AddrPort, adapt func(*Interface) error) *DatagramSocket {
	s := &DatagramSocket{conn: conn, to: net.UDPAddrFromAddrPort(to), adapt: adapt, connected: conn.RemoteAddr() != nil}
	if FamilyOf(to.Addr()) == 4 {
		s.v4 = ipv4.NewPacketConn(conn)
	} else {
		s.v6 = ipv6.NewPacketConn(conn)
	}
	return s
}

// Conn returns the socket.
func (s *DatagramSocket) Conn() *net.UDPConn { return s.conn }

// prepare makes messages of the packer's datagrams.
func (s *DatagramSocket) prepare(p *notrack.Packer) []ipv4.Message {
	for len(s.messages) < p.Len() {
		m := ipv4.Message{Addr: s.to}
		if s.connected {
			m.Addr = nil
		}
		s.messages = append(s.messages, m)
		s.buffers = append(s.buffers, [1][]byte{})
	}
	for i := range p.Len() {
		s.buffers[i][0] = p.Datagram(i)
		s.messages[i].Buffers = s.buffers[i][:]
	}
	return s.messages[:p.Len()]
}

// batch sends messages with one system call, sendmmsg, and returns how many went
// before the one that did not. It waits for room in the send buffer, but not for
// long: datagrams to a machine that is off stay there for three seconds, until
// the kernel gives up asking for its hardware address.
func (s *DatagramSocket) batch(m []ipv4.Message, until time.Time) (int, error) {
	soon := time.Now().Add(time.Millisecond)
	if !s.absent.IsZero() || until.Before(soon) {
		until = soon
	}
	_ = s.conn.SetWriteDeadline(until)
	if s.v4 != nil {
		return s.v4.WriteBatch(m, 0)
	}
	return s.v6.WriteBatch(m, 0)
}

// send sends all of the packer's datagrams.
func (s *DatagramSocket) send(p *notrack.Packer, until time.Time, t Tally) {
	for rest := s.prepare(p); len(rest) > 0; {
		n, err := s.batch(rest, until)
		if errors.Is(err, os.ErrDeadlineExceeded) && n <= 0 {
			s.stuck(len(rest), t)
			return
		}
		if n > 0 {
			t.Sent(n, size(rest[:n]))
			rest = rest[n:]
			until = time.Now().Add(patience) // it moves
		}
		if err == nil && n > 0 || len(rest) == 0 {
			continue
		}
		if s.connected && answered(err) {
			// It is about an earlier datagram; the error is taken back with
			// this call, so the next one goes out.
			s.absent = time.Now()
			t.Lost(nil)
			if n, err = s.batch(rest[:1], until); n > 0 {
				t.Sent(n, size(rest[:n]))
				rest = rest[n:]
				continue
			}
		}
		switch {
		case s.connected && answered(err): // again
			t.Lost(nil)
		case errors.Is(err, unix.EMSGSIZE):
			if err = s.fragmented(rest[0].Buffers[0]); err == nil {
				t.Fragmented()
				t.Sent(1, size(rest[:1]))
				break
			}
			fallthrough
		default:
			t.Lost(err)
		}
		rest = rest[1:]
	}
}

// stuck counts datagrams for which no room was made in the send buffer. To a
// single peer that is as good as an answer that it is not there.
func (s *DatagramSocket) stuck(datagrams int, t Tally) {
	var err error
	if s.connected {
		s.absent = time.Now()
	} else {
		err = fmt.Errorf("no room in the send buffer for %v: %w", patience, unix.ENOBUFS)
	}
	for range datagrams {
		t.Lost(err)
	}
}

// answered says whether an error is what a peer's machine, or the lack of it,
// answered to an earlier datagram.
func answered(err error) bool {
	return errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EHOSTUNREACH)
}

func size(messages []ipv4.Message) (bytes uint64) {
	for i := range messages {
		bytes += uint64(len(messages[i].Buffers[0]))
	}
	return bytes
}

// fragmented sends one datagram that is longer than the MTU.
func (s *DatagramSocket) fragmented(datagram []byte) error {
	if err := s.fragment(true); err != nil {
		return err
	}
	var err error
	if s.connected {
		_, err = s.conn.Write(datagram)
	} else {
		_, err = s.conn.WriteTo(datagram, s.to)
	}
	return errors.Join(err, s.fragment(false))
}

func (s *DatagramSocket) fragment(allow bool) (err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if allow {
		value = unix.IP_PMTUDISC_DONT // the same numbers for IPv6
	}
	if s.v6 != nil {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(controlErr, err)
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
