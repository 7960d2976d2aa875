package link

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

const sync2 = "sync2" // the second link's interface

// second is a firewall's address on the second link.
func second(fw *testbed.Firewall) netip.Prefix {
	a := fw.Sync.V4.Addr().As4()
	a[2]++
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// A site is a firewall pair with two links, firewall 1 active.
type site struct {
	*testbed.Pair
	t *testing.T
}

func newSite(t *testing.T) *site {
	t.Helper()
	testbed.Require(t, testbed.Ctool)
	testbed.MustLeaveNothing(t)
	s := &site{testbed.MustPair(t, testbed.FirewallConfig{SNAT: true, Sysctls: map[string]string{
		"net.netfilter.nf_conntrack_tcp_timeout_close": "300",
	}}), t}
	testbed.MustServer(t, s.Server, testbed.ServerPort)
	err := testbed.Cable(s.FW1.Namespace, sync2, s.FW2.Namespace, sync2)
	if err == nil {
		err = errors.Join(s.FW1.AddAddr(sync2, second(s.FW1)), s.FW2.AddAddr(sync2, second(s.FW2)))
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sluice runs sluice on a firewall, with two links to the other.
func (s *site) sluice(fw *testbed.Firewall, typ string) *node.Node {
	s.t.Helper()
	other := s.Other(fw)
	link := func(sink bool, number int) string {
		device, own, peer := testbed.SyncLink, fw.Sync.V4.Addr(), other.Sync.V4.Addr()
		if number == 2 {
			device, own, peer = sync2, second(fw).Addr(), second(other).Addr()
		}
		attributes := fmt.Sprintf("interface = %q\n", device)
		switch {
		case typ == "multicast":
			attributes += fmt.Sprintf("group = \"225.0.0.5%d\"\nport = 378%d\n", number-1, number-1)
		case sink:
			attributes += fmt.Sprintf("destination = [%q]\n", peer)
		default:
			attributes += fmt.Sprintf("address = %q\n", own)
		}
		if number == 1 {
			attributes += "default = true\n"
		}
		return "link {\n" + attributes + "}\n"
	}
	return node.Must(s.t, sluice, fw, fw.Name(), fmt.Sprintf(`
pipeline "local" {
  source "netlink" {}
  filter "basic" {
    protocol {
      accept = ["tcp"]
    }
    address {
      ignore = ["127.0.0.1", "10.71.3.0/24", "10.71.4.0/24"]
    }
  }
  cache "memory" {}
  sink %[1]q {
    %[2]s
    %[3]s
  }
}

pipeline "peers" {
  source %[1]q {
    %[5]s
    %[4]s
  }
  cache "memory" {
    hold = true
  }
  sink "kernel" {
    scope = "local"
  }
}
`, typ, link(true, 1), link(true, 2), link(false, 1), link(false, 2)))
}

// traffic opens connections until the function that it returns is called, which
// returns when the last one is open. They are closed as endings says.
func (s *site) traffic(ending func(i int) testbed.Ending) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() {
		result, err := s.Client.Churn(ctx, testbed.Churn{
			To: testbed.At(testbed.ServerAddr.V4), Count: 1 << 20, Rate: 200, Endings: ending,
		})
		if err == nil {
			s.t.Cleanup(func() { result.Open.Close(testbed.Orderly) })
		}
		ended <- err
	}()
	return func() {
		s.t.Helper()
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	}
}

// some ends every second connection, in both ways.
func some(i int) testbed.Ending {
	return []testbed.Ending{testbed.LeftOpen, testbed.Orderly, testbed.LeftOpen, testbed.Reset}[i%4]
}

func never(int) testbed.Ending { return testbed.LeftOpen }

// through are the flows through a firewall that are replicated.
func through(table func() (testbed.Table, error)) func() (testbed.Table, error) {
	return func() (testbed.Table, error) {
		all, err := table()
		return all.Where(func(f testbed.Flow) bool { return f.Proto == 6 && f.Orig.DstPort == testbed.ServerPort }), err
	}
}

func peersOf(n *node.Node) func() (testbed.Table, error) {
	return through(func() (testbed.Table, error) { return n.Table("peers") })
}

// same is a condition: two know the same.
func same(c testbed.Comparison, want, got func() (testbed.Table, error)) func() error {
	return func() error {
		w, err := want()
		if err != nil {
			return err
		}
		g, err := got()
		if err != nil {
			return err
		}
		return c.Same(w, g)
	}
}

// more is a condition: somebody knows more flows than now.
func more(t *testing.T, table func() (testbed.Table, error)) func() error {
	t.Helper()
	before, err := table()
	if err != nil {
		t.Fatal(err)
	}
	return func() error {
		now, err := table()
		if err == nil && len(now) < len(before)+30 {
			err = fmt.Errorf("%d flows, and before %d", len(now), len(before))
		}
		return err
	}
}

// uses is a condition: a node's sink sends on a link.
func uses(n *node.Node, typ, device string) func() error {
	return func() error {
		stage, err := n.Stage("local.sink." + typ)
		if err != nil {
			return err
		}
		for _, s := range stage.Statistics {
			if s.Name == "link_active" && s.Peer == device && s.Value == 1 {
				return nil
			}
		}
		return fmt.Errorf("%s is not used: %s", device, stage.Note)
	}
}

// notes is a condition: a node's sink notes something, among other things.
func notes(n *node.Node, typ, words string) func() error {
	return func() error {
		stage, err := n.Stage("local.sink." + typ)
		if err == nil && !strings.Contains(stage.Note, words) {
			err = fmt.Errorf("it notes %q", stage.Note)
		}
		return err
	}
}

// rests is a condition: a node's sink sends on the first link, and nothing is wrong
// with the other.
func rests(n *node.Node, typ string) func() error {
	return func() error {
		stage, err := n.Stage("local.sink." + typ)
		if err == nil && stage.Note != "sends on "+testbed.SyncLink {
			err = fmt.Errorf("it %s", stage.Note)
		}
		return err
	}
}

// An outage is a way in which the first link fails.
type outage struct {
	name     string
	down, up func(s *site) error
}

var outages = []outage{
	{"the peer's end goes down",
		func(s *site) error { return s.FW2.SetLink(testbed.SyncLink, false) },
		func(s *site) error { return s.FW2.SetLink(testbed.SyncLink, true) }},
	{"the own end goes down",
		func(s *site) error { return s.FW1.SetLink(testbed.SyncLink, false) },
		func(s *site) error { return s.FW1.SetLink(testbed.SyncLink, true) }},
	{"the address goes",
		func(s *site) error { return s.FW1.DelAddr(testbed.SyncLink, s.FW1.Sync.V4) },
		func(s *site) error { return s.FW1.AddAddr(testbed.SyncLink, s.FW1.Sync.V4) }},
}

// outagesOf are those that a transport is tested with: multicast with all, the
// others, which differ from it in their sockets alone, with one.
func outagesOf(typ string) []outage {
	switch typ {
	case "udp":
		return outages[2:]
	case "tcp":
		return outages[:1]
	}
	return outages
}

// Under traffic one link fails: the other takes over, and the first is taken
// again when it is back. Nothing stays lost, nothing stays behind, and all flows
// are one node's the whole time.
func TestFailover(t *testing.T) {
	for _, typ := range []string{"multicast", "udp", "tcp"} {
		t.Run(typ, func(t *testing.T) {
			s := newSite(t)
			n1, n2 := s.sluice(s.FW1, typ), s.sluice(s.FW2, typ)
			for _, o := range outagesOf(typ) {
				testbed.Eventually(t, patience, rests(n1, typ))
				s.outage(o, n1, n2, typ)
			}
			if out, err := n2.Sluice("dump", "peers", "owner="+second(s.FW1).Addr().String()); err != nil || out != "" {
				t.Errorf("flows of the second address: %s, %v", out, err)
			}
			stage, err := n1.Stage("local.sink." + typ)
			if err != nil || stage.Restarts > 0 {
				t.Errorf("%+v, %v", stage, err)
			}
		})
	}
}

func (s *site) outage(o outage, n1, n2 *node.Node, typ string) {
	t := s.t
	t.Helper()
	stop := s.traffic(some)
	testbed.Eventually(t, patience, more(t, peersOf(n2)))
	if err := o.down(s); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	testbed.Eventually(t, patience, uses(n1, typ, sync2))
	t.Logf("%s: seen on the other link after %v", o.name, time.Since(begin).Round(time.Millisecond))
	testbed.Eventually(t, patience, more(t, peersOf(n2)))
	testbed.Eventually(t, patience, func() error {
		out, err := n1.Sluice("status")
		if err == nil && !strings.Contains(out, "sends on sync2; interface sync: ") {
			err = errors.New(out)
		}
		return err
	})
	stop()
	testbed.Eventually(t, patience, same(testbed.Comparison{}, through(s.FW1.Table), peersOf(n2)))
	stop = s.traffic(some)
	if err := o.up(s); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, uses(n1, typ, testbed.SyncLink))
	testbed.Eventually(t, patience, more(t, peersOf(n2)))
	stop()
	if err := s.FW1.Flush(); err != nil { // the end of every flow comes over the first link
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, same(testbed.Comparison{}, through(s.FW1.Table), peersOf(n2)))
}

// links are conntrackd's on a firewall.
func (s *site) links(fw *testbed.Firewall, transport string) testbed.ConntrackdConfig {
	other := s.Other(fw)
	c := testbed.ConntrackdConfig{
		Transport: transport, Address: fw.Sync.V4.Addr(), Peer: other.Sync.V4.Addr(), Protocols: []string{"TCP"},
		Ignore: []netip.Addr{fw.Sync.V4.Addr(), other.Sync.V4.Addr(), second(fw).Addr(), second(other).Addr()},
	}
	more := testbed.ConntrackdLink{Link: sync2, Address: second(fw).Addr(), Peer: second(other).Addr()}
	if transport == "Multicast" {
		c.Group, more.Group, more.Port = netip.MustParseAddr("225.0.0.50"), netip.MustParseAddr("225.0.0.51"), 3781
	}
	c.More = []testbed.ConntrackdLink{more}
	return c
}

// A conntrackd with the same links receives on both, and follows back.
func TestFailoverToConntrackd(t *testing.T) {
	for typ, transport := range map[string]string{"multicast": "Multicast", "udp": "UDP", "tcp": "TCP"} {
		t.Run(typ, func(t *testing.T) {
			testbed.Require(t, testbed.Conntrackd)
			s := newSite(t)
			d := testbed.MustDaemon(t, s.FW2.Namespace, s.links(s.FW2, transport))
			n := s.sluice(s.FW1, typ)
			external := through(d.External)
			which := map[string]int{"multicast": 0, "udp": 1, "tcp": 2}[typ] // one is enough for each
			for _, o := range outages[which : which+1] {
				testbed.Eventually(t, patience, rests(n, typ))
				stop := s.traffic(some)
				testbed.Eventually(t, patience, more(t, external))
				if err := o.down(s); err != nil {
					t.Fatal(err)
				}
				testbed.Eventually(t, patience, uses(n, typ, sync2))
				stop()
				// What conntrackd was not told the end of it keeps, so what it has
				// more is no fault; what comes must be complete.
				testbed.Eventually(t, patience, complete(through(s.FW1.Table), external))
				if err := o.up(s); err != nil {
					t.Fatal(err)
				}
				testbed.Eventually(t, patience, uses(n, typ, testbed.SyncLink))
				stop = s.traffic(some)
				testbed.Eventually(t, patience, more(t, external))
				stop()
				testbed.Eventually(t, patience, complete(through(s.FW1.Table), external))
			}
			for _, words := range []string{"Malformed messages", "Bad message size", "Truncated message"} {
				if n, err := d.Counter("network", words); err != nil || n != 0 {
					t.Errorf("%s: %d, %v", words, n, err)
				}
			}
		})
	}
}

// complete is a condition: all that want has is in got.
func complete(want, got func() (testbed.Table, error)) func() error {
	return func() error {
		w, err := want()
		if err != nil {
			return err
		}
		g, err := got()
		if err != nil {
			return err
		}
		return testbed.Printed.Same(w, g.Where(func(f testbed.Flow) bool { _, there := w[f.Key]; return there }))
	}
}

// A conntrackd with two links fails over by itself. It says nothing of itself, and
// tells nobody what it sent in vain, and yet nothing is missing, and the end of
// flows that came over the first link counts when it comes over the second.
func TestFailoverOfConntrackd(t *testing.T) {
	for typ, transport := range map[string]string{"multicast": "Multicast", "udp": "UDP", "tcp": "TCP"} {
		t.Run(typ, func(t *testing.T) {
			testbed.Require(t, testbed.Conntrackd)
			s := newSite(t)
			n := s.sluice(s.FW2, typ)
			d := testbed.MustDaemon(t, s.FW1.Namespace, s.links(s.FW1, transport))
			testbed.Eventually(t, patience, rests(n, typ))
			stop := s.traffic(never)
			testbed.Eventually(t, patience, more(t, peersOf(n)))
			if err := s.FW2.SetLink(testbed.SyncLink, false); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, patience, more(t, peersOf(n)))
			stop()
			testbed.Eventually(t, patience, same(testbed.Comparison{}, through(s.FW1.Table), peersOf(n)))
			if out := d.MustCtl(t, "-s", "link"); !active(out, sync2) {
				t.Errorf("conntrackd uses another link:\n%s", out)
			}
			if _, err := s.FW1.Run("conntrack", "-D", "-p", "tcp", "--dport", fmt.Sprint(testbed.ServerPort)); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, patience, same(testbed.Comparison{}, through(s.FW1.Table), peersOf(n)))

			// Sluice goes back to the first link, and conntrackd follows what it hears.
			if err := s.FW2.SetLink(testbed.SyncLink, true); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, patience, uses(n, typ, testbed.SyncLink))
			testbed.Eventually(t, patience, func() error {
				if out := d.MustCtl(t, "-s", "link"); !active(out, testbed.SyncLink) {
					return errors.New("conntrackd does not follow")
				}
				return nil
			})
			stop = s.traffic(never)
			testbed.Eventually(t, patience, more(t, peersOf(n)))
			stop()
			testbed.Eventually(t, patience, same(testbed.Comparison{}, through(s.FW1.Table), peersOf(n)))
		})
	}
}

// active says whether conntrackd's statistics name a link as the active one.
func active(statistics, device string) bool {
	for _, line := range strings.Split(statistics, "\n") {
		if strings.Contains(line, "device="+device+" ") && strings.Contains(line, "role=ACTIVE") {
			return true
		}
	}
	return false
}
