package synclink

import (
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// RequestResync is the command of sinks by which this node asks the others for
// all that they have.
const RequestResync = "request-resync"

// Sending is what a sink to peers can be told whatever carries its messages.
type Sending struct {
	SendBuffer  plugin.Size     `hcl:"send_buffer,optional" doc:"Send buffer of the socket, in bytes. More than net.core.wmem_max needs CAP_NET_ADMIN. Default: the system's."`
	SendTimeout bool            `hcl:"send_timeout,optional" doc:"Send the seconds that each flow has left. A peer that commits with a fixed timeout does not need them."`
	WindowScale bool            `hcl:"window_scale,optional" doc:"Send the window scales of TCP flows, for peers that track windows after a takeover."`
	PeerVersion notrack.Version `hcl:"peer_version,optional" doc:"Oldest release of conntrackd among the peers, \"1.4.2\" to \"1.4.9\": leaves out what it can't read. Default: none older than 1.4.7."`
	NetNS       string          `hcl:"netns,optional" doc:"Network namespace of the interface, as in \"/run/netns/blue\". Default: the runner's own."`
}

// DefaultSending are the defaults.
func DefaultSending() Sending { return Sending{SendTimeout: true} }

// Check reports what the types can't.
func (s *Sending) Check(d *plugin.Diagnostics) { checkBuffer(d, "send_buffer", s.SendBuffer) }

// settings are what of it the encoder must know.
func (s *Sending) settings(room int) notrack.Settings {
	return notrack.Settings{
		ByteOrders:  notrack.ByteOrders{ReversedNAT: s.PeerVersion.ReversesNAT()},
		Peer:        s.PeerVersion,
		Timeout:     s.SendTimeout,
		WindowScale: s.WindowScale,
		Room:        room,
	}
}

// Receiving is what a source of peers' flows can be told whatever carries their
// messages.
type Receiving struct {
	ReceiveBuffer plugin.Size     `hcl:"receive_buffer,optional" doc:"Receive buffer of the socket, in bytes. More than net.core.rmem_max needs CAP_NET_ADMIN. It holds what peers send while this node is busy elsewhere: 8 MiB are about 70,000 flows."`
	AcceptFrom    []netip.Prefix  `hcl:"accept_from,optional" doc:"Networks that peers' addresses must be in. Default: anybody on the link."`
	RequestResync bool            `hcl:"request_resync,optional" doc:"Ask the peers at the start for all that they have."`
	Coalesce      plugin.Duration `hcl:"coalesce,optional" doc:"While messages keep coming, the socket is read at most once in this time; the first after quiet is read at once. \"0s\" never waits, for active-active pairs."`
	PeerVersion   notrack.Version `hcl:"peer_version,optional" doc:"Release of conntrackd that sends, \"1.4.2\" to \"1.4.9\": those before 1.4.7 reverse IPv4 addresses of translated flows. Default: none older than 1.4.7."`
	NetNS         string          `hcl:"netns,optional" doc:"Network namespace of the interface, as in \"/run/netns/blue\". Default: the runner's own."`
}

// DefaultReceiving are the defaults.
func DefaultReceiving() Receiving {
	return Receiving{ReceiveBuffer: 8 << 20, RequestResync: true, Coalesce: plugin.Duration(2 * time.Millisecond)}
}

// Check reports what the types can't. The links are of these families.
func (r *Receiving) Check(d *plugin.Diagnostics, families ...Family) {
	checkBuffer(d, "receive_buffer", r.ReceiveBuffer)
	for i, p := range r.AcceptFrom {
		if f := FamilyOf(p.Addr()); len(families) > 0 && !slices.Contains(families, f) {
			d.Add(plugin.Path("accept_from", i), "Wrong address family",
				"Nobody in %v can send to this link: both must be IPv4, or both IPv6.", p)
		}
	}
	if time.Duration(r.Coalesce) > time.Second {
		d.Add(plugin.Path("coalesce"), "Duration out of range",
			"Flows would wait for %v, while the receive buffer fills: at most \"1s\" makes sense, and \"2ms\" is usual.", r.Coalesce)
	}
}

// A Family is that of IP addresses: 4 or 6.
type Family uint8

// FamilyOf returns the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return 4
	}
	return 6
}

// Network returns the name of a network of the family, as package net has it.
func (f Family) Network(name string) string {
	if f == 4 {
		return name + "4"
	}
	return name + "6"
}

func checkBuffer(d *plugin.Diagnostics, attribute string, size plugin.Size) {
	if size >= math.MaxInt32 {
		d.Add(plugin.Path(attribute), "Size out of range", "A socket's buffer is less than 2GiB.")
	}
}

// linkName puts the names of places together, each as in
// "225.0.0.50:3780@eth2".
func linkName(netns string, places []string) string {
	slices.Sort(places)
	name := strings.Join(places, " + ")
	if netns != "" {
		name += " in " + netns
	}
	return name
}
