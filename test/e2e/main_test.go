package e2e

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// binary is the sluice under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(node.WithBinary(func(path string) int {
		binary = path
		return m.Run()
	}))
}

// patience bounds waits for conditions.
const patience = 60 * time.Second

// A cluster is a firewall pair with sluice on both; firewall 1 is active.
type cluster struct {
	*testbed.Pair
	server   *testbed.Server
	one, two *node.Node
}

// newCluster starts a pair with these attributes; see node.Pipelines.
func newCluster(t *testing.T, config testbed.FirewallConfig, more map[string]string) *cluster {
	t.Helper()
	testbed.MustLeaveNothing(t)
	c := &cluster{Pair: testbed.MustPair(t, config)}
	c.server = testbed.MustServer(t, c.Server, testbed.ServerPort)
	if err := c.MoveTo(c.FW1); err != nil {
		t.Fatal(err)
	}
	c.one = node.Must(t, binary, c.FW1, "fw1", node.Pipelines(more))
	c.two = node.Must(t, binary, c.FW2, "fw2", node.Pipelines(more))
	return c
}

// scope is what the pipelines' filter lets through.
func scope(f testbed.Flow) bool {
	ignored := []netip.Prefix{
		netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("::1/128"),
		netip.MustParsePrefix("10.71.3.0/24"), netip.MustParsePrefix("fd71:3::/64"),
	}
	for _, p := range ignored {
		if p.Contains(f.Orig.Src) || p.Contains(f.Reply.Src) {
			return false
		}
	}
	return true
}

// replicated compares a kernel's table, seen through the filter, with a peer's
// cache, attribute by attribute. Timeouts, ids and counters differ by nature;
// so does bit CONFIRMED of an entry whose first packet is still on its way.
func replicated(fw *testbed.Firewall, peer *node.Node, target string) func() error {
	return func() error {
		want, err := fw.Table()
		if err != nil {
			return err
		}
		got, err := peer.Table(target)
		if err != nil {
			return err
		}
		want = want.Where(scope)
		for key, f := range want { // what expires while the two are read
			if f.Timeout <= 1 {
				delete(want, key)
				delete(got, key)
			}
		}
		return testbed.Comparison{}.Same(want, got)
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func must2(t *testing.T, n *node.Node) *control.Status {
	t.Helper()
	return must[*control.Status](t)(n.Status())
}
