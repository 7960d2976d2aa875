package synclink

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// ToPeers is what a sink that sends to single peers is told of its links.
type ToPeers struct {
	PeersPlace
	Links []PeersLink `hcl:"link,block" doc:"One of several links, instead of destination, port, interface and address above. One is used at a time; the next takes over when that goes down."`
}

// A PeersPlace is where single peers are.
type PeersPlace struct {
	Destination []netip.Addr `hcl:"destination,optional" doc:"Addresses of the peers on the link. Required."`
	Port        uint16       `hcl:"port,optional" doc:"Port that they receive on. Default: 3780."`
	Interface   string       `hcl:"interface,optional" doc:"Network interface that leads to them, best a link of its own between the nodes. Required."`
	Address     netip.Addr   `hcl:"address,optional" doc:"Address of this node on the link: peers know it by this one. Default: the interface's first of the peers' family."`
}

// A PeersLink is one of several.
type PeersLink struct {
	PeersPlace
	Default bool `hcl:"default,optional" doc:"Use this link whenever it works. Without any default it is the first."`
}

// DefaultToPeers are the defaults.
func DefaultToPeers() ToPeers { return ToPeers{PeersPlace: PeersPlace{Port: notrack.DefaultPort}} }

// Places returns the places.
func (c *ToPeers) Places() Places[PeersPlace] {
	p := &c.PeersPlace
	all := Places[PeersPlace]{
		Only:  p,
		Given: len(p.Destination) > 0 || p.Port != notrack.DefaultPort || p.Interface != "" || p.Address.IsValid(),
	}
	for i := range c.Links {
		all.Add(&c.Links[i].PeersPlace, c.Links[i].Default)
	}
	return all
}

// Check reports what the types can't.
func (c *ToPeers) Check(d *plugin.Diagnostics) {
	c.Places().Check(d, func(p *PeersPlace, path []any) {
		CheckZone(d, in(path, "address"), &p.Address, p.Interface)
		p.checkDestinations(d, path)
		CheckInterface(d, path, p.Interface)
		CheckOwnAddress(d, path, p.Address)
		if len(p.Destination) > 0 {
			CheckFamily(d, path, "address", p.Address, p.Destination[0])
		}
		p.Port = CheckPort(d, path, p.Port)
	}, func(p PeersPlace) string { return fmt.Sprintf("port %d on %s", p.Port, p.Interface) })
}

func (p *PeersPlace) checkDestinations(d *plugin.Diagnostics, path []any) {
	if len(p.Destination) == 0 {
		d.Add(in(path, "destination"), "Missing attribute", "Write the peers' addresses, as in `destination = [\"192.168.100.2\"]`.")
	}
	if len(p.Destination) > maxNodes {
		d.Add(in(path, "destination"), "Too many peers", "There can be %d.", maxNodes)
	}
	for i, a := range p.Destination {
		at := append(in(path, "destination"), i)
		CheckZone(d, at, &p.Destination[i], p.Interface)
		a = p.Destination[i]
		switch {
		case a.IsUnspecified() || a.IsMulticast() || a.Unmap().IsLoopback() || a.Unmap() == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			d.Add(at, "No address of a peer", "%v is not the address of one node: write one like \"192.168.100.2\".", a)
		case a.Unmap() == p.Address.Unmap():
			d.Add(at, "This node's own address", "%v is this node's address: name the peers alone.", a)
		case slices.ContainsFunc(p.Destination[:i], func(b netip.Addr) bool { return b.Unmap() == a.Unmap() }):
			d.Add(at, "The same peer twice", "%v is there already. Remove one.", a)
		case FamilyOf(a) != FamilyOf(p.Destination[0]):
			d.Add(at, "Wrong address family", "%v and %v can't be on one link: all must be IPv4, or all IPv6.", a, p.Destination[0])
		}
	}
}

// Name names the place, the same for sinks and sources.
func (p PeersPlace) Name(transport string) string { return unicastName(transport, p.Port, p.Interface) }

func unicastName(transport string, port uint16, device string) string {
	return fmt.Sprintf("%s:%d@%s", transport, port, device)
}

// Family is that of the peers.
func (p *PeersPlace) Family() Family { return FamilyOf(p.Destination[0]) }

// FromPeers is what a source that single peers send to is told of its links.
type FromPeers struct {
	OwnPlace
	Links []OwnLink `hcl:"link,block" doc:"One of several links, instead of address, port and interface above. Peers use one of them at a time."`
}

// An OwnPlace is where this node receives.
type OwnPlace struct {
	Address   netip.Addr `hcl:"address,optional" doc:"Address of this node that peers send to. Default: the interface's first, IPv4 if it has any."`
	Port      uint16     `hcl:"port,optional" doc:"Port to receive on. Default: 3780."`
	Interface string     `hcl:"interface,optional" doc:"Network interface to receive on. Required."`
}

// An OwnLink is one of several.
type OwnLink struct {
	OwnPlace
	Default bool `hcl:"default,optional" doc:"As in the sink. All links are received on."`
}

// DefaultFromPeers are the defaults.
func DefaultFromPeers() FromPeers { return FromPeers{OwnPlace: OwnPlace{Port: notrack.DefaultPort}} }

// Places returns the places.
func (c *FromPeers) Places() Places[OwnPlace] {
	p := &c.OwnPlace
	all := Places[OwnPlace]{Only: p, Given: p.Port != notrack.DefaultPort || p.Interface != "" || p.Address.IsValid()}
	for i := range c.Links {
		all.Add(&c.Links[i].OwnPlace, c.Links[i].Default)
	}
	return all
}

// Check reports what the types can't. It returns the families of the addresses
// that are set.
func (c *FromPeers) Check(d *plugin.Diagnostics) (families []Family) {
	known := true
	c.Places().Check(d, func(p *OwnPlace, path []any) {
		CheckInterface(d, path, p.Interface)
		p.Port = CheckPort(d, path, p.Port)
		CheckOwnAddress(d, path, p.Address)
		CheckZone(d, in(path, "address"), &p.Address, p.Interface)
		if p.Address.IsValid() {
			families = append(families, FamilyOf(p.Address))
		} else {
			known = false
		}
	}, func(p OwnPlace) string { return fmt.Sprintf("port %d on %s", p.Port, p.Interface) })
	if !known {
		return nil
	}
	return families
}

// Name names the place, the same for sinks and sources.
func (p OwnPlace) Name(transport string) string { return unicastName(transport, p.Port, p.Interface) }

// On returns the address to receive on at an interface.
func (p *OwnPlace) On(i *Interface) (netip.Addr, error) {
	if p.Address.IsValid() {
		if a := p.Address.Unmap(); i.Has(a) {
			return a, nil
		}
		return netip.Addr{}, noAddress(fmt.Sprintf("%v is no address of interface %s", p.Address, i.Name))
	}
	a, err := i.Address(netip.Addr{}, 4)
	if err != nil {
		a, err = i.Address(netip.Addr{}, 6)
	}
	return a, err
}

// Zone is the index of the interface that a link-local IPv6 address is of, 0 of
// others.
func (i *Interface) Zone(a netip.Addr) int {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return i.Index
	}
	return 0
}

// To names the peers for people.
func (p *PeersPlace) To() string {
	var names []string
	for _, a := range p.Destination {
		names = append(names, netip.AddrPortFrom(a, p.Port).String())
	}
	return strings.Join(names, ", ")
}

// At names the place for people.
func (p *OwnPlace) At() string {
	if !p.Address.IsValid() {
		return fmt.Sprintf("port %d", p.Port)
	}
	return netip.AddrPortFrom(p.Address, p.Port).String()
}
