package e2e

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// With kernel_filter the source never sees what the filter below drops, live; the
// cache is the same with it and without it, also after the table was read again.
func TestKernelFilterChangesNoVerdict(t *testing.T) {
	testbed.Require(t)
	for _, on := range []bool{false, true} {
		t.Run(fmt.Sprintf("kernel_filter=%t", on), func(t *testing.T) {
			testbed.MustLeaveNothing(t)
			bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true})
			testbed.MustServer(t, bed.Server, testbed.ServerPort)
			sources := testbed.ClientSources(false)
			n := node.Must(t, binary, bed.FW, "fw", fmt.Sprintf(`
				pipeline "local" {
					source "netlink" {
						kernel_filter = %t
					}
					filter "basic" {
						protocol {
							accept = ["tcp"]
						}
						address {
							ignore = ["%s"]
						}
					}
					cache "memory" {}
					sink "log" {
						path = "%s"
					}
				}`, on, sources[0], filepath.Join(t.TempDir(), "log")))
			passes := func(f testbed.Flow) bool { return f.Proto == 6 && f.Orig.Src != sources[0] }
			agree := func() error {
				want, err := bed.FW.Table()
				if err != nil {
					return err
				}
				got, err := n.Table("local")
				if err != nil {
					return err
				}
				return testbed.Comparison{}.Same(want.Where(passes), got)
			}
			bed.Client.MustUDP(t, testbed.UDP{To: server4(), Count: 20})
			bed.Client.MustChurn(t, testbed.Churn{To: server4(), Count: 20, Sources: []netip.Addr{sources[0]}, Ending: testbed.LeftOpen})
			bed.Client.MustChurn(t, testbed.Churn{To: server4(), Count: 20, Sources: []netip.Addr{sources[1]}, Ending: testbed.LeftOpen})
			testbed.Eventually(t, patience, agree)
			want := uint64(60)
			if on {
				want = 20
			}
			if got := sourceEvents(t, n); got != want {
				t.Errorf("%d flows had events, not %d", got, want)
			}
			if _, err := n.Sluice("resync"); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, patience, agree)
		})
	}
}

// sourceEvents is how many NEW events the source has sent.
func sourceEvents(t *testing.T, n *node.Node) (events uint64) {
	t.Helper()
	stage, err := n.Stage("local.source.netlink")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stage.Statistics {
		if s.Name == "events_new" {
			return s.Value
		}
	}
	t.Fatal("no such statistic")
	return 0
}
