package testbed

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
)

// Group is a client and a server with several firewalls side by side, and as
// many gateways, which the firewalls hold as virtual addresses. What the client
// sends to Target(i) passes gateway i, which translates the destination to
// ServerAddr and the source to its own outside address. At first firewall i
// holds gateway i. All firewalls share a switched sync network.
type Group struct {
	Client, Server, Switch *Namespace
	Firewalls              []*Firewall

	made namespaces
}

// Host numbers of a Group; gateway i is the first plus i.
const (
	hostTargets  = 101
	hostGateways = 201
)

// NewGroup builds a Group of so many firewalls, 4 at most. config.SNAT is of no
// effect. The caller must Close it.
func NewGroup(firewalls int, config FirewallConfig) (*Group, error) {
	g := &Group{}
	if err := g.build(firewalls, config); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: group: %w", err), g.Close())
	}
	return g, nil
}

// MustGroup is NewGroup for tests.
func MustGroup(t TB, firewalls int, config FirewallConfig) *Group {
	t.Helper()
	Require(t)
	g, err := NewGroup(firewalls, config)
	return owned(t, g, err)
}

// Close removes the namespaces.
func (g *Group) Close() error { return g.made.close() }

// Target is what the client calls the server behind gateway i.
func (g *Group) Target(i int) Dual { return dual(outsideNet, hostTargets+i) }

// gateway are the two sides of gateway i.
func (g *Group) gateway(i int) (inside, outside Dual) {
	return dual(insideNet, hostGateways+i), dual(outsideNet, hostGateways+i)
}

// MoveTo takes gateway i off all other firewalls, puts it on fw and announces
// it: see Pair.MoveTo.
func (g *Group) MoveTo(i int, fw *Firewall) error {
	inside, outside := g.gateway(i)
	for _, other := range g.Firewalls {
		if other == fw {
			continue
		}
		if err := other.DelAddr(InsideLink, inside.Prefixes()...); err != nil {
			return err
		}
		if err := other.DelAddr(OutsideLink, outside.Prefixes()...); err != nil {
			return err
		}
	}
	return firstError(
		func() error { return fw.AddAddr(InsideLink, inside.Prefixes()...) },
		func() error { return fw.AddAddr(OutsideLink, outside.Prefixes()...) },
		func() error { return fw.announce(InsideLink, inside, g.Client) },
		func() error { return fw.announce(OutsideLink, outside, g.Server) },
	)
}

func (g *Group) build(firewalls int, config FirewallConfig) error {
	config = FirewallConfig{Loose: config.Loose, Rules: g.rules(firewalls) + config.Rules, Sysctls: maps.Clone(config.Sysctls)}
	err := firstError(
		func() error { return g.made.add("client", &g.Client) },
		func() error { return g.made.add("server", &g.Server) },
		func() error { return g.made.add("switch", &g.Switch) },
		func() error { return g.Switch.plainSwitch() },
		func() error { return g.Switch.bridge("in") },
		func() error { return g.Switch.bridge("out") },
		func() error { return g.Switch.bridge("sync") },
		func() error { return g.Switch.plug("in", "in-client", g.Client, HostLink) },
		func() error { return g.Switch.plug("out", "out-server", g.Server, HostLink) },
		func() error { return clientHost(g.Client) },
		func() error { return serverHost(g.Server) },
	)
	for i := 0; i < firewalls && err == nil; i++ {
		err = g.add(i, config)
	}
	for i := 0; i < firewalls && err == nil; i++ {
		err = g.route(i)
	}
	return err
}

// rules translate what passes the gateways.
func (g *Group) rules(gateways int) (rules string) {
	for i := range gateways {
		_, outside := g.gateway(i)
		target := g.Target(i)
		for _, family := range []struct {
			name                 string
			target, server, from netip.Prefix
		}{{"ip", target.V4, ServerAddr.V4, outside.V4}, {"ip6", target.V6, ServerAddr.V6, outside.V6}} {
			rules += fmt.Sprintf("add rule %[1]s nat prerouting iifname %[2]s %[1]s daddr %[3]s dnat to %[4]s\n"+
				"add rule %[1]s nat postrouting oifname %[5]s ct original %[1]s daddr %[3]s snat to %[6]s\n",
				family.name, InsideLink, family.target.Addr(), family.server.Addr(), OutsideLink, family.from.Addr())
		}
	}
	return rules
}

// add makes firewall i.
func (g *Group) add(i int, config FirewallConfig) error {
	fw := &Firewall{Inside: dual(insideNet, hostFW1+i), Outside: dual(outsideNet, hostFW1+i), Sync: dual(syncNet, 1+i)}
	name := fmt.Sprintf("fw%d", i+1)
	g.Firewalls = append(g.Firewalls, fw)
	return firstError(
		func() error { return g.made.add(name, &fw.Namespace) },
		func() error { return g.Switch.plug("in", "in-"+name, fw.Namespace, InsideLink) },
		func() error { return g.Switch.plug("out", "out-"+name, fw.Namespace, OutsideLink) },
		func() error { return g.Switch.plug("sync", "sync-"+name, fw.Namespace, SyncLink) },
		func() error { return fw.setUp(config) },
	)
}

// route leads the client to its target i by gateway i, and puts that on
// firewall i.
func (g *Group) route(i int) error {
	inside, _ := g.gateway(i)
	target := g.Target(i)
	return firstError(
		func() error {
			return g.Client.AddRoute(netip.PrefixFrom(target.V4.Addr(), 32), inside.V4.Addr(), ClientAddr.V4.Addr())
		},
		func() error {
			return g.Client.AddRoute(netip.PrefixFrom(target.V6.Addr(), 128), inside.V6.Addr(), ClientAddr.V6.Addr())
		},
		func() error { return g.MoveTo(i, g.Firewalls[i]) },
	)
}
