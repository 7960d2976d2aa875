package sourcemulticast

import (
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
)

// TestLinkMadeAnewOften makes the link anew more often than a socket may be a
// member of groups (net.ipv4.igmp_max_memberships).
func TestLinkMadeAnewOften(t *testing.T) {
	h := newBench(t, config4)
	for i := range 25 {
		if _, err := h.a.Run("ip", "link", "delete", testbed.SyncLink); err != nil {
			t.Fatal(err)
		}
		h.cable()
		testbed.Eventually(t, patience, func() error {
			_, err := h.b.Run("sh", "-c", "ip -4 maddress show dev sync | grep -q 225.0.0.50")
			return err
		})
		if errors := h.statistic("receive_errors"); errors > 0 {
			t.Fatalf("after %d times: %d errors", i, errors)
		}
	}
}
