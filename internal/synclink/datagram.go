package synclink

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/notrack"
)

// patience is how long sockets that take nothing hold up the pipeline, all of
// them together.
const patience = 500 * time.Millisecond

// backAfter is how long nothing was heard of a peer's absence before it counts
// as back: a node without an answer on the link is told of every three seconds.
const backAfter = 5 * time.Second

// A DatagramSocket sends to one destination. It is bound to the node's address
// and one port for its whole life, since peers track sequences by both.
//
// It is not registered with the runtime's poller, which would be woken whenever
// the kernel has sent something and there is room again.
type DatagramSocket struct {
	fd        int
	to        netip.AddrPort
	connected bool // then a peer's answer that nobody listens is for the sender to hear
	adapt     func(fd int, i *Interface) error
	absent    time.Time // when such an answer last came, or there was none; zero: never

	name    unix.RawSockaddrInet6 // or Inet4: the destination, if not connected
	length  uint32                // of name
	headers []mmsghdr             // used again
	vectors []unix.Iovec
}

// NewDatagramSocket returns a socket that sends to an address, and takes conn's
// place. adapt is called with an interface that has another index, and may be nil.
func NewDatagramSocket(conn *net.UDPConn, to netip.AddrPort, adapt func(fd int, i *Interface) error) (*DatagramSocket, error) {
	defer conn.Close()
	s := &DatagramSocket{to: to, adapt: adapt, connected: conn.RemoteAddr() != nil}
	if !s.connected {
		s.setName()
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	controlErr := raw.Control(func(fd uintptr) { s.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(controlErr, err); err != nil {
		return nil, fmt.Errorf("duplicate socket: %w", err)
	}
	return s, nil
}

// setName makes the destination's address as the kernel takes it.
func (s *DatagramSocket) setName() {
	a := s.to.Addr().Unmap()
	if a.Is4() {
		name := (*unix.RawSockaddrInet4)(unsafe.Pointer(&s.name))
		*name = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4()}
		setNetworkPort(&name.Port, s.to.Port())
		s.length = unix.SizeofSockaddrInet4
		return
	}
	zone, _ := strconv.Atoi(a.Zone())
	s.name = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.As16(), Scope_id: uint32(zone)}
	setNetworkPort(&s.name.Port, s.to.Port())
	s.length = unix.SizeofSockaddrInet6
}

// FD is the socket, for tests.
func (s *DatagramSocket) FD() int { return s.fd }

// Close closes the socket.
func (s *DatagramSocket) Close() error { return unix.Close(s.fd) }

// prepare makes a vector of the packer's datagrams.
func (s *DatagramSocket) prepare(p *notrack.Packer) []mmsghdr {
	if p.Len() > len(s.headers) {
		s.headers, s.vectors = make([]mmsghdr, 2*p.Len()), make([]unix.Iovec, 2*p.Len())
		for i := range s.headers {
			h := &s.headers[i].header
			h.Iov = &s.vectors[i]
			h.SetIovlen(1)
			if !s.connected {
				h.Name, h.Namelen = (*byte)(unsafe.Pointer(&s.name)), s.length
			}
		}
	}
	for i := range p.Len() {
		d := p.Datagram(i)
		s.vectors[i].Base = &d[0]
		s.vectors[i].SetLen(len(d))
	}
	return s.headers[:p.Len()]
}

// batch sends datagrams with one system call and returns how many went before
// the one that did not. It waits for room in the send buffer, but not for
// long: datagrams to a machine that is off stay there for three seconds, until
// the kernel gives up asking for its hardware address.
func (s *DatagramSocket) batch(m []mmsghdr, until time.Time) (int, error) {
	soon := time.Now().Add(time.Millisecond)
	if !s.absent.IsZero() || until.Before(soon) {
		until = soon
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			left := time.Until(until)
			if left <= 0 {
				return 0, os.ErrDeadlineExceeded
			}
			timeout := unix.NsecToTimespec(left.Nanoseconds())
			if _, err := unix.Ppoll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, &timeout, nil); err != nil && err != unix.EINTR {
				return 0, fmt.Errorf("wait for room: %w", err)
			}
		default:
			return 0, errno
		}
	}
}

// send sends all of the packer's datagrams.
func (s *DatagramSocket) send(p *notrack.Packer, until time.Time, t Tally) {
	for rest := s.prepare(p); len(rest) > 0; {
		n, err := s.batch(rest, until)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			s.stuck(len(rest), t)
			return
		}
		if n > 0 {
			t.Sent(n, size(rest[:n]))
			rest = rest[n:]
			until = time.Now().Add(patience) // it moves
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
			if err = s.fragmented(rest[:1]); err == nil {
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

func size(datagrams []mmsghdr) (bytes uint64) {
	for i := range datagrams {
		bytes += datagrams[i].header.Iov.Len
	}
	return bytes
}

// fragmented sends one datagram that is longer than the MTU.
func (s *DatagramSocket) fragmented(datagram []mmsghdr) error {
	if err := s.fragment(true); err != nil {
		return err
	}
	_, err := s.batch(datagram, time.Now().Add(patience))
	return errors.Join(err, s.fragment(false))
}

func (s *DatagramSocket) fragment(allow bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if allow {
		value = unix.IP_PMTUDISC_DONT // the same numbers for IPv6
	}
	if FamilyOf(s.to.Addr()) == 6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	return unix.SetsockoptInt(s.fd, level, option, value)
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
