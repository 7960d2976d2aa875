package interop

import (
	"os"
	"testing"
	"time"

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
const patience = 20 * time.Second

// shortly bounds waits for numbers that the runner asks stages for twice a second.
const shortly = 3 * time.Second

// A site is a firewall pair, firewall 1 active, with servers behind it.
type site struct {
	*testbed.Pair
}

// newSite builds a site whose firewalls translate as rules says.
func newSite(t *testing.T) *site {
	t.Helper()
	testbed.Require(t, testbed.Conntrackd, testbed.Ctool)
	testbed.MustLeaveNothing(t)
	s := &site{testbed.MustPair(t, testbed.FirewallConfig{SNAT: true, Rules: rules, Sysctls: longTimeouts})}
	for _, port := range []int{testbed.ServerPort, zonePort, markPort, helperPort} {
		testbed.MustServer(t, s.Server, port)
	}
	testbed.MustServer(t, s.Client, testbed.ServerPort) // whom DNAT alone leads to
	if err := s.MoveTo(s.FW1); err != nil {
		t.Fatal(err)
	}
	return s
}

// sluice runs sluice on a firewall of the site.
func (s *site) sluice(t *testing.T, fw *testbed.Firewall, more map[string]string) *node.Node {
	t.Helper()
	return node.Must(t, binary, fw, "sluice", node.Pipelines(more))
}

// conntrackd runs conntrackd on a firewall of the site.
func (s *site) conntrackd(t *testing.T, fw *testbed.Firewall, config testbed.ConntrackdConfig) *testbed.Daemon {
	t.Helper()
	config.Address = fw.Sync.V4.Addr()
	return testbed.MustDaemon(t, fw.Namespace, config)
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
