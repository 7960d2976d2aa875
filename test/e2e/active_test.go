package e2e

import (
	"fmt"
	"testing"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// both is an active-active pair's configuration: nothing holds, nothing waits.
var both = map[string]string{
	"netlink": `coalesce = "0s"`, "source": `coalesce = "0s"`, "peers": "hold = false", "kernel": `destroy_grace = "2s"`,
}

// sent returns how many messages about flows a node has received and sent.
func traffic(t *testing.T, n *node.Node) (received, sent uint64) {
	t.Helper()
	source, err := n.Stage("peers.source.multicast")
	if err != nil {
		t.Fatal(err)
	}
	sink, err := n.Stage("local.sink.multicast")
	if err != nil {
		t.Fatal(err)
	}
	return statistic(source, "flows_received"), sink.EventsIn
}

func statistic(s control.StageStatus, name string) (sum uint64) {
	for _, one := range s.Statistics {
		if one.Name == name {
			sum += one.Value
		}
	}
	return sum
}

// In an active-active pair each node writes the other's flows into its kernel.
// Its own events about that must not come back to the other.
func TestOwnEventsNeverLoop(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{SNAT: true}, both)
	for _, n := range []*node.Node{c.one, c.two} {
		testbed.Eventually(t, patience, n.Quiet)
	}
	_, before := traffic(t, c.two)
	result := c.Client.MustChurn(t, testbed.Churn{To: server4(), Count: 300, Ending: testbed.LeftOpen})
	t.Cleanup(func() { result.Open.Close(testbed.Reset) })

	// Firewall 2's kernel has them all, translation and state included.
	testbed.Eventually(t, patience, func() error {
		want, err := c.FW1.Table()
		if err != nil {
			return err
		}
		got, err := c.FW2.Table()
		if err != nil {
			return err
		}
		want, got = want.Where(scope), got.Where(scope)
		if len(want) < 300 {
			return fmt.Errorf("firewall 1 has %d flows", len(want))
		}
		return testbed.Comparison{Fields: testbed.FieldReply | testbed.FieldTCP | testbed.FieldMark}.Same(want, got)
	})
	// Its cache knows them as foreign; it has sent nothing about them.
	testbed.Eventually(t, patience, func() error {
		s, err := c.two.Stage("local.cache.memory")
		if n := statistic(s, "flows_foreign"); err == nil && n < 300 {
			err = fmt.Errorf("%d foreign flows in firewall 2's own cache", n)
		}
		return err
	})
	testbed.Eventually(t, patience, c.two.Quiet)
	if _, after := traffic(t, c.two); after != before {
		t.Errorf("firewall 2 sent %d events about flows that it was given", after-before)
	}
	// Nor does it on a bulk update.
	must[string](t)(c.two.Sluice("bulk"))
	received, _ := traffic(t, c.one)
	if received != 0 {
		t.Errorf("firewall 1 got back %d of its own flows", received)
	}

	// When the packets come through firewall 2, the flows are its own, and
	// firewall 1 hears of them.
	if err := c.MoveTo(c.FW2); err != nil {
		t.Fatal(err)
	}
	result.Open.Close(testbed.Reset)
	testbed.Eventually(t, patience, func() error {
		if received, _ := traffic(t, c.one); received < 300 {
			return fmt.Errorf("firewall 1 has heard of %d of the flows that firewall 2 carries now", received)
		}
		return nil
	})
}

// A connection whose packets change sides all the time lives on.
func TestConnectionMayPassEitherFirewall(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{SNAT: true}, both)
	transfers := []*testbed.Transfer{
		c.Client.MustTransfer(t, testbed.TransferConfig{To: server4(), Size: 48 << 20, Rate: 8 << 20, Seed: 1}),
		c.Client.MustTransfer(t, testbed.TransferConfig{To: server6(), Size: 48 << 20, Rate: 8 << 20, Seed: 2, Upload: true}),
	}
	for _, n := range []*node.Node{c.two} {
		testbed.Eventually(t, patience, established(n, "peers", transfers...))
	}
	for i := range 6 {
		fw := []*testbed.Firewall{c.FW2, c.FW1}[i%2]
		if err := c.MoveTo(fw); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, patience, transfers[0].Progress(2<<20))
	}
	for _, transfer := range transfers {
		if err := transfer.Wait(); err != nil {
			t.Error(err)
		}
	}
}
