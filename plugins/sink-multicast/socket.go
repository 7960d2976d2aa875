package sinkmulticast

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/synclink"
)

// dial opens a socket that sends to the group, and returns the node's address,
// to which it is bound.
func dial(c *Config, p *Place, i *synclink.Interface) ([]*synclink.DatagramSocket, netip.Addr, error) {
	family := synclink.FamilyOf(p.Group)
	address, err := i.Address(p.Address, family)
	if err != nil {
		return nil, address, err
	}
	from := address
	if from.Is6() && from.IsLinkLocalUnicast() {
		from = from.WithZone(strconv.Itoa(i.Index)) // of a name, package net remembers the index for a minute
	}
	conn, err := listen(from, family, c)
	if err != nil {
		return nil, address, err
	}
	err = multicast(conn, family, c.TTL)
	if err != nil {
		conn.Close()
		return nil, address, err
	}
	use := sendOn(family)
	s, err := synclink.NewDatagramSocket(conn, netip.AddrPortFrom(p.Group.Unmap(), p.Port), use)
	if err != nil {
		return nil, address, err
	}
	return []*synclink.DatagramSocket{s}, address, use(s.FD(), i)
}

// listen binds a socket to the node's address and a port of the kernel's choice.
func listen(from netip.Addr, f synclink.Family, c *Config) (*net.UDPConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) { err = synclink.SendOptions(int(fd), f, &c.Sending, c.Checksum) })
		return errors.Join(controlErr, err)
	}}
	conn, err := config.ListenPacket(context.Background(), f.Network("udp"), netip.AddrPortFrom(from, 0).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

// multicast sets a socket up for sending to a group.
func multicast(conn *net.UDPConn, f synclink.Family, ttl uint8) (err error) {
	if f == 4 {
		p := ipv4.NewPacketConn(conn)
		if err = p.SetMulticastLoopback(false); err == nil && ttl > 0 {
			err = p.SetMulticastTTL(int(ttl))
		}
		return err
	}
	p := ipv6.NewPacketConn(conn)
	if err = p.SetMulticastLoopback(false); err == nil && ttl > 0 {
		err = p.SetMulticastHopLimit(int(ttl))
	}
	return err
}

// sendOn returns what makes a socket send on an interface, whose index may have
// changed.
func sendOn(f synclink.Family) func(fd int, i *synclink.Interface) error {
	if f == 4 {
		return func(fd int, i *synclink.Interface) error {
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(i.Index)})
		}
	}
	return func(fd int, i *synclink.Interface) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, i.Index)
	}
}
