package interop

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// downloads begins downloads of so many bytes, 4 MiB a second each: for each
// family one through source NAT, one through destination NAT, and one in a zone.
func (s *site) downloads(t *testing.T, size int64) (transfers []*testbed.Transfer) {
	t.Helper()
	for i, f := range families {
		for j, to := range []netip.AddrPort{
			netip.AddrPortFrom(f.server, testbed.ServerPort),
			netip.AddrPortFrom(f.insideVIP, dnatPort),
			netip.AddrPortFrom(f.server, zonePort),
		} {
			transfers = append(transfers, s.Client.MustTransfer(t, testbed.TransferConfig{
				To: to, Size: size, Rate: 4 << 20, Seed: uint64(10*i + j),
			}))
		}
	}
	progress(t, transfers)
	return transfers
}

// progress waits until some of each transfer has come through.
func progress(t *testing.T, transfers []*testbed.Transfer) {
	t.Helper()
	conditions := make([]func() error, len(transfers))
	for i, transfer := range transfers {
		conditions[i] = transfer.Progress(1 << 20)
	}
	testbed.Eventually(t, patience, all(conditions...))
}

// know is a condition: a source knows all these connections.
func know(s source, transfers []*testbed.Transfer) func() error {
	conditions := make([]func() error, len(transfers))
	for i, transfer := range transfers {
		local := transfer.Local()
		conditions[i] = has(s, 1, func(f testbed.Flow) bool {
			return f.Orig.Src == local.Addr() && f.Orig.SrcPort == local.Port() && f.TCP == testbed.Established
		})
	}
	return all(conditions...)
}

// handOver moves the addresses to a firewall, while all downloads go on.
func (s *site) handOver(t *testing.T, to *testbed.Firewall, transfers []*testbed.Transfer) {
	t.Helper()
	for _, transfer := range transfers {
		select {
		case <-transfer.Done():
			t.Fatal("a download ended before the takeover: the test tests nothing")
		default:
		}
	}
	if err := s.MoveTo(to); err != nil {
		t.Fatal(err)
	}
}

// finish waits until all arrived as they were sent.
func finish(t *testing.T, transfers []*testbed.Transfer) {
	t.Helper()
	for _, transfer := range transfers {
		if err := transfer.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// Firewall 1 dies with its sluice; conntrackd on firewall 2 takes over.
func TestDownloadsSurviveTakeoverBySluicesPeer(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW2, testbed.ConntrackdConfig{CommitTimeout: 180})
	n := s.sluice(t, s.FW1, nil)
	transfers := s.downloads(t, 12<<20)
	testbed.Eventually(t, patience, know(d.External, transfers))
	n.Kill()
	if err := s.LinksDown(s.FW1); err != nil {
		t.Fatal(err)
	}
	d.MustCtl(t, "-c")
	testbed.Eventually(t, patience, know(s.FW2.Table, transfers))
	s.handOver(t, s.FW2, transfers)
	finish(t, transfers)
	undisturbed(t, d)
}

// Firewall 1 dies with its conntrackd; sluice on firewall 2 takes over.
func TestDownloadsSurviveTakeoverBySluice(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW1, testbed.ConntrackdConfig{})
	n := s.sluice(t, s.FW2, nil)
	transfers := s.downloads(t, 12<<20)
	testbed.Eventually(t, patience, know(peers(n), transfers))
	d.Kill()
	if err := s.LinksDown(s.FW1); err != nil {
		t.Fatal(err)
	}
	t.Log(must[string](t)(n.Sluice("role", "primary")))
	if err := know(s.FW2.Table, transfers)(); err != nil {
		t.Error(err)
	}
	s.handOver(t, s.FW2, transfers)
	finish(t, transfers)
	unharmed(t, n)
}

// Both firewalls live and pass the connections to and fro, as keepalived's
// script has them do.
func TestDownloadsSurviveHandoverAndBack(t *testing.T) {
	s := newSite(t)
	n := s.sluice(t, s.FW1, map[string]string{"kernel": "commit_timeout = \"180s\"\n    purge_timeout = \"1s\""})
	d := s.conntrackd(t, s.FW2, testbed.ConntrackdConfig{PurgeTimeout: 1})
	transfers := s.downloads(t, 20<<20)
	testbed.Eventually(t, patience, know(d.External, transfers))

	// To conntrackd: it becomes primary, sluice backup.
	primary(t, d, s.FW2)
	s.handOver(t, s.FW2, transfers)
	stepped := background(func() error { _, err := n.Sluice("role", "backup"); return err })
	progress(t, transfers)
	testbed.Eventually(t, patience, know(peers(n), transfers))
	testbed.Eventually(t, patience, has(s.FW1.Table, 0, func(f testbed.Flow) bool { return f.TCP == testbed.Established })) // purged

	// And back, as soon as anybody wishes.
	t.Log(must[string](t)(n.Sluice("role", "primary")))
	s.handOver(t, s.FW1, transfers)
	for _, command := range []string{"-t", "-n"} {
		d.MustCtl(t, command)
	}
	finish(t, transfers)
	testbed.Eventually(t, patience, same(testbed.Printed, s.FW1.Table, d.External))
	if err := <-stepped; err != nil {
		t.Error(err)
	}
	undisturbed(t, d)
	unharmed(t, n)
}

// primary has conntrackd take over with its usual commands.
func primary(t *testing.T, d *testbed.Daemon, fw *testbed.Firewall) {
	t.Helper()
	known := must[testbed.Table](t)(d.External())
	d.MustCtl(t, "-c")
	testbed.Eventually(t, patience, same(testbed.Printed, func() (testbed.Table, error) { return known, nil }, fw.Table))
	for _, command := range []string{"-f", "-R", "-B"} {
		d.MustCtl(t, command)
	}
}

// background calls f and passes on what it returns.
func background(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// A node that was made backup asks its peers for everything, and a conntrackd
// that carries traffic never says when that is over. A takeover must not wait
// for it.
func TestTakeoverDoesNotWaitForAnAnswerWithoutEnd(t *testing.T) {
	s := newSite(t)
	s.conntrackd(t, s.FW1, testbed.ConntrackdConfig{})
	n := s.sluice(t, s.FW2, nil)
	ctx, cancel := context.WithCancel(t.Context())
	traffic := background(func() error {
		_, err := s.Client.Churn(ctx, testbed.Churn{
			To: testbed.At(testbed.ServerAddr.V4), Count: 1 << 20, Rate: 50, Ending: testbed.Reset,
		})
		return err
	})
	t.Cleanup(func() { cancel(); <-traffic })
	stepped := background(func() error { _, err := n.Sluice("role", "backup"); return err })
	testbed.Eventually(t, patience, func() error {
		status, err := n.Status()
		if err == nil && status.Purge == nil {
			err = errors.New("not backup yet")
		}
		return err
	})
	took := background(func() error { _, err := n.Sluice("role", "primary"); return err })
	select {
	case err := <-took:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Errorf("no takeover within %v", patience)
	}
	cancel()
	if err := <-stepped; err != nil {
		t.Error(err)
	}
}
