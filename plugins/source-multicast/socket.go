package sourcemulticast

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/synclink"
)

// listen opens a socket that is bound to the group's address, so that nothing
// that is sent to another address of this node arrives, and joined on one
// interface.
func listen(group netip.AddrPort, r *synclink.Receiving, i *synclink.Interface) (fd int, err error) {
	zone := 0
	if group.Addr().IsLinkLocalMulticast() { // such an IPv6 address is one of an interface
		zone = i.Index
	}
	fd, err = synclink.BindDatagrams(group, zone, r, nil)
	if err != nil {
		return -1, err
	}
	if err := join(fd, group.Addr(), i); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// join joins the group on an interface. When one was made anew, with another
// index, the kernel has dropped the membership with the old one.
func join(fd int, group netip.Addr, i *synclink.Interface) (err error) {
	if group.Is4() {
		err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP,
			&unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(i.Index)})
	} else {
		err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP,
			&unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(i.Index)})
	}
	if err != nil {
		return fmt.Errorf("join %v on %s: %w", group, i.Name, err)
	}
	return nil
}
