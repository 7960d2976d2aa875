package sinktcp

import (
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/synclink"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSink,
	Type:    "tcp",
	Summary: "Sends flows to single peers over TCP, as conntrackd does.",
	Config: func() any {
		return &Config{ToPeers: synclink.DefaultToPeers(), Sending: synclink.DefaultSending()}
	},
}

// Config is the plugin's block.
type Config struct {
	synclink.ToPeers
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
		Link:  c.Places().Name(c.NetNS, func(p synclink.PeersPlace) string { return p.Name("tcp") }),
		Needs: c.Places().Needs(nil),
	}
}

// Build makes the sink.
func (c *Config) Build() (any, error) {
	var links []synclink.OutgoingLink
	for _, p := range c.Places().Ordered() {
		links = append(links, synclink.OutgoingLink{
			Interface: p.Interface, To: p.To(),
			Outlet: newOutlet(p, &c.Sending),
		})
	}
	t := synclink.NewTransmitter("tcp", c.Sending, links)
	t.Stream = true
	return t, nil
}
