package testbed

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSingleForwardsBothFamilies(t *testing.T) {
	for _, snat := range []bool{false, true} {
		t.Run(fmt.Sprintf("snat=%v", snat), func(t *testing.T) {
			s := MustSingle(t, FirewallConfig{SNAT: snat})
			server := MustServer(t, s.Server, ServerPort)
			everyTraffic(t, s.Client)
			checkFlows(t, s.FW, snat)
			if server.Accepted() != 4 {
				t.Errorf("server accepted %d connections, not 4", server.Accepted())
			}
		})
	}
}

func TestPairForwardsByEitherFirewall(t *testing.T) {
	p := MustPair(t, FirewallConfig{SNAT: true})
	MustServer(t, p.Server, ServerPort)
	everyTraffic(t, p.Client)
	checkFlows(t, p.FW1, true)
	if n, err := p.FW2.Count(); n != 0 || err != nil {
		t.Errorf("the backup tracks %d flows (%v)", n, err)
	}
	if err := p.MoveTo(p.FW2); err != nil {
		t.Fatal(err)
	}
	if p.Active() != p.FW2 || p.Other(p.FW2) != p.FW1 {
		t.Error("active and other are wrong")
	}
	if err := p.FW1.Flush(); err != nil {
		t.Fatal(err)
	}
	everyTraffic(t, p.Client)
	checkFlows(t, p.FW2, true)
	if table := p.FW1.MustTable(t); len(table) > 0 {
		t.Errorf("the old one still gets packets:\n%s", table)
	}
}

func TestPairTakeoverWithCablesPulled(t *testing.T) {
	p := MustPair(t, FirewallConfig{})
	p.Client.MustPing(t, ServerAddr.V4.Addr())
	if err := p.LinksDown(p.FW1); err != nil {
		t.Fatal(err)
	}
	if err := p.Client.Ping(Echo{To: ServerAddr.V4.Addr(), Timeout: time.Millisecond}); err == nil {
		t.Error("packets pass without cables")
	}
	if err := p.MoveTo(p.FW2); err != nil {
		t.Fatal(err)
	}
	p.Client.MustPing(t, ServerAddr.V4.Addr())
	p.Client.MustPing(t, ServerAddr.V6.Addr())
	if err := p.LinksUp(p.FW1); err != nil {
		t.Fatal(err)
	}
	if err := p.MoveTo(p.FW1); err != nil {
		t.Fatal(err)
	}
	p.Client.MustPing(t, ServerAddr.V4.Addr())
	p.Client.MustPing(t, ServerAddr.V6.Addr())
}

func TestSyncLink(t *testing.T) {
	p := MustPair(t, FirewallConfig{})
	ping := func() error {
		return errors.Join(
			p.FW1.Ping(Echo{To: p.FW2.Sync.V4.Addr(), Timeout: 100 * time.Millisecond}),
			p.FW1.Ping(Echo{To: p.FW2.Sync.V6.Addr(), Timeout: 100 * time.Millisecond}))
	}
	file := filepath.Join(t.TempDir(), "sync.pcap")
	capture := MustCapture(t, p.FW2.Namespace, SyncLink, file, "icmp")
	Eventually(t, shortWait, ping)
	if err := capture.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := p.FW2.Run("tcpdump", "-nr", file); err != nil || out == "" {
		t.Errorf("captured %q, %v", out, err)
	}
	if n, err := p.FW2.Count(); n != 0 || err != nil {
		t.Errorf("sync traffic is tracked: %d flows, %v", n, err)
	}
	for name, change := range map[string][2]func() error{
		"down": {p.SyncDown, p.SyncUp},
		"lossy": {
			func() error { return p.SyncLoss(p.FW2, 100) },
			func() error { return p.SyncLoss(p.FW2, 0) },
		},
	} {
		if err := change[0](); err != nil {
			t.Fatal(err)
		}
		if err := ping(); err == nil {
			t.Errorf("%s: packets pass", name)
		}
		if err := change[1](); err != nil {
			t.Fatal(err)
		}
		Eventually(t, shortWait, ping)
	}
}

// everyTraffic sends all kinds of traffic through what is between.
func everyTraffic(t *testing.T, client *Namespace) {
	t.Helper()
	for _, server := range []netip.Prefix{ServerAddr.V4, ServerAddr.V6} {
		client.MustPing(t, server.Addr())
		client.MustUDP(t, UDP{To: At(server), Count: 2, Exchanges: 2, Sources: ClientSources(server.Addr().Is6())})
		down := client.MustTransfer(t, TransferConfig{To: At(server), Size: 1 << 20, Seed: 7, Rate: 64 << 20})
		up := client.MustTransfer(t, TransferConfig{To: At(server), Size: 1 << 20, Seed: 8, Upload: true})
		if err := errors.Join(down.Wait(), up.Wait()); err != nil {
			t.Fatal(err)
		}
		if down.Moved() != 1<<20 || up.Moved() != 1<<20 || !down.Local().IsValid() {
			t.Errorf("moved %d down, %d up from %s", down.Moved(), up.Moved(), down.Local())
		}
	}
}

// checkFlows looks for everyTraffic's flows in a firewall's table.
func checkFlows(t *testing.T, fw *Firewall, snat bool) {
	t.Helper()
	kinds := map[string]int{}
	for _, f := range fw.MustTable(t) {
		if f.Translated() != snat || (f.Status&StatusSrcNAT != 0) != snat || f.Status&StatusSeenReply == 0 {
			t.Errorf("snat=%v: %s", snat, f)
		}
		if f.Proto == unix.IPPROTO_TCP && f.TCP < TimeWait-1 && f.TCP != TCPState(5) && f.TCP != TCPState(4) {
			t.Errorf("did not end: %s", f)
		}
		kinds[protoName(f.Proto)]++
	}
	if got := fmt.Sprint(kinds); got != "map[icmp:1 icmpv6:1 tcp:4 udp:4]" {
		t.Errorf("flows: %s", got)
	}
}

func TestFlowBreaksWhereStateIsMissing(t *testing.T) {
	p := MustPair(t, FirewallConfig{SNAT: true})
	MustServer(t, p.Server, ServerPort)
	transfer := p.Client.MustTransfer(t, TransferConfig{To: At(ServerAddr.V4), Size: 1 << 30, Rate: 1 << 20})
	Eventually(t, shortWait, transfer.Progress(1<<16))
	if err := p.MoveTo(p.FW2); err != nil {
		t.Fatal(err)
	}
	// New connections pass by now, so what the old one lacks is its state.
	p.Client.MustPing(t, ServerAddr.V4.Addr())
	dropped := awaitInvalid(t, p.FW2, 0)
	stalled := transfer.Moved()
	awaitInvalid(t, p.FW2, dropped)
	if moved := transfer.Moved(); moved != stalled {
		t.Errorf("the transfer went on from %d to %d without its state", stalled, moved)
	}
	if err := p.MoveTo(p.FW1); err != nil {
		t.Fatal(err)
	}
	Eventually(t, 30*time.Second, transfer.Progress(1<<16)) // where the state is, it does
}

func TestTransferEndsWithItsContext(t *testing.T) {
	n := MustNamespace(t, "local")
	MustServer(t, n, ServerPort)
	ctx, cancel := context.WithCancel(t.Context())
	to := netip.AddrPortFrom(netip.IPv6Loopback(), ServerPort)
	transfer, err := n.Transfer(ctx, TransferConfig{To: to, Size: 1 << 40, Rate: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := transfer.Wait(); !errors.Is(err, context.Canceled) {
		t.Fatalf("ended with %v", err)
	}
}

// awaitInvalid waits until the firewall has dropped more packets for itself as
// invalid, and returns their number.
func awaitInvalid(t *testing.T, fw *Firewall, more int) (packets int) {
	t.Helper()
	Eventually(t, 30*time.Second, func() error {
		out, err := fw.Run("nft", "list", "chain", "inet", "testbed", "input")
		if err != nil {
			return err
		}
		_, rest, _ := strings.Cut(out, "counter packets ")
		if _, err := fmt.Sscan(rest, &packets); err != nil {
			return err
		}
		if packets <= more {
			return fmt.Errorf("%d packets dropped, not more than %d", packets, more)
		}
		return nil
	})
	return packets
}
