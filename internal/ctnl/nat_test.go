package ctnl

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// restore reads the table, empties it and the NAT rules, and commits what it
// read. Packets are translated afterwards because of the entries alone.
func restore(t *testing.T, fw *testbed.Firewall, w *Writer) (before testbed.Table) {
	t.Helper()
	if _, err := fw.Run("nft", "flush", "table", "ip", "nat"); err != nil {
		t.Fatal(err)
	}
	if _, err := fw.Run("nft", "flush", "table", "ip6", "nat"); err != nil {
		t.Fatal(err)
	}
	before = fw.MustTable(t)
	flows := dump(t, fw.Namespace, Filter{})
	if err := fw.Flush(); err != nil {
		t.Fatal(err)
	}
	for i := range flows {
		flows[i].Timeout = 180
		if err := w.Commit(&flows[i].Flow); err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Created != uint64(len(flows)) || c.Failed() > 0 {
		t.Fatalf("%d flows: %+v", len(flows), c)
	}
	if diff := testbed.Diff(before, fw.MustTable(t)); diff != "" {
		t.Fatalf("restored table differs:\n%s", diff)
	}
	return before
}

// mustComplete waits for a transfer's end: a firewall that drops its packets
// would keep it waiting for many minutes.
func mustComplete(t *testing.T, transfer *testbed.Transfer) {
	t.Helper()
	select {
	case <-transfer.Done():
	case <-time.After(patience):
		t.Fatalf("the stream stands still after %d bytes", transfer.Moved())
	}
	if err := transfer.Wait(); err != nil {
		t.Fatal(err)
	}
}

func families(t *testing.T, run func(t *testing.T, server, snat netip.Addr)) {
	t.Run("ipv4", func(t *testing.T) {
		run(t, testbed.ServerAddr.V4.Addr(), testbed.OutsideVIP.V4.Addr())
	})
	t.Run("ipv6", func(t *testing.T) {
		run(t, testbed.ServerAddr.V6.Addr(), testbed.OutsideVIP.V6.Addr())
	})
}

func TestRestoredTCPIsTranslated(t *testing.T) {
	families(t, func(t *testing.T, server, snat netip.Addr) {
		s := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true})
		testbed.MustServer(t, s.Server, testbed.ServerPort)
		w := mustWriter(t, s.FW.Namespace, WriterConfig{})
		transfer := s.Client.MustTransfer(t, testbed.TransferConfig{
			To: netip.AddrPortFrom(server, testbed.ServerPort), Size: 24 << 20, Rate: 12 << 20, Seed: 7,
		})
		testbed.Eventually(t, patience, transfer.Progress(1<<20))
		before := restore(t, s.FW, w)
		if _, err := before.One(testbed.Flow.Translated); err != nil {
			t.Fatal(err)
		}
		mustComplete(t, transfer)
	})
}

func TestRestoredUDPIsTranslated(t *testing.T) {
	families(t, func(t *testing.T, server, snat netip.Addr) {
		s := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true})
		w := mustWriter(t, s.FW.Namespace, WriterConfig{})
		far, err := s.Server.ListenPacket("udp", netip.AddrPortFrom(server, 7000).String())
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		near, err := s.Client.Dial(context.Background(), "udp", netip.AddrPort{}, netip.AddrPortFrom(server, 7000))
		if err != nil {
			t.Fatal(err)
		}
		defer near.Close()
		first := exchange(t, near, far)
		restore(t, s.FW, w)
		if second := exchange(t, near, far); second != first || second.Addr() != snat {
			t.Fatalf("the server saw %v, then %v, not both %v", first, second, snat)
		}
		mustCount(t, "entries", uint64(len(dump(t, s.FW.Namespace, Filter{}))), 1)
	})
}

// exchange sends one datagram there and one back and returns whom the far end
// saw.
func exchange(t *testing.T, near net.Conn, far net.PacketConn) netip.AddrPort {
	t.Helper()
	var b [16]byte
	if _, err := near.Write([]byte("ping")); err != nil {
		t.Fatal(err)
	}
	_, from, err := far.ReadFrom(b[:])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := far.WriteTo([]byte("pong"), from); err != nil {
		t.Fatal(err)
	}
	if _, err := near.Read(b[:]); err != nil {
		t.Fatal(err)
	}
	return from.(*net.UDPAddr).AddrPort()
}

func TestRestoredEchoIsTranslated(t *testing.T) {
	families(t, func(t *testing.T, server, snat netip.Addr) {
		s := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true})
		w := mustWriter(t, s.FW.Namespace, WriterConfig{})
		echo := testbed.Echo{To: server, ID: 4711, Count: 2}
		if err := s.Client.Ping(echo); err != nil {
			t.Fatal(err)
		}
		restore(t, s.FW, w)
		committed := dump(t, s.FW.Namespace, Filter{})
		if err := s.Client.Ping(echo); err != nil {
			t.Fatal(err)
		}
		after := dump(t, s.FW.Namespace, Filter{})
		if len(after) != 1 || after[0].ID != committed[0].ID {
			t.Fatalf("the echo did not use the entry that was committed: %+v", after)
		}
		if to, _ := after[0].SourceNAT(); flow.Address(after[0].Family, to.Address) != snat {
			t.Fatalf("translated to %v", to)
		}
	})
}

// DNAT, and both at once, in both families.
func TestRestoredDestinationNATIsTranslated(t *testing.T) {
	families(t, func(t *testing.T, server, snat netip.Addr) {
		for _, both := range []bool{false, true} {
			s := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: both})
			testbed.MustServer(t, s.Server, testbed.ServerPort)
			w := mustWriter(t, s.FW.Namespace, WriterConfig{})
			family, inside := "ip", testbed.InsideVIP.V4.Addr()
			if server.Is6() {
				family, inside = "ip6", testbed.InsideVIP.V6.Addr()
			}
			to := netip.AddrPortFrom(server, testbed.ServerPort).String()
			if err := s.FW.Rules(`table ` + family + ` nat {
				chain slcdnat { type nat hook prerouting priority dstnat; tcp dport 8080 dnat to ` + to + `; }
			}`); err != nil {
				t.Fatal(err)
			}
			transfer := s.Client.MustTransfer(t, testbed.TransferConfig{
				To: netip.AddrPortFrom(inside, 8080), Size: 16 << 20, Rate: 12 << 20, Seed: 9, Upload: true,
			})
			testbed.Eventually(t, patience, transfer.Progress(1<<20))
			restore(t, s.FW, w)
			mustComplete(t, transfer)
		}
	})
}
