package synclink

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-project/sluice/core/plugin"
)

// A zone may say what the interface says, and nothing else.
func TestZones(t *testing.T) {
	for _, c := range []struct{ address, destination, want string }{
		{"fe80::1%eth0", "fe80::2%eth0", "[]"},
		{"fe80::1%eth1", "fe80::2", "[[address]]"},
		{"fe80::1", "fe80::2%eth1", "[[destination 0]]"},
		{"fe80::1%eth0", "fe80::1", "[[destination 0]]"}, // the node's own
	} {
		p := PeersPlace{Port: 1, Interface: "eth0", Address: netip.MustParseAddr(c.address), Destination: []netip.Addr{netip.MustParseAddr(c.destination)}}
		to := ToPeers{PeersPlace: p}
		var d plugin.Diagnostics
		to.Check(&d)
		if got := paths(d); got != c.want {
			t.Errorf("%+v: %s, %v", c, got, d)
		}
		if len(d) == 0 && to.Address.Zone()+to.Destination[0].Zone() != "" {
			t.Errorf("%+v: zones stay", to)
		}
	}
	from := FromPeers{OwnPlace: OwnPlace{Port: 1, Interface: "eth0", Address: netip.MustParseAddr("fe80::1%eth1")}}
	var d plugin.Diagnostics
	if from.Check(&d); paths(d) != "[[address]]" {
		t.Errorf("source: %v", d)
	}
}

func paths(d plugin.Diagnostics) string {
	all := [][]any{}
	for _, one := range d {
		all = append(all, one.Path)
	}
	return fmt.Sprint(all)
}
