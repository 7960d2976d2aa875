package sinkmulticast

import (
	"fmt"
	"net/netip"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSink,
	Type:    "multicast",
	Summary: "Sends flows to the other nodes of a multicast group, as conntrackd does.",
	Config: func() any {
		return &Config{Place: Place{Port: notrack.DefaultPort}, Checksum: true, Sending: synclink.DefaultSending()}
	},
}

// Config is the plugin's block.
type Config struct {
	Place
	Links    []Link `hcl:"link,block" doc:"One of several links, instead of group, port, interface and address above. One is used at a time; the next takes over when that goes down."`
	Checksum bool   `hcl:"checksum,optional" doc:"Put checksums into IPv4 datagrams. Over IPv6 they are there all the same."`
	TTL      uint8  `hcl:"ttl,optional" doc:"How many routers a datagram may pass, plus one. Default: 1, the link alone."`
	synclink.Sending
}

// A Place is where nodes meet.
type Place struct {
	Group     netip.Addr `hcl:"group,optional" doc:"Multicast group to send to, IPv4 or IPv6. Required."`
	Port      uint16     `hcl:"port,optional" doc:"UDP port to send to. Default: 3780."`
	Interface string     `hcl:"interface,optional" doc:"Network interface to send on, best a link of its own between the nodes. Required."`
	Address   netip.Addr `hcl:"address,optional" doc:"Address of this node on the link: peers know it by this one. Default: the interface's first of the group's family."`
}

// A Link is one of several.
type Link struct {
	Place
	Default bool `hcl:"default,optional" doc:"Use this link whenever it works. Without any default it is the first."`
}

// links returns the places and whether each is the default.
func (c *Config) links() synclink.Places[Place] {
	all := synclink.Places[Place]{Only: &c.Place, Given: c.Place != Place{Port: notrack.DefaultPort}}
	for i := range c.Links {
		all.Add(&c.Links[i].Place, c.Links[i].Default)
	}
	return all
}

// Validate checks what the types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	c.links().Check(&d, func(p *Place, path []any) {
		synclink.CheckGroup(&d, path, p.Group)
		synclink.CheckZone(&d, append(path[:len(path):len(path)], "group"), &p.Group, p.Interface)
		synclink.CheckZone(&d, append(path[:len(path):len(path)], "address"), &p.Address, p.Interface)
		synclink.CheckInterface(&d, path, p.Interface)
		synclink.CheckOwnAddress(&d, path, p.Address)
		synclink.CheckFamily(&d, path, "address", p.Address, p.Group)
		p.Port = synclink.CheckPort(&d, path, p.Port)
	}, Place.place)
	c.Sending.Check(&d)
	return d
}

// place is the same for the source that receives there.
func (p Place) place() string {
	return fmt.Sprintf("%v@%s", netip.AddrPortFrom(p.Group.Unmap(), p.Port), p.Interface)
}

// Traits tells the runner where the stage runs, which links it sends on, and
// that it can ask the peers there.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		Commands: []string{synclink.RequestResync}, NetNS: c.NetNS,
		Link:  c.links().Name(c.NetNS, Place.place),
		Needs: c.links().Needs(nil),
	}
}

// Build makes the sink.
func (c *Config) Build() (any, error) {
	var links []synclink.OutgoingLink
	for _, p := range c.links().Ordered() {
		links = append(links, synclink.OutgoingLink{
			Interface: p.Interface, To: p.Group.String(),
			Outlet: &synclink.DatagramOutlet{
				Family: synclink.FamilyOf(p.Group),
				Dial: func(i *synclink.Interface) ([]*synclink.DatagramSocket, netip.Addr, error) {
					return dial(c, p, i)
				},
			},
		})
	}
	return synclink.NewTransmitter("multicast", c.Sending, links), nil
}
