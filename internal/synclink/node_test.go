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

var (
	a1, a2 = netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("10.0.2.1") // a node's on links 0 and 1
	b1, b2 = netip.MustParseAddr("10.0.1.2"), netip.MustParseAddr("10.0.2.2") // another's
)

// heard is what is heard of a node: an address on a link and, if it says that, its
// name and the address by which it is known; then it sends flows.
type heard struct {
	address netip.Addr
	link    int
	name    string
	known   netip.Addr
}

// Addresses become nodes by the rules at the type node.
func TestOwners(t *testing.T) {
	silent := func(a netip.Addr, link int) heard { return heard{address: a, link: link} }
	for name, tt := range map[string]struct {
		heard []heard
		want  map[netip.Addr]netip.Addr // owners by address
	}{
		"one link":                  {[]heard{silent(a1, 0), silent(b1, 0)}, map[netip.Addr]netip.Addr{a1: a1, b1: b1}},
		"the only one on each link": {[]heard{silent(a1, 0), silent(a2, 1)}, map[netip.Addr]netip.Addr{a1: a1, a2: a1}},
		"whichever came first":      {[]heard{silent(a2, 1), silent(a1, 0)}, map[netip.Addr]netip.Addr{a1: a2, a2: a2}},
		"two on the first link":     {[]heard{silent(a1, 0), silent(b1, 0), silent(a2, 1)}, map[netip.Addr]netip.Addr{a1: a1, b1: b1, a2: a2}},
		"two on the second link":    {[]heard{silent(a1, 0), silent(a2, 1), silent(b2, 1)}, map[netip.Addr]netip.Addr{a1: a1, a2: a1, b2: b2}},
		"a named one beside it":     {[]heard{{a1, 0, "a", a1}, silent(b1, 0), silent(b2, 1)}, map[netip.Addr]netip.Addr{a1: a1, b1: b1, b2: b1}},
		"one that says it":          {[]heard{{a1, 0, "a", a1}, {a2, 1, "a", a1}, {b2, 1, "b", b1}}, map[netip.Addr]netip.Addr{a1: a1, a2: a1, b2: b1}},
		"heard on the second first": {[]heard{{a2, 1, "a", a1}, {a1, 0, "a", a1}}, map[netip.Addr]netip.Addr{a1: a1, a2: a1}},
		"one that says it late":     {[]heard{silent(a2, 1), {a2, 1, "a", a1}}, map[netip.Addr]netip.Addr{a2: a1}},
		"taken for another, and says that": {
			[]heard{silent(a1, 0), silent(b2, 1), {b2, 1, "b", b1}}, map[netip.Addr]netip.Addr{a1: a1, b2: b1},
		},
		"a name without an address": {[]heard{{a1, 0, "a", netip.Addr{}}, {b2, 1, "a", netip.Addr{}}}, map[netip.Addr]netip.Addr{a1: a1, b2: b2}},
		"no address at all":         {[]heard{{a1, 0, "a", netip.IPv6Unspecified()}}, map[netip.Addr]netip.Addr{a1: a1}},
	} {
		t.Run(name, func(t *testing.T) {
			var ns nodes
			for _, h := range tt.heard {
				n, s := ns.get(h.address, h.link)
				if h.name != "" {
					n = ns.identify(n, s, h.name, h.known)
				}
				if n = ns.settle(n, s); n.sender(h.address) != s || ns.byAddress[h.address] != n {
					t.Fatalf("%v is not of the node that it was given to", h.address)
				}
			}
			for address, owner := range tt.want {
				if n := ns.byAddress[address]; n == nil || n.owner != owner {
					t.Errorf("%v belongs to %+v, want %v", address, n, owner)
				}
			}
			if len(ns.byAddress) != len(tt.want) {
				t.Errorf("%d addresses, want %d", len(ns.byAddress), len(tt.want))
			}
			for _, n := range ns.list {
				if len(n.addresses) == 0 {
					t.Errorf("%v has no address", n.owner)
				}
			}
		})
	}
}

// A forged stream of names fills nothing.
func TestManyAddresses(t *testing.T) {
	var ns nodes
	for i := range 10 * maxAddresses {
		n, s := ns.get(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 0)
		if n == nil {
			t.Fatalf("address %d", i)
		}
		n.up = true
		ns.identify(n, s, "a", a1)
	}
	if len(ns.list) != 1 || len(ns.byAddress) != maxAddresses || len(ns.list[0].addresses) != maxAddresses {
		t.Errorf("%d nodes, %d addresses", len(ns.list), len(ns.byAddress))
	}
}

// The count goes on from one link to another and back; what is missing shows.
func TestMoved(t *testing.T) {
	n := &node{}
	one, two := &sender{address: a1}, &sender{address: a2}
	hear := func(s *sender, link int, stream bool, port uint16, seq uint32) {
		tracker := n.tracker(s, port)
		n.moved(tracker, link, stream, seq)
		tracker.Repeats(seq)
		tracker.Observe(seq)
	}
	n.addresses = []*sender{one, two}
	for i, step := range []struct {
		s      *sender
		link   int
		stream bool
		port   uint16
		seq    uint32
		lost   uint64
	}{
		{one, 0, false, 1, 100, 0},
		{two, 1, false, 1, 101, 0}, // nothing missing
		{two, 1, false, 1, 102, 0},
		{one, 0, false, 1, 103, 0}, // back: what went over the other link is not missing
		{two, 1, false, 1, 106, 2},
		{one, 0, false, 9, 1 << 20, 2},    // it was started again
		{one, 0, false, 8, 1<<20 + 50, 2}, // another port on the same link is another count
		{one, 0, true, 7, 1<<20 + 61, 12}, // but for a stream
	} {
		hear(step.s, step.link, step.stream, step.port, step.seq)
		if lost := n.total().Lost; lost != step.lost {
			t.Errorf("step %d: %d lost, want %d", i, lost, step.lost)
		}
	}
	n.marks = true // it replays by itself
	if hear(one, 0, true, 6, 1<<20+90); n.total().Lost != 12 {
		t.Errorf("%d lost", n.total().Lost)
	}
}
