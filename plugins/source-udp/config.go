package sourceudp

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/synclink"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSource,
	Type:    "udp",
	Summary: "Receives the flows of peers that send to this node alone over UDP, as conntrackd does.",
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
		NetNS: c.NetNS, RequestResync: c.RequestResync,
		Link:  c.Places().Name(c.NetNS, func(p synclink.OwnPlace) string { return p.Name("udp") }),
		Needs: c.Places().Needs(func(p synclink.OwnPlace) uint16 { return p.Port }),
	}
}

// Build makes the source.
func (c *Config) Build() (any, error) {
	var links []synclink.IncomingLink
	for _, p := range c.Places().Ordered() {
		links = append(links, synclink.IncomingLink{
			Interface: p.Interface, At: p.At(), Inlet: inlet(p, &c.Receiving),
		})
	}
	return synclink.NewReceiver("udp", c.Receiving, links), nil
}

// inlet receives at one address. It is bound to that and to the interface, and
// opened again when the interface has another.
func inlet(p *synclink.OwnPlace, r *synclink.Receiving) synclink.Inlet {
	var bound netip.Addr
	return &synclink.DatagramInlet{
		Keeps: func(i *synclink.Interface) bool {
			a, err := p.On(i)
			return err == nil && a == bound
		},
		Listen: func(i *synclink.Interface) (int, error) {
			a, err := p.On(i)
			if err != nil {
				return -1, err
			}
			// To the interface first: another one of the same name is no conflict.
			fd, err := synclink.BindDatagrams(netip.AddrPortFrom(a, p.Port), i.Zone(a), r, func(fd int) error {
				return unix.BindToDevice(fd, i.Name)
			})
			if err == nil {
				bound = a
			}
			return fd, err
		},
	}
}
