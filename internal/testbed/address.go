package testbed

import (
	"fmt"
	"net/netip"
)

// The interfaces of the topologies.
const (
	HostLink    = "eth0"    // of clients and servers
	InsideLink  = "inside"  // of firewalls, towards the client
	OutsideLink = "outside" // of firewalls, towards the server
	SyncLink    = "sync"    // of firewalls of a Pair, towards each other
)

// Host numbers within each network: the same last part in IPv4 and IPv6.
const (
	hostVIP     = 1 // the virtual gateway, or the firewall of a Single
	hostPeer    = 2 // client or server
	hostSources = 11
	hostFW1     = 251
	hostFW2     = 252
)

// SourceCount is the number of further addresses of the client, to have more
// than one address's ports for many connections.
const SourceCount = 16

// Dual is a pair of addresses of one interface, one a family.
type Dual struct{ V4, V6 netip.Prefix }

// Addrs lists the two addresses.
func (d Dual) Addrs() []netip.Addr { return []netip.Addr{d.V4.Addr(), d.V6.Addr()} }

// Prefixes lists the two addresses with the lengths of their networks.
func (d Dual) Prefixes() []netip.Prefix { return []netip.Prefix{d.V4, d.V6} }

// Of is the address of the family of another address.
func (d Dual) Of(other netip.Addr) netip.Addr {
	if other.Is6() {
		return d.V6.Addr()
	}
	return d.V4.Addr()
}

// network numbers: 10.71.N.0/24 and fd71:N::/64.
const (
	insideNet  = 1
	outsideNet = 2
	syncNet    = 3
)

func dual(network, host int) Dual {
	return Dual{
		V4: netip.MustParsePrefix(fmt.Sprintf("10.71.%d.%d/24", network, host)),
		V6: netip.MustParsePrefix(fmt.Sprintf("fd71:%d::%d/64", network, host)),
	}
}

// The addresses of the topologies. The host parts of IPv6 addresses are written
// in the digits of the IPv4 ones.
var (
	ClientAddr = dual(insideNet, hostPeer)  // the client's first address
	ServerAddr = dual(outsideNet, hostPeer) // the server's
	InsideVIP  = dual(insideNet, hostVIP)   // the client's gateway
	OutsideVIP = dual(outsideNet, hostVIP)  // the server's gateway, and the SNAT address
)

// ClientSources lists the client's further addresses of one family, SourceCount
// of them.
func ClientSources(v6 bool) []netip.Addr {
	sources := make([]netip.Addr, SourceCount)
	for i := range sources {
		source := dual(insideNet, hostSources+i)
		sources[i] = source.V4.Addr()
		if v6 {
			sources[i] = source.V6.Addr()
		}
	}
	return sources
}
