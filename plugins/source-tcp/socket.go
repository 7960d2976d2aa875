package sourcetcp

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
)

const (
	maxConnections = 64 // of all peers
	maxOfPeer      = 2  // of one: the one before may have ended without a word
	maxRead        = 256 << 10

	keepIdle, keepInterval, keepCount = 5, 2, 3 // a dead peer is noticed in 11 s
)

// An inlet listens on a link and reads from the peers that have connected.
type inlet struct {
	place     *synclink.OwnPlace
	receiving *synclink.Receiving

	listener int       // -1: none
	paused   time.Time // until when nobody is taken, since the process has no descriptor left
	address  netip.Addr
	index    int // of the interface that it listens on
	buffer   int
	all      []*connection
}

// A connection is that of a peer.
type connection struct {
	fd     int
	from   netip.AddrPort
	since  time.Time
	stream notrack.Stream
}

func newInlet(p *synclink.OwnPlace, r *synclink.Receiving) *inlet {
	return &inlet{place: p, receiving: r, listener: -1}
}

// Open listens, anew if the interface has another address. Connections stay:
// what is still in them counts, and the kernel ends those that are dead.
func (n *inlet) Open(i *synclink.Interface) error {
	address, err := n.place.On(i)
	if err != nil {
		return err
	}
	if n.listener >= 0 && address == n.address && i.Index == n.index {
		return nil
	}
	n.stopListening() // two can't listen on one port
	n.listener, err = listen(netip.AddrPortFrom(address, n.place.Port), i, n.receiving)
	if err != nil {
		return err
	}
	n.address, n.index = address, i.Index
	n.buffer, _ = unix.GetsockoptInt(n.listener, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return nil
}

func listen(at netip.AddrPort, i *synclink.Interface, r *synclink.Receiving) (fd int, err error) {
	family := unix.AF_INET
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	synclink.SetBuffer(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, int(r.ReceiveBuffer))
	err = synclink.SetOptions(fd, [][3]int{ // connections inherit them
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, keepIdle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, keepInterval},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, keepCount},
	})
	if err == nil {
		err = unix.BindToDevice(fd, i.Name)
	}
	if err == nil {
		err = unix.Bind(fd, synclink.Sockaddr(at, i.Zone(at.Addr())))
	}
	if err == nil {
		err = unix.Listen(fd, maxConnections)
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("listen on %v: %w", at, err)
	}
	return fd, nil
}

func (n *inlet) stopListening() {
	if n.listener >= 0 {
		unix.Close(n.listener)
		n.listener, n.buffer = -1, 0
	}
}

// Poll appends the listening socket and the connections.
func (n *inlet) Poll(fds []unix.PollFd) []unix.PollFd {
	if n.listener >= 0 && !time.Now().Before(n.paused) {
		fds = append(fds, unix.PollFd{Fd: int32(n.listener), Events: unix.POLLIN})
	}
	for _, c := range n.all {
		fds = append(fds, unix.PollFd{Fd: int32(c.fd), Events: unix.POLLIN})
	}
	return fds
}

// Receive reads from each connection once, in the order in which they were made.
func (n *inlet) Receive(take func(d *synclink.Datagram) error) (count int, more bool, err error) {
	broken, err := n.accept(take)
	if err != nil {
		return 0, false, err
	}
	kept := n.all[:0]
	for i, c := range n.all {
		all, full, end, err := c.read(take)
		count += all
		if err != nil && !end { // the stage below is gone
			n.all = append(kept, n.all[i:]...)
			return count, false, err
		}
		if end {
			broken = errors.Join(broken, err)
			unix.Close(c.fd)
			continue
		}
		kept = append(kept, c)
		more = more || full
	}
	clear(n.all[len(kept):])
	n.all = kept
	return count, more, broken
}

// read reads what there is, as far as there is room, and hands what is complete
// to take. It says whether there may be more, and whether the connection is at
// its end.
func (c *connection) read(take func(d *synclink.Datagram) error) (count int, full, end bool, err error) {
	space := c.stream.Space()
	space = space[:min(len(space), maxRead)]
	size, err := unix.Read(c.fd, space)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return 0, false, false, nil
	case err != nil:
		return 0, false, true, fmt.Errorf("connection of %v: %w", c.from, err)
	case size == 0:
		return 0, false, true, nil
	}
	c.stream.Filled(size)
	for {
		p, err := c.stream.Next()
		if err != nil {
			return count, false, true, fmt.Errorf("connection of %v: %w", c.from, err)
		}
		if p == nil {
			return count, size == len(space), false, nil
		}
		count++
		if err := take(&synclink.Datagram{Payload: p, From: c.from, Since: c.since}); err != nil {
			return count, false, false, err
		}
	}
}

// pauseFor is how long nobody is taken when the process, or the machine, has no
// descriptor or memory for it: who waits would be heard of at once, for ever.
const pauseFor = time.Second

// accept takes the connections that wait. What keeps it from that is no error of
// those that there are; err is take's.
func (n *inlet) accept(take func(d *synclink.Datagram) error) (broken, err error) {
	for n.listener >= 0 && !time.Now().Before(n.paused) {
		fd, sockaddr, err := unix.Accept4(n.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
		case unix.EAGAIN:
			return nil, nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		default:
			n.paused = time.Now().Add(pauseFor)
			return fmt.Errorf("accept: %w", err), nil
		}
		c := &connection{fd: fd, from: addressOf(sockaddr), since: time.Now()}
		if !n.receiving.Accepts(c.from.Addr()) {
			unix.Close(fd)
			if err := take(&synclink.Datagram{From: c.from}); err != nil { // counts it
				return nil, err
			}
			continue
		}
		n.room(c.from.Addr())
		n.all = append(n.all, c)
	}
	return nil, nil
}

func addressOf(s unix.Sockaddr) netip.AddrPort {
	switch s := s.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(s.Addr), uint16(s.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), uint16(s.Port))
	}
	return netip.AddrPort{}
}

// room ends the oldest connection of a peer that has too many, or of all.
func (n *inlet) room(peer netip.Addr) {
	var of []int
	for i, c := range n.all {
		if c.from.Addr() == peer {
			of = append(of, i)
		}
	}
	oldest := -1
	switch {
	case len(of) >= maxOfPeer:
		oldest = of[0]
	case len(n.all) >= maxConnections:
		oldest = 0
	default:
		return
	}
	unix.Close(n.all[oldest].fd)
	n.all = append(n.all[:oldest], n.all[oldest+1:]...)
}

// Buffer is that of each connection.
func (n *inlet) Buffer() int { return n.buffer }

// Close ends everything.
func (n *inlet) Close() error {
	n.stopListening()
	for _, c := range n.all {
		unix.Close(c.fd)
	}
	n.all = nil
	return nil
}
