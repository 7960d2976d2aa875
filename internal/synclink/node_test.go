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

// The count goes on from one link to another and back; what is missing shows, and
// what is late is of no use.
func TestMoved(t *testing.T) {
	old, young := time.Now().Add(-time.Hour), time.Now()
	aged := young.Add(-lateFor)
	for name, tt := range map[string]struct {
		marks bool
		heard []step
	}{
		"to another link and back": {false, []step{
			{link: 0, port: 1, seq: 100}, {link: 1, port: 1, seq: 101}, {link: 1, port: 1, seq: 102},
			{link: 0, port: 1, seq: 103}, // what went over the other link is not missing
			{link: 1, port: 1, seq: 106, lost: 2},
		}},
		"started again":                    {false, []step{{link: 0, port: 1, seq: 100}, {link: 1, port: 9, seq: 1 << 20}, {link: 1, port: 9, seq: 1<<20 + 1}}},
		"started again on the same link":   {false, []step{{link: 0, port: 1, seq: 100}, {link: 0, port: 2, seq: 150}}},
		"another connection of conntrackd": {false, []step{{link: 0, port: 1, seq: 100, since: old}, {link: 0, port: 2, seq: 150, since: young, lost: 49}}},
		"another connection of a node":     {true, []step{{link: 0, port: 1, seq: 100, since: old}, {link: 0, port: 2, seq: 150, since: young}}},
		"late, over the connection before": {true, []step{
			{link: 0, port: 1, seq: 100, since: old}, {link: 1, port: 2, seq: 101, since: young}, {link: 1, port: 2, seq: 102, since: young},
			{link: 0, port: 1, seq: 101, since: old, late: true}, {link: 1, port: 2, seq: 103, since: young},
			{link: 0, port: 1, seq: 104, since: old}, // and back
		}},
		"late, over a new connection": {false, []step{
			{link: 1, port: 2, seq: 200, since: old},
			{link: 0, port: 1, seq: 120, since: young, late: true}, {link: 0, port: 1, seq: 121, since: young, late: true},
			{link: 0, port: 1, seq: 201, since: young},
		}},
		"a conntrackd that was started again": {false, []step{{link: 0, port: 2, seq: 2000, since: old}, {link: 0, port: 1, seq: 120, since: aged}}},
		"a node that was started again":       {true, []step{{link: 0, port: 2, seq: 2000, since: old}, {link: 0, port: 1, seq: 120, since: young}}},
		"datagrams are not late":              {false, []step{{link: 0, port: 1, seq: 100}, {link: 1, port: 1, seq: 102, lost: 1}, {link: 0, port: 1, seq: 101, lost: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			n := &node{marks: tt.marks}
			n.addresses = []*sender{{address: a1}, {address: a2}}
			for i, s := range tt.heard {
				tracker := n.tracker(n.addresses[s.link], s.port)
				used := n.moved(tracker, s.link, s.since, s.seq)
				if used {
					tracker.Repeats(s.seq)
					tracker.Observe(s.seq)
				}
				if lost := n.total().Lost; lost != s.lost || used == s.late {
					t.Errorf("step %d: used %v, %d lost, want %d", i, used, lost, s.lost)
				}
			}
		})
	}
}

// A step is a message that a node sends, and what is to become of it.
type step struct {
	link  int
	port  uint16
	since time.Time
	seq   uint32
	lost  uint64 // together
	late  bool
}
