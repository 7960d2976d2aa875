package synclink

import (
	"net/netip"
	"testing"
	"time"
)

// TestManyNodes forges senders: what is remembered stays bounded.
func TestManyNodes(t *testing.T) {
	var ns nodes
	var now time.Time
	for i := range 3 * maxNodes {
		n, s := ns.get(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 0)
		if (n == nil) != (i >= maxNodes) {
			t.Fatalf("node %d: %v", i, n)
		}
		if n != nil {
			n.up, n.heard = true, now.Add(time.Duration(i))
			for port := range uint16(20) {
				n.tracker(s, port).Observe(uint32(port))
			}
			if c := n.total().Messages; len(s.ports) != maxPorts || c != 20 {
				t.Fatalf("%d ports, %d messages", len(s.ports), c)
			}
		}
	}
	ns.byAddress[netip.MustParseAddr("10.0.0.5")].up = false
	if n, _ := ns.get(netip.MustParseAddr("10.9.9.9"), 0); n == nil || ns.byAddress[netip.MustParseAddr("10.0.0.5")] != nil {
		t.Error("the silent one was not forgotten")
	}
}
