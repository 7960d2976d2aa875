package sinkmulticast

import (
	"net/netip"
	"testing"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/testbed"
)

// TestAddressGone takes away the address that the socket is bound to.
func TestAddressGone(t *testing.T) {
	h := newBench(t, `{"group":"225.0.0.50","interface":"sync"}`, true)
	h.next(notrack.Greeting)
	if _, err := h.a.Run("ip", "address", "flush", "dev", testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkDown))
	other := netip.PrefixFrom(nodeA4.Addr().Next().Next(), nodeA4.Bits())
	if err := h.a.AddAddr(testbed.SyncLink, other); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkUp))
	testbed.Eventually(t, patience, testbed.Holds(func() bool {
		_, from := h.datagram()
		return from.Addr() == other.Addr()
	}))
}

// TestLinkLocalMadeAnew is TestLinkMadeAnew with link-local addresses alone: a
// socket that is bound to one is bound to the interface too.
func TestLinkLocalMadeAnew(t *testing.T) {
	h := newBench(t, `{"group":"ff02::50","interface":"sync","address":"fe80::a"}`, false)
	if _, err := h.a.Run("ip", "link", "delete", testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkDown))
	if err := testbed.Cable(h.a, "other", h.b, "other"); err != nil { // takes the next index
		t.Fatal(err)
	}
	if err := testbed.Cable(h.a, testbed.SyncLink, h.b, testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	if err := h.a.AddAddr(testbed.SyncLink, local6); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkUp))
}
