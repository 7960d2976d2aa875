package sourcetcp

import (
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/synclink"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSource,
	Type:    "tcp",
	Summary: "Receives the flows of peers that send to this node alone over TCP, as conntrackd does.",
	Config: func() any {
		return &Config{FromPeers: synclink.DefaultFromPeers(), Receiving: synclink.DefaultReceiving()}
	},
}

// Config is the plugin's block.
type Config struct {
	synclink.FromPeers
	synclink.Receiving
}

// Validate checks what the types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	c.Receiving.Check(&d, c.FromPeers.Check(&d)...)
	return d
}

// Traits tells the runner where the stage runs and through which sinks its
// peers can be asked.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		NetNS: c.NetNS, RequestResync: c.RequestResync, Exclusive: true, // it listens
		Link:  c.Places().Name(c.NetNS, func(p synclink.OwnPlace) string { return p.Name("tcp") }),
		Needs: c.Places().Needs(func(p synclink.OwnPlace) uint16 { return p.Port }),
	}
}

// Build makes the source.
func (c *Config) Build() (any, error) {
	var links []synclink.IncomingLink
	for _, p := range c.Places().Ordered() {
		links = append(links, synclink.IncomingLink{
			Interface: p.Interface, At: p.At(), Inlet: newInlet(p, &c.Receiving),
		})
	}
	return synclink.NewReceiver("tcp", c.Receiving, links), nil
}
