package e2e

import (
	"fmt"
	"maps"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// A trio is three firewalls on one group, each the gateway of flows of its own.
type trio struct {
	*testbed.Group
	members []*member
}

// A member is a firewall with what replicates its flows: conntrackd or sluice.
type member struct {
	fw         *testbed.Firewall
	conntrackd *testbed.Daemon
	sluice     *node.Node
}

// newTrio starts three firewalls, so many of which run conntrackd.
func newTrio(t *testing.T, conntrackds int) *trio {
	t.Helper()
	testbed.Require(t, testbed.Conntrackd)
	testbed.MustLeaveNothing(t)
	c := &trio{Group: testbed.MustGroup(t, 3, testbed.FirewallConfig{})}
	testbed.MustServer(t, c.Server, testbed.ServerPort)
	for i, fw := range c.Firewalls {
		m := &member{fw: fw}
		c.members = append(c.members, m)
		if i < conntrackds {
			m.start(t)
			continue
		}
		m.sluice = node.Must(t, binary, fw, fmt.Sprintf("fw%d", i+1), node.Pipelines(map[string]string{
			"kernel": "commit_timeout = \"180s\"\n    purge_timeout = \"600s\"",
		}))
	}
	return c
}

// start starts conntrackd.
func (m *member) start(t *testing.T) {
	t.Helper()
	m.conntrackd = testbed.MustDaemon(t, m.fw.Namespace, testbed.ConntrackdConfig{
		Address: m.fw.Sync.V4.Addr(), CommitTimeout: 180, PurgeTimeout: 600,
	})
}

// tell gives a member a command: conntrackd's option, or sluice's words.
func (m *member) tell(t *testing.T, option string, words ...string) {
	t.Helper()
	if m.sluice == nil {
		m.conntrackd.MustCtl(t, option)
		return
	}
	t.Log(must[string](t)(m.sluice.Sluice(words...)))
}

func (m *member) bulk(t *testing.T)    { m.tell(t, "-B", "bulk") }
func (m *member) request(t *testing.T) { m.tell(t, "-n", "request-resync") }

// forget has a member forget what its peers told.
func (m *member) forget(t *testing.T) {
	t.Helper()
	if m.sluice == nil {
		m.conntrackd.MustCtl(t, "-f", "external")
		return
	}
	must[string](t)(m.sluice.Sluice("flush", "peers"))
}

// peers is what a member knows from its peers.
func (m *member) peers() (testbed.Table, error) {
	if m.sluice == nil {
		return m.conntrackd.External()
	}
	return m.sluice.Table("peers")
}

// comparison is how to compare what a member knows with a kernel's table.
func (m *member) comparison() testbed.Comparison {
	if m.sluice == nil {
		return testbed.Printed
	}
	return testbed.Comparison{}
}

// union is what the kernels of all others track.
func (c *trio) union(of *member) (testbed.Table, error) {
	all := testbed.Table{}
	for _, m := range c.members {
		if m == of {
			continue
		}
		table, err := m.fw.Table()
		if err != nil {
			return nil, err
		}
		maps.Copy(all, table.Where(scope))
	}
	return all, nil
}

// informed is a condition: each member knows what the others' kernels track.
func (c *trio) informed() error {
	return c.compare(func(want, got testbed.Table) testbed.Table { return got })
}

// compare compares what members know with what the others' kernels track, or
// that part of what they know which choose picks.
func (c *trio) compare(choose func(want, got testbed.Table) testbed.Table) error {
	for i, m := range c.members {
		want, err := c.union(m)
		if err != nil {
			return err
		}
		got, err := m.peers()
		if err != nil {
			return err
		}
		if err := m.comparison().Same(want, choose(want, got)); err != nil {
			return fmt.Errorf("firewall %d: %w", i+1, err)
		}
	}
	return nil
}

// traffic has connections of every ending pass each gateway, and UDP.
func (c *trio) traffic(t *testing.T) {
	t.Helper()
	for i := range c.members {
		for _, to := range c.Target(i).Prefixes() {
			c.Client.MustChurn(t, testbed.Churn{To: testbed.At(to), Count: 12, Payload: 100, Endings: mixed})
			c.Client.MustUDP(t, testbed.UDP{To: testbed.At(to), Count: 3, Exchanges: 3})
		}
	}
}

// trios are the clusters to test, by how many of their members run conntrackd.
var trios = map[string]int{"conntrackd and two sluices": 1, "sluice alone": 0}

// Each of three nodes carries flows of its own. What a node knows of the others
// is the union of what these carry, whatever was asked, sent twice or started
// again.
func TestThreeNodesKnowEachOthersFlows(t *testing.T) {
	for name, conntrackds := range trios {
		t.Run(name, func(t *testing.T) {
			c := newTrio(t, conntrackds)
			c.traffic(t)
			testbed.Eventually(t, patience, c.informed)
			c.each(t, (*member).bulk) // twice told
			c.each(t, (*member).forget)
			c.each(t, (*member).bulk)
			testbed.Eventually(t, patience, c.informed)
			c.each(t, (*member).forget)
			c.each(t, (*member).request)
			testbed.Eventually(t, patience, c.informed)
			for _, m := range c.members {
				m.restart(t, c)
				testbed.Eventually(t, patience, c.informed)
			}
			c.traffic(t)
			testbed.Eventually(t, patience, c.informed)
		})
	}
}

// each does something on one member after another.
func (c *trio) each(t *testing.T, do func(*member, *testing.T)) {
	t.Helper()
	for _, m := range c.members {
		do(m, t)
	}
}

// restart kills what runs on a firewall and starts it again, after traffic that
// it did not see.
func (m *member) restart(t *testing.T, c *trio) {
	t.Helper()
	if m.sluice == nil {
		m.conntrackd.Kill()
		c.traffic(t)
		m.start(t)
		for _, option := range []string{"-n", "-R", "-B"} {
			m.conntrackd.MustCtl(t, option)
		}
		return
	}
	m.sluice.Kill()
	c.traffic(t)
	if err := m.sluice.Run(); err != nil {
		t.Fatal(err)
	}
}
