package sourcemulticast

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// A socket is bound to the group's address, so that nothing that is sent to
// another address of this node arrives, and joined on one interface.
type socket struct {
	fd            int
	file          *os.File       // of fd
	conn          net.PacketConn // the same socket, for membership
	group         netip.AddrPort
	receiveBuffer int

	handle  *netlink.Handle // stays in the namespace where it was opened
	name    string
	index   int // of the interface where the group is joined; 0: nowhere
	running bool
	own     []netip.Addr // addresses of the interface
}

func openSocket(c *Config) (s *socket, err error) {
	s = &socket{group: netip.AddrPortFrom(c.Group.Unmap(), c.Port), name: c.Interface, fd: -1}
	defer func() {
		if err != nil {
			s.close()
			s = nil
		}
	}()
	if s.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return s, fmt.Errorf("open route socket: %w", err)
	}
	if err = s.bind(c); err != nil {
		return s, err
	}
	if err = s.look(); err != nil {
		return s, err
	}
	if s.index == 0 {
		return s, fmt.Errorf("there is no interface %s", s.name)
	}
	return s, nil
}

func (s *socket) bind(c *Config) (err error) {
	family := unix.AF_INET
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(c.Port), Addr: s.as4()}
	if s.group.Addr().Is6() {
		family = unix.AF_INET6
		to = &unix.SockaddrInet6{Port: int(c.Port), Addr: s.group.Addr().As16()}
	}
	s.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	s.file = os.NewFile(uintptr(s.fd), "multicast")
	if err := setOptions(s.fd, family, c); err != nil {
		return err
	}
	if err := unix.Bind(s.fd, to); err != nil {
		return fmt.Errorf("bind %v: %w", s.group, err)
	}
	if s.conn, err = net.FilePacketConn(s.file); err != nil {
		return fmt.Errorf("bind %v: %w", s.group, err)
	}
	s.receiveBuffer, err = unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return err
}

func (s *socket) as4() (a [4]byte) {
	if s.group.Addr().Is4() {
		a = s.group.Addr().As4()
	}
	return a
}

func setOptions(fd, family int, c *Config) error {
	if c.ReceiveBuffer > 0 {
		// The kernel doubles what it is given, for its own bookkeeping; what
		// getsockopt shows is to be what was configured.
		half := int(c.ReceiveBuffer / 2)
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, half) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, half) // capped; Open compares
		}
	}
	options := [][3]int{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0}, // what others on this node joined is not ours
	}
	if family == unix.AF_INET6 {
		options = append(options[:2],
			[3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			[3]int{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			[3]int{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0})
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o[0], o[1], o[2]); err != nil {
			return fmt.Errorf("set option %d of level %d: %w", o[1], o[0], err)
		}
	}
	return nil
}

func (s *socket) close() {
	if s.conn != nil {
		s.conn.Close()
	}
	if s.file != nil {
		s.file.Close()
	}
	if s.handle != nil {
		s.handle.Close()
	}
}

// look looks at the interface. One that was made anew has another index: the
// kernel dropped the membership with the old one, so the group is joined again.
func (s *socket) look() error {
	device, err := s.handle.LinkByName(s.name)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		s.index, s.running, s.own = 0, false, nil
		return nil
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", s.name, err)
	}
	a := device.Attrs()
	s.running = a.RawFlags&unix.IFF_RUNNING != 0
	list, err := s.handle.AddrList(device, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", s.name, err)
	}
	s.own = s.own[:0]
	for _, one := range list {
		if addr, ok := netip.AddrFromSlice(one.IP); ok {
			s.own = append(s.own, addr.Unmap())
		}
	}
	if a.Index == s.index {
		return nil
	}
	if err := s.join(a.Index); err != nil {
		return fmt.Errorf("join %v on %s: %w", s.group.Addr(), s.name, err)
	}
	s.index = a.Index
	return nil
}

func (s *socket) join(index int) error {
	device, group := &net.Interface{Index: index}, &net.UDPAddr{IP: s.group.Addr().AsSlice()}
	if s.group.Addr().Is4() {
		return ipv4.NewPacketConn(s.conn).JoinGroup(device, group)
	}
	return ipv6.NewPacketConn(s.conn).JoinGroup(device, group)
}

// isOwn says whether an address is this node's.
func (s *socket) isOwn(a netip.Addr) bool { return slices.Contains(s.own, a) }
