package testbed

import (
	"maps"
	"net/netip"
)

// Firewall is a namespace that forwards between InsideLink and OutsideLink.
type Firewall struct {
	*Namespace

	// Inside and Outside are its own addresses, beside which it may hold the
	// virtual ones. Sync is its address on the link to its peer, of a Pair only.
	Inside, Outside, Sync Dual
}

// FirewallConfig says how the firewalls of a topology behave. The zero value
// forwards without translation and with strict connection tracking.
type FirewallConfig struct {
	// SNAT translates what the inside network sends to OutsideVIP.
	SNAT bool
	// Loose lets the kernel pick up a TCP connection in its middle
	// (nf_conntrack_tcp_loose=1, the kernel's default). By default it may not,
	// so that a flow whose state is missing breaks.
	Loose bool
	// Rules are further nftables rules in the syntax of nft -f. Chains of the
	// tables "inet testbed", "ip nat" and "ip6 nat" can be added to.
	Rules string
	// Sysctls are set last, so they override everything; for instance
	// net.netfilter.nf_conntrack_events=1, which by default is left as it is.
	Sysctls map[string]string
}

// LocalAddrs lists all addresses that a firewall may hold, the virtual ones
// and loopback included: what an administrator would not replicate.
func (f *Firewall) LocalAddrs() []netip.Addr {
	addrs := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, own := range []Dual{f.Inside, f.Outside, f.Sync, InsideVIP, OutsideVIP} {
		if own.V4.IsValid() {
			addrs = append(addrs, own.Addrs()...)
		}
	}
	return addrs
}

// configure makes a namespace with its links in place a firewall.
func (f *Firewall) configure(config FirewallConfig) error {
	sysctls := map[string]string{
		"net.ipv4.ip_forward":                  "1",
		"net.ipv4.conf.all.rp_filter":          "0",
		"net.ipv4.conf.default.rp_filter":      "0",
		"net.ipv6.conf.all.forwarding":         "1",
		"net.netfilter.nf_conntrack_tcp_loose": "0",
	}
	if config.Loose {
		sysctls["net.netfilter.nf_conntrack_tcp_loose"] = "1"
	}
	if err := f.Sysctls(sysctls); err != nil {
		return err
	}
	if err := f.Rules(firewallRules(config.SNAT, config.Rules)); err != nil {
		return err
	}
	return f.Sysctls(maps.Clone(config.Sysctls))
}

// clientHost gives the client its addresses and its way out.
func clientHost(n *Namespace) error {
	prefixes := ClientAddr.Prefixes()
	for i := range SourceCount {
		prefixes = append(prefixes, dual(insideNet, hostSources+i).Prefixes()...)
	}
	if err := n.AddAddr(HostLink, prefixes...); err != nil {
		return err
	}
	if err := n.Sysctl("net.ipv4.ip_local_port_range", "1024 65535"); err != nil {
		return err
	}
	return n.defaultRoutes(InsideVIP, ClientAddr)
}

// serverHost gives the server its address and its way back, which only flows
// that are not translated need.
func serverHost(n *Namespace) error {
	if err := n.AddAddr(HostLink, ServerAddr.Prefixes()...); err != nil {
		return err
	}
	if err := n.Sysctl("net.core.somaxconn", "65535"); err != nil {
		return err
	}
	return n.defaultRoutes(OutsideVIP, ServerAddr)
}
