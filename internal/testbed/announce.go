package testbed

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// announce tells the network at an interface that the addresses are here, by a
// gratuitous ARP request and an unsolicited neighbour advertisement, and waits
// until the listener's neighbour table agrees.
func (f *Firewall) announce(link string, vip Dual, listener *Namespace) error {
	mac, err := f.HardwareAddr(link)
	if err != nil {
		return err
	}
	index, err := f.interfaceIndex(link)
	if err != nil {
		return err
	}
	return Await(shortWait, func() error {
		err := f.Do(func() error {
			if err := gratuitousARP(index, mac, vip.V4.Addr()); err != nil {
				return err
			}
			return neighbourAdvertisement(index, mac, vip.V6.Addr())
		})
		if err != nil {
			return fmt.Errorf("testbed: %s: announce %s: %w", f, vip.V4, err)
		}
		return listener.knows(mac, vip.Addrs()...)
	})
}

func (n *Namespace) interfaceIndex(name string) (int, error) {
	link, err := n.handle.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("testbed: %s: link %s: %w", n, name, err)
	}
	return link.Attrs().Index, nil
}

// knows reports an address that the neighbour table has elsewhere than at mac.
// An address that it does not have at all will be asked for, so that is fine.
func (n *Namespace) knows(mac net.HardwareAddr, addrs ...netip.Addr) error {
	link, err := n.interfaceIndex(HostLink)
	if err != nil {
		return err
	}
	neighbours, err := n.handle.NeighList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("testbed: %s: neighbours: %w", n, err)
	}
	for _, neighbour := range neighbours {
		for _, addr := range addrs {
			if neighbour.IP.Equal(addr.AsSlice()) && len(neighbour.HardwareAddr) > 0 &&
				!bytes.Equal(neighbour.HardwareAddr, mac) {
				return fmt.Errorf("%s still has %s at %s, not %s", n, addr, neighbour.HardwareAddr, mac)
			}
		}
	}
	return nil
}

// gratuitousARP broadcasts an ARP request for addr from addr (RFC 5227's
// announcement), which every neighbour that has an entry takes over.
func gratuitousARP(index int, mac net.HardwareAddr, addr netip.Addr) error {
	broadcast := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	frame := append([]byte(nil), broadcast...)
	frame = append(frame, mac...)
	for _, field := range []uint16{unix.ETH_P_ARP, 1 /* Ethernet */, unix.ETH_P_IP, 6<<8 | 4, 1 /* request */} {
		frame = binary.BigEndian.AppendUint16(frame, field)
	}
	frame = append(append(frame, mac...), addr.AsSlice()...)
	frame = append(append(frame, make([]byte, 6)...), addr.AsSlice()...)
	return sendFrame(index, frame)
}

func sendFrame(index int, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("packet socket: %w", err)
	}
	defer unix.Close(fd)
	return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: index, Halen: 6})
}

// neighbourAdvertisement sends an unsolicited advertisement with the override
// flag to all nodes (RFC 4861, 4.4). The kernel fills in the checksum.
func neighbourAdvertisement(index int, mac net.HardwareAddr, addr netip.Addr) error {
	const routerAndOverride = 0xa0
	conn, err := icmp.ListenPacket("ip6:ipv6-icmp", addr.String())
	if err != nil {
		return fmt.Errorf("icmp socket: %w", err)
	}
	defer conn.Close()
	body := append([]byte{routerAndOverride, 0, 0, 0}, addr.AsSlice()...)
	body = append(append(body, 2 /* target's link-layer address */, 1), mac...)
	message := icmp.Message{Type: ipv6.ICMPTypeNeighborAdvertisement, Body: &icmp.RawBody{Data: body}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return err
	}
	control := &ipv6.ControlMessage{HopLimit: 255, IfIndex: index}
	_, err = conn.IPv6PacketConn().WriteTo(packet, control, &net.UDPAddr{IP: net.IPv6linklocalallnodes})
	return err
}
