package synclink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An Interface is a network interface as it was last seen.
type Interface struct {
	Name      string
	Index     int // 0: there is none of this name
	MTU       int
	Running   bool         // up, with a carrier
	Addresses []netip.Addr // that can be used: global ones first
}

// Address returns the node's address there: want if that is valid, else the
// interface's first of the family, rather not a link-local one.
func (i *Interface) Address(want netip.Addr, f Family) (netip.Addr, error) {
	if want.IsValid() {
		return want.Unmap(), nil
	}
	for _, a := range i.Addresses {
		if FamilyOf(a) == f {
			return a, nil
		}
	}
	if i.Index == 0 {
		return netip.Addr{}, i.absent()
	}
	return netip.Addr{}, noAddress(fmt.Sprintf("interface %s has no IPv%d address: add one, or set address", i.Name, f))
}

func (i *Interface) absent() error { return fmt.Errorf("there is no interface %s", i.Name) }

// noAddress is the error of an interface that lacks an address.
type noAddress string

func (e noAddress) Error() string { return string(e) }

// comes says whether a link that can't be opened may be later, by itself: its
// interface is not there, or down, or lacks an address.
func (i *Interface) comes(err error) bool {
	var address noAddress
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EADDRINUSE):
		return false
	case i.Index == 0 || !i.Running || errors.As(err, &address):
		return true
	}
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENETUNREACH)
}

// Has says whether an address is the interface's.
func (i *Interface) Has(a netip.Addr) bool { return slices.Contains(i.Addresses, a.WithZone("")) }

// A monitor looks at interfaces and hears of their changes. Its sockets stay in
// the network namespace where it was opened.
type monitor struct {
	handle *netlink.Handle
	fd     int // readable when something may have changed
	buffer []byte
}

func openMonitor() (m *monitor, err error) {
	m = &monitor{fd: -1, buffer: make([]byte, 32<<10)}
	if m.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("open route socket: %w", err)
	}
	m.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err == nil {
		err = unix.Bind(m.fd, &unix.SockaddrNetlink{
			Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
		})
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("watch interfaces: %w", err)
	}
	return m, nil
}

func (m *monitor) close() {
	m.handle.Close()
	if m.fd >= 0 {
		unix.Close(m.fd)
	}
}

// look looks at an interface. One that is not there is no error.
func (m *monitor) look(i *Interface) error {
	device, err := m.handle.LinkByName(i.Name)
	var gone netlink.LinkNotFoundError
	if errors.As(err, &gone) {
		*i = Interface{Name: i.Name}
		return nil
	}
	if err != nil {
		return fmt.Errorf("interface %s: %w", i.Name, err)
	}
	a := device.Attrs()
	list, err := m.addresses(device)
	if err != nil {
		return fmt.Errorf("addresses of %s: %w", i.Name, err)
	}
	*i = Interface{Name: i.Name, Index: a.Index, MTU: a.MTU, Running: a.RawFlags&unix.IFF_RUNNING != 0}
	for _, one := range list {
		// A tentative address can't be bound to; there is news when it can.
		if one.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			continue
		}
		if addr, ok := netip.AddrFromSlice(one.IP); ok {
			i.Addresses = append(i.Addresses, addr.Unmap())
		}
	}
	slices.SortStableFunc(i.Addresses, func(x, y netip.Addr) int {
		return local(x) - local(y)
	})
	return nil
}

// addresses lists an interface's addresses. The kernel lists those of all
// interfaces and says so when some changed meanwhile, as on a busy router they
// do: then it is asked again, and in the end what it told counts, since the
// change itself is news.
func (m *monitor) addresses(device netlink.Link) (list []netlink.Addr, err error) {
	const tries = 4
	for range tries {
		list, err = m.handle.AddrList(device, netlink.FAMILY_ALL)
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return list, err
		}
	}
	return list, nil
}

func local(a netip.Addr) int {
	if a.IsLinkLocalUnicast() {
		return 1
	}
	return 0
}

// news reads what the kernel has told, without waiting, and says whether an
// interface among these may have changed.
func (m *monitor) news(watched func(index int) bool) (changed bool) {
	for {
		n, _, err := unix.Recvfrom(m.fd, m.buffer, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ENOBUFS: // there was more than fits: whatever it was
			changed = true
			continue
		case err != nil || n <= 0:
			return changed
		}
		messages, err := syscall.ParseNetlinkMessage(m.buffer[:n])
		if err != nil {
			changed = true
		}
		for _, one := range messages {
			// struct ifinfomsg and struct ifaddrmsg both have the index at 4.
			if len(one.Data) >= 8 && watched(int(int32(binary.NativeEndian.Uint32(one.Data[4:])))) {
				changed = true
			}
		}
	}
}
