package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// established is a condition: the peer knows the transfer's connection.
func established(n *node.Node, target string, transfers ...*testbed.Transfer) func() error {
	return func() error {
		table, err := n.Table(target)
		if err != nil {
			return err
		}
		for _, transfer := range transfers {
			_, err := table.One(func(f testbed.Flow) bool {
				return f.Orig.SrcPort == transfer.Local().Port() && f.TCP == testbed.Established
			})
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// Downloads and an upload, IPv4 (translated) and IPv6, go on when the other
// firewall takes over; and again, when the first takes it back.
func TestConnectionsSurviveTakeoverAndFailback(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{SNAT: true}, map[string]string{
		"kernel": "commit_timeout = \"180s\"\n    purge_timeout = \"1s\"",
	})
	var transfers []*testbed.Transfer
	for i, to := range []netip.AddrPort{server4(), server6(), server4(), server6()} {
		transfers = append(transfers, c.Client.MustTransfer(t, testbed.TransferConfig{
			To: to, Size: 96 << 20, Rate: 12 << 20, Seed: uint64(i), Upload: i >= 2,
		}))
	}
	downloads := transfers[:2]
	testbed.Eventually(t, patience, established(c.two, "peers", transfers...))

	// Firewall 1 steps back, firewall 2 takes over: no packet passes both.
	begin := time.Now()
	out := must[string](t)(c.two.Sluice("role", "primary"))
	t.Logf("role primary: %v\n%s", time.Since(begin), out)
	if err := c.MoveTo(c.FW2); err != nil {
		t.Fatal(err)
	}
	// A flow of one packet has no other event than that it is new.
	if err := c.FW2.Inject(1, testbed.Synthetic{UDP: true}); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, replicated(c.FW2, c.one, "peers"))
	must[string](t)(c.one.Sluice("bulk")) // it still knows them, and tells
	testbed.Eventually(t, patience, established(c.two, "peers", transfers...))
	if _, err := c.one.Sluice("role", "backup"); err != nil {
		t.Error(err)
	}
	for _, transfer := range downloads {
		testbed.Eventually(t, patience, transfer.Progress(4<<20))
	}
	// The purge of firewall 1 takes what it carried out of its kernel and its
	// cache, and kills nothing on firewall 2.
	testbed.Eventually(t, patience, func() error {
		table, err := c.FW1.Table()
		if n := len(table.Where(scope)); err == nil && n > 0 {
			err = fmt.Errorf("%d flows are left in firewall 1's kernel", n)
		}
		return err
	})
	testbed.Eventually(t, patience, func() error {
		table, err := c.one.Table("local")
		if err == nil && len(table) > 0 {
			err = fmt.Errorf("%d flows are left in firewall 1's own cache", len(table))
		}
		return err
	})
	// Firewall 2 forgets that firewall 1 carried them, or a later commit would
	// bring back the dead.
	testbed.Eventually(t, patience, replicated(c.FW1, c.two, "peers"))
	testbed.Eventually(t, patience, established(c.one, "peers", transfers...))

	// And back.
	if _, err := c.one.Sluice("role", "primary"); err != nil {
		t.Error(err)
	}
	if err := c.MoveTo(c.FW1); err != nil {
		t.Fatal(err)
	}
	if _, err := c.two.Sluice("role", "fault"); err != nil {
		t.Error(err)
	}
	for _, transfer := range transfers {
		if err := transfer.Wait(); err != nil {
			t.Error(err)
		}
	}
	testbed.Eventually(t, patience, replicated(c.FW1, c.two, "peers"))
}

// Without the state that sluice carries the same takeover breaks the
// connection: the test above tests something.
func TestConnectionDiesWithoutTakeover(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{SNAT: true}, nil)
	transfer := c.Client.MustTransfer(t, testbed.TransferConfig{To: server4(), Size: 64 << 20, Rate: 8 << 20})
	testbed.Eventually(t, patience, established(c.two, "peers", transfer))
	if err := c.LinksDown(c.FW1); err != nil {
		t.Fatal(err)
	}
	if err := c.MoveTo(c.FW2); err != nil {
		t.Fatal(err)
	}
	moved := transfer.Moved()
	testbed.Eventually(t, patience, func() error { // packets that firewall 2 does not know
		table, err := c.FW2.Run("nft", "list", "ruleset")
		if err == nil && !strings.Contains(table, "ct state invalid") {
			t.Fatalf("no rule drops invalid packets:\n%s", table)
		}
		if err == nil && !invalidDropped(table) {
			err = fmt.Errorf("no invalid packet was dropped yet")
		}
		return err
	})
	if got := transfer.Moved(); got > moved+(8<<20) {
		t.Errorf("%d bytes came through a firewall that does not know the connection", got-moved)
	}
}

// invalidDropped says whether a rule that drops invalid packets has counted one.
func invalidDropped(ruleset string) bool {
	for line := range strings.Lines(ruleset) {
		if strings.Contains(line, "ct state invalid") && strings.Contains(line, "counter packets") &&
			!strings.Contains(line, "counter packets 0") {
			return true
		}
	}
	return false
}

func TestHundredThousandFlows(t *testing.T) {
	testbed.Require(t)
	const flows = 100_000
	testbed.MustRaiseConntrackMax(t, 4*flows)
	testbed.MustLeaveNothing(t)
	pair := testbed.MustPair(t, testbed.FirewallConfig{SNAT: true})
	shape := testbed.Synthetic{SNAT: testbed.OutsideVIP.V4.Addr(), Timeout: 600, Mark: 7}
	pair.FW1.MustInject(t, flows, shape)
	want := shape.Table(0, flows)

	// The peer first, so that what the first sends at its start is received.
	two := node.Must(t, binary, pair.FW2, "fw2", node.Pipelines(nil))
	one := node.Must(t, binary, pair.FW1, "fw1", node.Pipelines(nil))
	same := func(n *node.Node, target string) func() error {
		return func() error {
			s, err := n.Stage(map[string]string{"local": "local.cache.memory", "peers": "peers.cache.memory"}[target])
			if err != nil {
				return err
			}
			for _, number := range s.Statistics {
				if number.Name == "flows" && number.Value < flows {
					return fmt.Errorf("%s has %d flows", target, number.Value)
				}
			}
			got, err := n.Table(target)
			if err != nil {
				return err
			}
			return testbed.Comparison{}.Same(want, got)
		}
	}
	testbed.Eventually(t, patience, same(one, "local")) // dump at the start
	testbed.Eventually(t, patience, same(two, "peers")) // sent as they became known
	noneLost(t, two)

	// A bulk update into an empty cache.
	if _, err := two.Sluice("flush", "peers"); err != nil {
		t.Fatal(err)
	}
	bulk := must[string](t)(one.Sluice("bulk"))
	t.Logf("%s", bulk)
	testbed.Eventually(t, patience, same(two, "peers"))
	noneLost(t, two)

	// The commit.
	commit := must[string](t)(two.Sluice("commit"))
	t.Logf("%s", commit)
	got, err := pair.FW2.Table()
	if err != nil {
		t.Fatal(err)
	}
	if diff := (testbed.Comparison{Fields: testbed.FieldReply | testbed.FieldMark | testbed.FieldTCP}).Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// noneLost checks that no stage of a node lost anything.
func noneLost(t *testing.T, n *node.Node) {
	t.Helper()
	for _, p := range must2(t, n).Pipelines {
		for _, s := range p.Stages {
			if s.Lost > 0 {
				t.Errorf("%s lost %d: %+v", s.Address, s.Lost, s.Statistics)
			}
		}
	}
}
