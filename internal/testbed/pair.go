package testbed

import (
	"errors"
	"fmt"
)

// Pair is a client and a server with two firewalls between them, of which one
// holds the virtual addresses InsideVIP and OutsideVIP:
//
//	client ──┬── inside fw1 outside ──┬── server
//	         │           sync         │
//	         │            │           │
//	         │           sync         │
//	         └── inside fw2 outside ──┘
//
// Client and firewalls share a switched inside network, firewalls and server an
// outside one; the switch is a namespace of its own. The sync link is a cable
// between the firewalls, and its traffic is not tracked.
type Pair struct {
	Client, Server, Switch *Namespace
	FW1, FW2               *Firewall

	active *Firewall
	made   namespaces
}

// NewPair builds a Pair whose virtual addresses are on FW1. The caller must
// Close it.
func NewPair(config FirewallConfig) (*Pair, error) {
	p := &Pair{}
	if err := p.build(config); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: pair: %w", err), p.Close())
	}
	return p, nil
}

// MustPair is NewPair for tests.
func MustPair(t TB, config FirewallConfig) *Pair {
	t.Helper()
	Require(t)
	p, err := NewPair(config)
	return owned(t, p, err)
}

// Close removes the namespaces.
func (p *Pair) Close() error { return p.made.close() }

// Active is the firewall that holds the virtual addresses.
func (p *Pair) Active() *Firewall { return p.active }

// Other is the peer of a firewall.
func (p *Pair) Other(fw *Firewall) *Firewall {
	if fw == p.FW1 {
		return p.FW2
	}
	return p.FW1
}

// MoveTo takes the virtual addresses off the other firewall, puts them on fw and
// announces them, as keepalived does. It returns when client and server, as far
// as they know the addresses at all, know them to be at fw.
func (p *Pair) MoveTo(fw *Firewall) error {
	if err := p.Leave(p.Other(fw)); err != nil {
		return err
	}
	if err := fw.AddAddr(InsideLink, InsideVIP.Prefixes()...); err != nil {
		return err
	}
	if err := fw.AddAddr(OutsideLink, OutsideVIP.Prefixes()...); err != nil {
		return err
	}
	p.active = fw
	if err := fw.announce(InsideLink, InsideVIP, p.Client); err != nil {
		return err
	}
	return fw.announce(OutsideLink, OutsideVIP, p.Server)
}

// Leave takes the virtual addresses off a firewall, so that nobody has them.
func (p *Pair) Leave(fw *Firewall) error {
	if p.active == fw {
		p.active = nil
	}
	if err := fw.DelAddr(InsideLink, InsideVIP.Prefixes()...); err != nil {
		return err
	}
	return fw.DelAddr(OutsideLink, OutsideVIP.Prefixes()...)
}

// LinksDown pulls both of a firewall's network cables at the switch: it keeps
// its addresses and sees the carrier go. The sync link stays.
func (p *Pair) LinksDown(fw *Firewall) error { return p.setLinks(fw, false) }

// LinksUp plugs the cables in again.
func (p *Pair) LinksUp(fw *Firewall) error { return p.setLinks(fw, true) }

func (p *Pair) setLinks(fw *Firewall, up bool) error {
	end := p.end(fw)
	if err := p.Switch.SetLink("in-"+end, up); err != nil {
		return err
	}
	return p.Switch.SetLink("out-"+end, up)
}

// SyncDown takes the sync link down at both ends, addresses kept.
func (p *Pair) SyncDown() error { return p.setSync(false) }

// SyncUp brings the sync link up again.
func (p *Pair) SyncUp() error { return p.setSync(true) }

func (p *Pair) setSync(up bool) error {
	if err := p.FW1.SetLink(SyncLink, up); err != nil {
		return err
	}
	return p.FW2.SetLink(SyncLink, up)
}

// SyncLoss makes a firewall lose so many of 100 packets that arrive on its sync
// link, at random; 0 ends that.
func (p *Pair) SyncLoss(fw *Firewall, percent int) error {
	const table = "netdev testbedloss"
	rules := "table " + table + "\ndelete table " + table + "\n"
	if percent > 0 {
		some := ""
		if percent < 100 { // nft refuses a comparison that always holds
			some = fmt.Sprintf("numgen random mod 100 < %d", percent)
		}
		rules += fmt.Sprintf(`table %s {
			chain ingress {
				type filter hook ingress device %s priority 0;
				%s counter drop
			}
		}`, table, SyncLink, some)
	}
	return fw.Rules(rules)
}

// end names a firewall's ports at the switch.
func (p *Pair) end(fw *Firewall) string {
	if fw == p.FW1 {
		return "fw1"
	}
	return "fw2"
}

func (p *Pair) build(config FirewallConfig) error {
	p.FW1 = &Firewall{Inside: dual(insideNet, hostFW1), Outside: dual(outsideNet, hostFW1), Sync: dual(syncNet, 1)}
	p.FW2 = &Firewall{Inside: dual(insideNet, hostFW2), Outside: dual(outsideNet, hostFW2), Sync: dual(syncNet, 2)}
	return firstError(
		func() error { return p.made.add("client", &p.Client) },
		func() error { return p.made.add("server", &p.Server) },
		func() error { return p.made.add("switch", &p.Switch) },
		func() error { return p.made.add("fw1", &p.FW1.Namespace) },
		func() error { return p.made.add("fw2", &p.FW2.Namespace) },
		p.wire,
		func() error { return p.FW1.setUp(config) },
		func() error { return p.FW2.setUp(config) },
		func() error { return clientHost(p.Client) },
		func() error { return serverHost(p.Server) },
		func() error { return p.MoveTo(p.FW1) },
	)
}

// wire makes the two switched networks and the sync cable.
func (p *Pair) wire() error {
	return firstError(
		func() error { return p.Switch.plainSwitch() },
		func() error { return p.Switch.bridge("in") },
		func() error { return p.Switch.bridge("out") },
		func() error { return p.Switch.plug("in", "in-client", p.Client, HostLink) },
		func() error { return p.Switch.plug("in", "in-fw1", p.FW1.Namespace, InsideLink) },
		func() error { return p.Switch.plug("in", "in-fw2", p.FW2.Namespace, InsideLink) },
		func() error { return p.Switch.plug("out", "out-server", p.Server, HostLink) },
		func() error { return p.Switch.plug("out", "out-fw1", p.FW1.Namespace, OutsideLink) },
		func() error { return p.Switch.plug("out", "out-fw2", p.FW2.Namespace, OutsideLink) },
		func() error { return Cable(p.FW1.Namespace, SyncLink, p.FW2.Namespace, SyncLink) },
	)
}

// setUp gives a firewall of a Pair its own addresses and makes it forward.
func (f *Firewall) setUp(config FirewallConfig) error {
	return firstError(
		func() error { return f.AddAddr(InsideLink, f.Inside.Prefixes()...) },
		func() error { return f.AddAddr(OutsideLink, f.Outside.Prefixes()...) },
		func() error { return f.AddAddr(SyncLink, f.Sync.Prefixes()...) },
		func() error { return f.configure(config) },
	)
}
