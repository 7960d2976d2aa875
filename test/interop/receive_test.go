package interop

import (
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
)

// Conntrackd on firewall 1 tells sluice on firewall 2 everything that happens,
// again when one of them wishes so, and what sluice then commits is the table
// of firewall 1.
func TestSluiceTakesWhatConntrackdSends(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW1, testbed.ConntrackdConfig{ExpectationSync: true})
	n := s.sluice(t, s.FW2, nil)
	s.traffic(t)
	printed := testbed.Printed
	printed.Fields |= testbed.FieldReply
	agree := func(t *testing.T) {
		t.Helper()
		testbed.Eventually(t, patience, all(
			same(testbed.Comparison{}, s.FW1.Table, peers(n)),
			same(printed, d.Internal, peers(n)),
			same(printed, d.Internal, text(n, "peers")),
		))
	}
	agree(t)
	everyKind(t, must[testbed.Table](t)(n.Table("peers")))
	s.changes(t, agree, peers(n))

	forget := func(t *testing.T) {
		t.Helper()
		if _, err := n.Sluice("flush", "peers"); err != nil {
			t.Fatal(err)
		}
		if err := empty(peers(n))(); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("request", func(t *testing.T) {
		forget(t)
		t.Log(must[string](t)(n.Sluice("request-resync")))
		agree(t)
	})
	t.Run("bulk", func(t *testing.T) {
		forget(t)
		d.MustCtl(t, "-B")
		agree(t)
	})
	t.Run("resync", func(t *testing.T) {
		s.adjusted(t)
		d.MustCtl(t, "-R")
		testbed.Eventually(t, patience, func() error { // -R works in the background, and sends nothing
			d.MustCtl(t, "-B")
			return same(testbed.Comparison{}, s.FW1.Table, peers(n))()
		})
	})
	t.Run("expectations", func(t *testing.T) { // one is open yet; those that were met are gone
		losses(nil).compare(t, inKernel(s.FW1), expectedBy(n, "peers"))
	})
	t.Run("commit", func(t *testing.T) {
		testbed.Eventually(t, patience, empty(s.FW2.Table))
		t.Log(must[string](t)(n.Sluice("role", "primary")))
		if err := same(committed, s.FW1.Table, s.FW2.Table)(); err != nil {
			t.Error(err)
		}
		if err := same(testbed.Comparison{}, s.FW2.Table, local(n))(); err != nil {
			t.Errorf("what sluice knows of its own kernel after the takeover: %v", err)
		}
		if err := empty(peers(n))(); err != nil {
			t.Errorf("a second commit would bring back the dead: %v", err)
		}
		// The takeover ends with one bulk update to the peers.
		testbed.Eventually(t, patience, same(testbed.Printed, s.FW2.Table, d.External))
	})
	undisturbed(t, d)
	unharmed(t, n)
}
