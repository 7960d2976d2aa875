package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

func server4() netip.AddrPort { return testbed.At(testbed.ServerAddr.V4) }
func server6() netip.AddrPort { return testbed.At(testbed.ServerAddr.V6) }

// mixed ends connections in every way.
func mixed(i int) testbed.Ending {
	return []testbed.Ending{testbed.Orderly, testbed.Reset, testbed.Orderly, testbed.LeftOpen}[i%4]
}

func TestPeerHoldsTheKernelsTableAfterTwentyThousandConnections(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{SNAT: true}, nil)
	result := c.Client.MustChurn(t, testbed.Churn{
		To: server4(), Sources: testbed.ClientSources(false), Count: 20_000, Payload: 100,
		Endings: func(i int) testbed.Ending {
			if i%100 == 0 {
				return testbed.LeftOpen
			}
			return mixed(i % 3)
		},
	})
	six := c.Client.MustChurn(t, testbed.Churn{To: server6(), Count: 200, Endings: mixed})
	t.Cleanup(func() { result.Open.Close(testbed.Reset); six.Open.Close(testbed.Reset) })
	c.Client.MustUDP(t, testbed.UDP{To: server4(), Count: 100})
	for _, addr := range testbed.ServerAddr.Addrs() {
		c.Client.MustPing(t, addr)
	}
	if open := result.Open.Len(); open != 200 {
		t.Errorf("%d connections are open, want 200", open)
	}
	testbed.Eventually(t, patience, replicated(c.FW1, c.two, "peers"))
	testbed.Eventually(t, patience, replicated(c.FW1, c.one, "local"))
	table := must[testbed.Table](t)(c.two.Table("peers"))
	if len(table) < 10_000 {
		t.Errorf("only %d flows to compare: the test tests little", len(table))
	}
	for _, n := range []*node.Node{c.one, c.two} {
		status := must[string](t)(n.Sluice("status", "-v"))
		t.Logf("%s", status)
	}
}

// Every stage of both nodes is killed, and stopped, under traffic that also closes
// connections; the same one of both nodes at once where it can be, since of the two
// one is on the way of the flows and the other is idle. (Sources of peers' flows can't:
// each asks for the other's, which then is not there to hear it.) A stopped stage is killed after 3 s and
// would be stopped for five. See that the peers agree afterwards, that nobody else
// was started again, and that the kernel's table did not fill up.
func TestKilledAndStoppedStagesAreRepaired(t *testing.T) {
	testbed.Require(t)
	for _, way := range []struct {
		name   string
		signal syscall.Signal
		length time.Duration // how long the traffic goes on
	}{
		{"killed", syscall.SIGKILL, 1500 * time.Millisecond},
		{"stopped", syscall.SIGSTOP, 5 * time.Second},
	} {
		t.Run(way.name, func(t *testing.T) {
			c := newCluster(t, testbed.FirewallConfig{SNAT: true}, nil)
			for _, n := range []*node.Node{c.one, c.two} {
				testbed.Eventually(t, patience, n.Quiet)
			}
			for address := range must[map[string]int](t)(c.one.PIDs()) {
				nodes := [][]*node.Node{{c.one, c.two}}
				if address == "peers.source.multicast" {
					nodes = [][]*node.Node{{c.one}, {c.two}}
				}
				for _, struck := range nodes {
					t.Run(address, func(t *testing.T) { strike(t, c, struck, address, way.signal, way.length) })
				}
			}
		})
	}
}

// strike signals one stage of each of these nodes while connections come and go.
func strike(t *testing.T, c *cluster, nodes []*node.Node, address string, signal syscall.Signal, length time.Duration) {
	before := [2]map[string]int{must[map[string]int](t)(c.one.PIDs()), must[map[string]int](t)(c.two.PIDs())}
	ctx, cancel := context.WithTimeout(context.Background(), length)
	defer cancel()
	traffic := make(chan *testbed.ChurnResult, 1)
	go func() {
		result, _ := c.Client.Churn(ctx, testbed.Churn{
			To: server4(), Sources: testbed.ClientSources(false), Count: 1 << 20, Rate: 300, Ending: testbed.Reset,
		})
		traffic <- result
	}()
	testbed.Eventually(t, patience, func() error { // it flows
		if n := must[int](t)(c.FW1.Count()); n < 20 {
			return fmt.Errorf("%d flows", n)
		}
		return nil
	})
	var struck []int
	for i, n := range []*node.Node{c.one, c.two} {
		if slices.Contains(nodes, n) {
			struck = append(struck, before[i][address])
		}
	}
	for _, pid := range struck {
		if err := syscall.Kill(pid, signal); err != nil {
			t.Fatal(err)
		}
	}
	result := <-traffic
	for _, pid := range struck {
		_ = syscall.Kill(pid, syscall.SIGCONT) // it may be gone
	}
	stopped := time.Now()
	// A connection ends in CLOSE, where it stays 10 s: the table holds about
	// rate × 10 s, whatever the stages do. Twice that would be a leak.
	if n := must[int](t)(c.FW1.Count()); n > 2*3000+1000 {
		t.Errorf("the kernel's table grew to %d entries", n)
	}
	if result == nil || result.Done == 0 {
		t.Fatal("no connection was made")
	}
	var last error // the difference that stayed longest
	equal := replicated(c.FW1, c.two, "peers")
	testbed.Eventually(t, patience, func() error {
		err := equal()
		if err != nil {
			last = err
		}
		return err
	})
	t.Logf("equal %v after the traffic of %d connections stopped; before: %.300v",
		time.Since(stopped).Round(10*time.Millisecond), result.Done, last)
	for i, n := range []*node.Node{c.one, c.two} {
		testbed.Eventually(t, patience, n.Quiet)
		for a, pid := range must[map[string]int](t)(n.PIDs()) {
			if (pid != before[i][a]) != slices.Contains(struck, before[i][a]) {
				t.Errorf("fw%d %s: pid %d before, %d after", i+1, a, before[i][a], pid)
			}
		}
	}
}
