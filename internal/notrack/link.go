package notrack

import (
	"fmt"
	"net/netip"
)

// DefaultPort is the UDP port that conntrackd's documentation uses.
const DefaultPort = 3780

// Link names the place where nodes meet, as plugin.Traits.Link wants it: equal
// for the source and the sink of one group on one interface. netns is the
// network namespace that the interface is in, "" for the runner's own.
func Link(group netip.Addr, port uint16, device, netns string) string {
	link := fmt.Sprintf("%v@%s", netip.AddrPortFrom(group.Unmap(), port), device)
	if netns != "" {
		link += " in " + netns
	}
	return link
}
