package testbed

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// up sets an interface of the namespace up.
func (n *Namespace) up(name string) error { return n.setLink(name, n.handle.LinkSetUp) }

// SetLink sets an interface of the namespace up or down.
func (n *Namespace) SetLink(name string, up bool) error {
	if up {
		return n.up(name)
	}
	return n.setLink(name, n.handle.LinkSetDown)
}

func (n *Namespace) setLink(name string, set func(netlink.Link) error) error {
	link, err := n.handle.LinkByName(name)
	if err == nil {
		err = set(link)
	}
	if err != nil {
		return fmt.Errorf("testbed: %s: link %s: %w", n, name, err)
	}
	return nil
}

// HardwareAddr is the address of an interface of the namespace.
func (n *Namespace) HardwareAddr(name string) (net.HardwareAddr, error) {
	link, err := n.handle.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("testbed: %s: link %s: %w", n, name, err)
	}
	return link.Attrs().HardwareAddr, nil
}

// AddAddr puts addresses on an interface. IPv6 ones are usable at once.
func (n *Namespace) AddAddr(link string, prefixes ...netip.Prefix) error {
	return n.eachAddr(link, prefixes, n.handle.AddrReplace)
}

// DelAddr takes addresses off an interface. One that is not there is no error.
func (n *Namespace) DelAddr(link string, prefixes ...netip.Prefix) error {
	return n.eachAddr(link, prefixes, func(l netlink.Link, a *netlink.Addr) error {
		if err := n.handle.AddrDel(l, a); err != unix.EADDRNOTAVAIL {
			return err
		}
		return nil
	})
}

func (n *Namespace) eachAddr(name string, prefixes []netip.Prefix, do func(netlink.Link, *netlink.Addr) error) error {
	link, err := n.handle.LinkByName(name)
	if err != nil {
		return fmt.Errorf("testbed: %s: link %s: %w", n, name, err)
	}
	for _, prefix := range prefixes {
		addr := &netlink.Addr{IPNet: ipNet(prefix)}
		if prefix.Addr().Is6() {
			addr.Flags = unix.IFA_F_NODAD
		}
		if err := do(link, addr); err != nil {
			return fmt.Errorf("testbed: %s: address %s on %s: %w", n, prefix, name, err)
		}
	}
	return nil
}

// AddRoute routes a prefix by way of a gateway that is on a connected network.
// The namespace's own sockets send from source, unless they choose another or
// source is the zero Addr.
func (n *Namespace) AddRoute(to netip.Prefix, via, source netip.Addr) error {
	err := n.handle.RouteReplace(&netlink.Route{Dst: ipNet(to), Gw: via.AsSlice(), Src: source.AsSlice()})
	if err != nil {
		return fmt.Errorf("testbed: %s: route %s via %s: %w", n, to, via, err)
	}
	return nil
}

// defaultRoutes routes everything, in both families, by way of gateway.
func (n *Namespace) defaultRoutes(gateway, source Dual) error {
	everything := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if err := n.AddRoute(everything, gateway.V4.Addr(), source.V4.Addr()); err != nil {
		return err
	}
	everything = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	return n.AddRoute(everything, gateway.V6.Addr(), source.V6.Addr())
}

// Cable joins two namespaces by a pair of interfaces, both up when it returns.
func Cable(a *Namespace, aName string, b *Namespace, bName string) error {
	pair := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName, MTU: 1500, TxQLen: 1000},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.file.Fd()),
	}
	if err := a.handle.LinkAdd(pair); err != nil {
		return fmt.Errorf("testbed: cable %s/%s to %s/%s: %w", a, aName, b, bName, err)
	}
	if err := a.up(aName); err != nil {
		return err
	}
	return b.up(bName)
}

// bridge makes a bridge that learns addresses from frames, as a switch does. It
// runs no spanning tree, so its ports forward from the start.
func (n *Namespace) bridge(name string) error {
	snooping := false
	br := &netlink.Bridge{
		LinkAttrs:         netlink.LinkAttrs{Name: name},
		MulticastSnooping: &snooping,
	}
	if err := n.handle.LinkAdd(br); err != nil {
		return fmt.Errorf("testbed: %s: bridge %s: %w", n, name, err)
	}
	return n.up(name)
}

// plainSwitch keeps bridged packets away from the switch's netfilter hooks,
// where the kernel has that feature at all.
func (n *Namespace) plainSwitch() error {
	for _, name := range []string{"arptables", "iptables", "ip6tables"} {
		sysctl := "net.bridge.bridge-nf-call-" + name
		if _, err := n.ReadSysctl(sysctl); err != nil {
			continue
		}
		if err := n.Sysctl(sysctl, "0"); err != nil {
			return err
		}
	}
	return nil
}

// plug joins interface port of host to a bridge of the namespace, whose own end
// of the cable is called end.
func (n *Namespace) plug(bridge, end string, host *Namespace, port string) error {
	if err := Cable(n, end, host, port); err != nil {
		return err
	}
	master, err := n.handle.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("testbed: %s: bridge %s: %w", n, bridge, err)
	}
	return n.setLink(end, func(l netlink.Link) error { return n.handle.LinkSetMaster(l, master) })
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{
		IP:   prefix.Addr().AsSlice(),
		Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
	}
}
