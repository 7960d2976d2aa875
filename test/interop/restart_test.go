package interop

import (
	"fmt"
	"maps"
	"net/netip"
	"syscall"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// more makes a few more flows. Those that stay open are closed when t ends: give
// it the whole test's, since a subtest's end would go on to change flows.
func (s *site) more(t *testing.T) {
	t.Helper()
	for _, f := range families {
		s.Client.MustChurn(t, testbed.Churn{To: netip.AddrPortFrom(f.server, testbed.ServerPort), Count: 9, Endings: endings})
	}
}

// samePIDs checks that the stages are the processes that they were.
func samePIDs(t *testing.T, n *node.Node, before map[string]int) {
	t.Helper()
	if after := must[map[string]int](t)(n.PIDs()); !maps.Equal(before, after) {
		t.Errorf("processes before: %v, after: %v", before, after)
	}
}

// A conntrackd that comes back with nothing asks, and is told everything.
func TestConntrackdThatReceivesIsStartedAgain(t *testing.T) {
	s := newSite(t)
	config := testbed.ConntrackdConfig{StartupResync: true}
	d := s.conntrackd(t, s.FW2, config)
	n := s.sluice(t, s.FW1, nil)
	pids := must[map[string]int](t)(n.PIDs())
	s.traffic(t)
	testbed.Eventually(t, patience, same(testbed.Printed, s.FW1.Table, d.External))
	for _, end := range []func() error{d.Stop, func() error { d.Kill(); return nil }} {
		if err := end(); err != nil {
			t.Error(err)
		}
		s.more(t) // nobody listens
		d = s.conntrackd(t, s.FW2, config)
		testbed.Eventually(t, patience, same(testbed.Printed, s.FW1.Table, d.External))
		s.more(t)
		testbed.Eventually(t, patience, same(testbed.Printed, s.FW1.Table, d.External))
	}
	undisturbed(t, d)
	samePIDs(t, n, pids)
	unharmed(t, n)
}

// A conntrackd says neither when it begins nor when it has sent everything, so
// whatever it leaves out, sluice keeps: when it is started again and knows
// nothing, when it is asked and has nothing to say, and when it is silent.
func TestNothingOfConntrackdIsEverSwept(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW1, testbed.ConntrackdConfig{})
	n := s.sluice(t, s.FW2, nil)
	pids := must[map[string]int](t)(n.PIDs())
	s.traffic(t)
	know := func(t *testing.T) {
		t.Helper()
		testbed.Eventually(t, patience, same(testbed.Comparison{}, s.FW1.Table, peers(n)))
	}
	know(t)
	// later waits until flows are known that were sent after all else.
	test := t
	later := func(t *testing.T) {
		t.Helper()
		known := must[testbed.Table](t)(n.Table("peers"))
		fresh := func(s source) source {
			return func() (testbed.Table, error) {
				all, err := s()
				return all.Where(func(f testbed.Flow) bool { _, old := known[f.Key]; return !old }), err
			}
		}
		s.more(test)
		testbed.Eventually(t, patience, same(testbed.Comparison{}, fresh(s.FW1.Table), fresh(peers(n))))
	}
	t.Run("asked for nothing", func(t *testing.T) {
		d.MustCtl(t, "-f", "internal")
		testbed.Eventually(t, patience, empty(d.Internal))
		d.MustCtl(t, "-B")
		asks := background(func() error { _, err := n.Sluice("request-resync"); return err })
		later(t)
		if err := <-asks; err != nil {
			t.Error(err)
		}
		know(t)
	})
	t.Run("silent", func(t *testing.T) {
		d.Kill()
		testbed.Eventually(t, patience, func() error {
			up, err := statistic(n, "peers.source.multicast", "peer_up")
			if err == nil && up != 0 {
				err = fmt.Errorf("%d peers are up", up)
			}
			return err
		})
		know(t)
	})
	t.Run("started again", func(t *testing.T) {
		kept := s.FW1.MustTable(t)
		if err := s.FW1.Flush(); err != nil { // which nobody tells
			t.Fatal(err)
		}
		d = s.conntrackd(t, s.FW1, testbed.ConntrackdConfig{})
		d.MustCtl(t, "-B")
		later(t)
		all := must[testbed.Table](t)(n.Table("peers"))
		old := all.Where(func(f testbed.Flow) bool { _, old := kept[f.Key]; return old })
		if diff := (testbed.Comparison{}).Diff(kept, old); diff != "" {
			t.Errorf("the flows from before:\n%s", diff)
		}
	})
	samePIDs(t, n, pids)
	unharmed(t, n)
}

// Sluice's sink dies, and then all of sluice. Each time conntrackd is told what
// it missed, and goes on as if nothing had been.
func TestSluiceThatSendsIsKilled(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW2, testbed.ConntrackdConfig{})
	n := s.sluice(t, s.FW1, nil)
	s.traffic(t)
	agree := func(t *testing.T) {
		t.Helper()
		testbed.Eventually(t, patience, same(testbed.Printed, s.FW1.Table, d.External))
	}
	agree(t)
	more := func() { s.more(t) }
	for address := range must[map[string]int](t)(n.PIDs()) {
		t.Run(address, func(t *testing.T) {
			before := must[map[string]int](t)(n.PIDs())
			if err := syscall.Kill(before[address], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			more()
			testbed.Eventually(t, patience, all(func() error {
				stage, err := n.Stage(address)
				if err == nil && stage.PID == before[address] {
					err = fmt.Errorf("process %d is still there", stage.PID)
				}
				return err
			}, n.Quiet))
			more()
			agree(t)
			after := must[map[string]int](t)(n.PIDs())
			delete(before, address)
			delete(after, address)
			if !maps.Equal(before, after) {
				t.Errorf("other stages: %v before, %v after", before, after)
			}
		})
	}
	t.Run("runner", func(t *testing.T) {
		n.Kill()
		more()
		if err := n.Run(); err != nil {
			t.Fatal(err)
		}
		more()
		agree(t)
	})
	if !d.Running() {
		t.Error("conntrackd ended")
	}
	// A sink that starts numbers its messages anew, which conntrackd, with one
	// sequence for all senders, counts as loss: nothing else may be counted.
	for _, words := range []string{"Malformed messages", "Truncated message", "Bad message size", "Error recv"} {
		if n := must[int64](t)(d.Counter("network", words)); n != 0 {
			t.Errorf("conntrackd counted %s: %d", words, n)
		}
	}
}
