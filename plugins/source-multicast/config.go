package sourcemulticast

import (
	"fmt"
	"net/netip"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSource,
	Type:    "multicast",
	Summary: "Receives the flows of the other nodes of a multicast group, as conntrackd does.",
	Config: func() any {
		return &Config{Place: Place{Port: notrack.DefaultPort}, Receiving: synclink.DefaultReceiving()}
	},
}

// Config is the plugin's block.
type Config struct {
	Place
	Links []Link `hcl:"link,block" doc:"One of several links, instead of group, port and interface above. Peers use one of them at a time."`
	synclink.Receiving
}

// A Place is where nodes meet.
type Place struct {
	Group     netip.Addr `hcl:"group,optional" doc:"Multicast group to join, IPv4 or IPv6. Required."`
	Port      uint16     `hcl:"port,optional" doc:"UDP port to receive on. Default: 3780."`
	Interface string     `hcl:"interface,optional" doc:"Network interface to join on. Required."`
}

// A Link is one of several.
type Link struct {
	Place
	Default bool `hcl:"default,optional" doc:"As in the sink. All links are received on."`
}

func (c *Config) links() synclink.Places[Place] {
	all := synclink.Places[Place]{Only: &c.Place, Given: c.Place != Place{Port: notrack.DefaultPort}}
	for i := range c.Links {
		all.Add(&c.Links[i].Place, c.Links[i].Default)
	}
	return all
}

// Validate checks what the types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	var families []synclink.Family
	c.links().Check(&d, func(p *Place, path []any) {
		synclink.CheckGroup(&d, path, p.Group)
		synclink.CheckZone(&d, append(path[:len(path):len(path)], "group"), &p.Group, p.Interface)
		synclink.CheckInterface(&d, path, p.Interface)
		p.Port = synclink.CheckPort(&d, path, p.Port)
		families = append(families, synclink.FamilyOf(p.Group))
	}, Place.place)
	c.Receiving.Check(&d, families...)
	return d
}

// place is the same for the sink that sends there.
func (p Place) place() string {
	return fmt.Sprintf("%v@%s", netip.AddrPortFrom(p.Group.Unmap(), p.Port), p.Interface)
}

// Traits tells the runner where the stage runs and through which sinks its
// peers can be asked.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		NetNS: c.NetNS, RequestResync: c.RequestResync,
		Link:  c.links().Name(c.NetNS, Place.place),
		Needs: c.links().Needs(func(p Place) uint16 { return p.Port }),
	}
}

// Build makes the source.
func (c *Config) Build() (any, error) {
	var links []synclink.IncomingLink
	for _, p := range c.links().Ordered() {
		to := netip.AddrPortFrom(p.Group.Unmap(), p.Port)
		inlet := &synclink.DatagramInlet{
			To:     to.Addr(),
			Listen: func(i *synclink.Interface) (int, error) { return listen(to, &c.Receiving, i) },
		}
		if !to.Addr().IsLinkLocalMulticast() || to.Addr().Is4() {
			inlet.Rejoin = func(fd int, i *synclink.Interface) error { return join(fd, to.Addr(), i) }
		}
		links = append(links, synclink.IncomingLink{Interface: p.Interface, At: to.String(), Inlet: inlet})
	}
	return synclink.NewReceiver("multicast", c.Receiving, links), nil
}
