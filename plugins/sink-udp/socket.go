package sinkudp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/synclink"
)

// dial opens a socket for each peer, bound to the node's address, which it
// returns, and to the interface: when that goes away, nothing takes a way
// around. They are connected, so that the kernel tells when nobody listens.
func dial(c *Config, p *synclink.PeersPlace, i *synclink.Interface) (all []*synclink.DatagramSocket, address netip.Addr, err error) {
	family := p.Family()
	if address, err = i.Address(p.Address, family); err != nil {
		return nil, address, err
	}
	for _, peer := range p.Destination {
		to := netip.AddrPortFrom(zoned(peer.Unmap(), i), p.Port)
		conn, err := connect(netip.AddrPortFrom(zoned(address, i), 0), to, family, c, i.Name)
		if err != nil {
			return all, address, err
		}
		s, err := synclink.NewDatagramSocket(conn, to, nil)
		if err != nil {
			return all, address, err
		}
		all = append(all, s)
	}
	return all, address, nil
}

func zoned(a netip.Addr, i *synclink.Interface) netip.Addr {
	if zone := i.Zone(a); zone != 0 {
		return a.WithZone(strconv.Itoa(zone))
	}
	return a
}

func connect(from, to netip.AddrPort, f synclink.Family, c *Config, device string) (*net.UDPConn, error) {
	dialer := net.Dialer{
		LocalAddr: net.UDPAddrFromAddrPort(from),
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			controlErr := raw.Control(func(fd uintptr) {
				if err = synclink.SendOptions(int(fd), f, &c.Sending, c.Checksum); err == nil {
					err = unix.BindToDevice(int(fd), device)
				}
			})
			return errors.Join(controlErr, err)
		},
	}
	conn, err := dialer.DialContext(context.Background(), f.Network("udp"), to.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}
