package sourcemulticast

import (
	"math"
	"net/netip"
	"time"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSource,
	Type:    "multicast",
	Summary: "Receives the flows of the other nodes of a multicast group, as conntrackd does.",
	Config: func() any {
		return &Config{
			Port: notrack.DefaultPort, ReceiveBuffer: 8 << 20, RequestResync: true, Coalesce: plugin.Duration(2 * time.Millisecond),
		}
	},
}

// Config is the plugin's block.
type Config struct {
	Group         netip.Addr      `hcl:"group" doc:"Multicast group to join, IPv4 or IPv6."`
	Port          uint16          `hcl:"port,optional" doc:"UDP port to receive on."`
	Interface     string          `hcl:"interface" doc:"Network interface to join on."`
	ReceiveBuffer plugin.Size     `hcl:"receive_buffer,optional" doc:"Receive buffer of the socket, in bytes. More than net.core.rmem_max needs CAP_NET_ADMIN. It holds what peers send while this node is busy elsewhere: 8 MiB are about 70,000 flows."`
	AcceptFrom    []netip.Prefix  `hcl:"accept_from,optional" doc:"Networks that peers' addresses must be in. Default: anybody on the link."`
	RequestResync bool            `hcl:"request_resync,optional" doc:"Ask the peers at the start for all that they have."`
	Coalesce      plugin.Duration `hcl:"coalesce,optional" doc:"While datagrams keep coming, the socket is read at most once in this time; the first after quiet is read at once. \"0s\" never waits, for active-active pairs."`
	PeerVersion   notrack.Version `hcl:"peer_version,optional" doc:"Release of conntrackd that sends, \"1.4.2\" to \"1.4.9\": those before 1.4.7 reverse IPv4 addresses of translated flows. Default: none older than 1.4.7."`
	NetNS         string          `hcl:"netns,optional" doc:"Network namespace of the interface, as in \"/run/netns/blue\". Default: the runner's own."`
}

const maxInterface = 15 // bytes of an interface's name (linux/if.h, IFNAMSIZ)

// Validate checks what the types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	if !c.Group.IsMulticast() {
		d.Add(plugin.Path("group"), "No multicast group",
			"%v is no multicast address: write one like \"225.0.0.50\" or \"ff15::50\".", c.Group)
	}
	if c.Port == 0 {
		d.Add(plugin.Path("port"), "Number out of range", "Port 0 can't be received on: %d is usual.", notrack.DefaultPort)
	}
	if c.Interface == "" || len(c.Interface) > maxInterface {
		d.Add(plugin.Path("interface"), "Bad interface name",
			"%q is no name of an interface: it has 1 to %d characters, as in \"eth2\".", c.Interface, maxInterface)
	}
	if c.ReceiveBuffer >= math.MaxInt32 {
		d.Add(plugin.Path("receive_buffer"), "Size out of range", "A socket's buffer is less than 2GiB.")
	}
	for i, p := range c.AcceptFrom {
		if p.Addr().Unmap().Is4() != c.Group.Unmap().Is4() {
			d.Add(plugin.Path("accept_from", i), "Wrong address family",
				"Nobody in %v can send to the group %v: both must be IPv4, or both IPv6.", p, c.Group)
		}
	}
	if time.Duration(c.Coalesce) > time.Second {
		d.Add(plugin.Path("coalesce"), "Duration out of range",
			"Flows would wait for %v, while the receive buffer fills: at most \"1s\" makes sense, and \"2ms\" is usual.", c.Coalesce)
	}
	return d
}

// Traits tells the runner where the stage runs and through which sinks its
// peers can be asked.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		NetNS: c.NetNS, RequestResync: c.RequestResync,
		Link: notrack.Link(c.Group, c.Port, c.Interface, c.NetNS),
	}
}

// Build makes the source.
func (c *Config) Build() (any, error) { return newSource(*c), nil }
