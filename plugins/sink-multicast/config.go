package sinkmulticast

import (
	"math"
	"net/netip"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSink,
	Type:    "multicast",
	Summary: "Sends flows to the other nodes of a multicast group, as conntrackd does.",
	Config: func() any {
		return &Config{Port: notrack.DefaultPort, Checksum: true, SendTimeout: true}
	},
}

// Config is the plugin's block.
type Config struct {
	Group       netip.Addr      `hcl:"group" doc:"Multicast group to send to, IPv4 or IPv6."`
	Port        uint16          `hcl:"port,optional" doc:"UDP port to send to."`
	Interface   string          `hcl:"interface" doc:"Network interface to send on, best a link of its own between the nodes."`
	Address     netip.Addr      `hcl:"address,optional" doc:"Address of this node on the link: peers know it by this one. Default: the interface's first of the group's family."`
	SendBuffer  plugin.Size     `hcl:"send_buffer,optional" doc:"Send buffer of the socket, in bytes. More than net.core.wmem_max needs CAP_NET_ADMIN. Default: the system's."`
	Checksum    bool            `hcl:"checksum,optional" doc:"Put checksums into IPv4 datagrams. Over IPv6 they are there all the same."`
	TTL         uint8           `hcl:"ttl,optional" doc:"How many routers a datagram may pass, plus one. Default: 1, the link alone."`
	SendTimeout bool            `hcl:"send_timeout,optional" doc:"Send the seconds that each flow has left. A peer that commits with a fixed timeout does not need them."`
	WindowScale bool            `hcl:"window_scale,optional" doc:"Send the window scales of TCP flows, for peers that track windows after a takeover."`
	PeerVersion notrack.Version `hcl:"peer_version,optional" doc:"Oldest release of conntrackd in the group, \"1.4.2\" to \"1.4.9\": leaves out what it can't read. Default: none older than 1.4.7."`
	NetNS       string          `hcl:"netns,optional" doc:"Network namespace of the interface, as in \"/run/netns/blue\". Default: the runner's own."`
}

const maxInterface = 15 // bytes of an interface's name (linux/if.h, IFNAMSIZ)

// Validate checks what the types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	if !c.Group.IsMulticast() {
		d.Add(plugin.Path("group"), "No multicast group",
			"%v is no multicast address: write one like \"225.0.0.50\" or \"ff15::50\".", c.Group)
	}
	if c.Port == 0 {
		d.Add(plugin.Path("port"), "Number out of range", "Port 0 can't be sent to: %d is usual.", notrack.DefaultPort)
	}
	if c.Interface == "" || len(c.Interface) > maxInterface {
		d.Add(plugin.Path("interface"), "Bad interface name",
			"%q is no name of an interface: it has 1 to %d characters, as in \"eth2\".", c.Interface, maxInterface)
	}
	if c.Address.IsValid() && c.Address.Unmap().Is4() != c.Group.Unmap().Is4() {
		d.Add(plugin.Path("address"), "Wrong address family",
			"%v can't send to the group %v: both must be IPv4, or both IPv6.", c.Address, c.Group)
	}
	if c.SendBuffer >= math.MaxInt32 {
		d.Add(plugin.Path("send_buffer"), "Size out of range", "A socket's buffer is less than 2GiB.")
	}
	return d
}

// Traits tells the runner where the stage runs, which link it sends on, and
// that it can ask the peers there.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		Commands: []string{requestResync}, NetNS: c.NetNS,
		Link: notrack.Link(c.Group, c.Port, c.Interface, c.NetNS),
	}
}

// Build makes the sink.
func (c *Config) Build() (any, error) { return &Sink{config: *c}, nil }
