package sinkudp

import (
	"net/netip"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/synclink"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSink,
	Type:    "udp",
	Summary: "Sends flows to single peers over UDP, as conntrackd does.",
	Config: func() any {
		return &Config{ToPeers: synclink.DefaultToPeers(), Checksum: true, Sending: synclink.DefaultSending()}
	},
}

// Config is the plugin's block.
type Config struct {
	synclink.ToPeers
	Checksum bool `hcl:"checksum,optional" doc:"Put checksums into IPv4 datagrams. Over IPv6 they are there all the same."`
	synclink.Sending
}

// Validate checks what the types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	c.ToPeers.Check(&d)
	c.Sending.Check(&d)
	return d
}

// Traits tells the runner where the stage runs, which links it sends on, and
// that it can ask the peers there.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		Commands: []string{synclink.RequestResync}, NetNS: c.NetNS,
		Link:  c.Places().Name(c.NetNS, func(p synclink.PeersPlace) string { return p.Name("udp") }),
		Needs: c.Places().Needs(nil),
	}
}

// Build makes the sink.
func (c *Config) Build() (any, error) {
	var links []synclink.OutgoingLink
	for _, p := range c.Places().Ordered() {
		links = append(links, synclink.OutgoingLink{
			Interface: p.Interface, To: p.To(),
			Outlet: &synclink.DatagramOutlet{
				Family: p.Family(),
				Dial: func(i *synclink.Interface) ([]*synclink.DatagramSocket, netip.Addr, error) {
					return dial(c, p, i)
				},
			},
		})
	}
	return synclink.NewTransmitter("udp", c.Sending, links), nil
}
