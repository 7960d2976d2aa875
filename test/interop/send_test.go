package interop

import (
	"net"
	"net/netip"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// changes makes flows change and end once they are known, and calls agree after
// each: a new mark, a connection closed by one side alone, entries that an
// administrator deletes, a port that is used again.
func (s *site) changes(t *testing.T, agree func(t *testing.T), peer source) {
	for i, f := range families {
		server := netip.AddrPortFrom(f.server, testbed.ServerPort)
		conn := s.echo(t, server)
		theFlow := between(conn.port(), testbed.ServerPort)

		t.Run("mark "+f.name, func(t *testing.T) {
			agree(t)
			if err := s.FW1.Rules("add rule inet testbed forward tcp sport " + portText(conn) + " ct mark set 0xfeed0001"); err != nil {
				t.Fatal(err)
			}
			conn.say(t, "a packet for the rule")
			agree(t)
			testbed.Eventually(t, patience, has(peer, 1, func(f testbed.Flow) bool { return theFlow(f) && f.Mark == 0xfeed0001 }))
		})
		t.Run("state "+f.name, func(t *testing.T) {
			if err := conn.Conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.lines.ReadByte(); err == nil {
				t.Fatal("the server goes on")
			}
			testbed.Eventually(t, patience, has(peer, 1, func(f testbed.Flow) bool { return theFlow(f) && f.TCP == testbed.TimeWait }))
			agree(t)
		})
		t.Run("related "+f.name, func(t *testing.T) {
			conn, port := s.related(t, i)
			is := func(state testbed.TCPState) func(testbed.Flow) bool {
				return func(f testbed.Flow) bool { return f.Orig.DstPort == port && f.TCP == state }
			}
			testbed.Eventually(t, patience, has(peer, 1, is(testbed.Established)))
			agree(t)
			if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
				t.Fatal(err)
			}
			conn.Close()
			testbed.Eventually(t, patience, has(peer, 1, is(testbed.Close)))
			agree(t)
		})
		t.Run("deleted "+f.name, func(t *testing.T) {
			match := func(flow testbed.Flow) bool {
				return flow.Proto == 17 && flow.Orig.DstPort == markPort && flow.Orig.Src.Is6() == f.server.Is6()
			}
			testbed.Eventually(t, patience, has(peer, 2, match))
			if _, err := s.FW1.Run("conntrack", "-D", "-f", lower(f.name), "-p", "udp", "--dport", "5003"); err != nil {
				t.Fatal(err)
			}
			testbed.Eventually(t, patience, has(peer, 0, match))
			agree(t)
		})
		t.Run("used again "+f.name, func(t *testing.T) {
			from := netip.AddrPortFrom(f.client, 777)
			for range 3 { // the kernel ends the old entry at the new SYN
				conn := must[net.Conn](t)(s.Client.Dial(t.Context(), "tcp", from, server))
				if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
					t.Fatal(err)
				}
				testbed.Eventually(t, patience, has(peer, 1, func(f testbed.Flow) bool {
					return between(777, testbed.ServerPort)(f) && f.Orig.Src == from.Addr() && f.TCP == testbed.Established
				}))
				conn.Close()
				testbed.Eventually(t, patience, has(peer, 1, func(f testbed.Flow) bool {
					return between(777, testbed.ServerPort)(f) && f.Orig.Src == from.Addr() && f.TCP == testbed.Close
				}))
			}
			agree(t)
		})
	}
}

// Sluice on firewall 1 tells conntrackd on firewall 2 everything that happens,
// again when one of them wishes so, and what conntrackd then commits is the
// table of firewall 1.
func TestConntrackdTakesWhatSluiceSends(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW2, testbed.ConntrackdConfig{})
	n := s.sluice(t, s.FW1, nil)
	s.traffic(t)
	agree := func(t *testing.T) {
		t.Helper()
		testbed.Eventually(t, patience, all(
			same(testbed.Comparison{}, s.FW1.Table, local(n)),
			same(testbed.Printed, s.FW1.Table, d.External),
		))
	}
	agree(t)
	everyKind(t, s.FW1.MustTable(t))
	s.changes(t, agree, d.External)

	forget := func(t *testing.T) {
		t.Helper()
		d.MustCtl(t, "-f", "external")
		testbed.Eventually(t, patience, empty(d.External))
	}
	t.Run("bulk", func(t *testing.T) {
		forget(t)
		t.Log(must[string](t)(n.Sluice("bulk")))
		agree(t)
	})
	t.Run("request", func(t *testing.T) {
		forget(t)
		d.MustCtl(t, "-n")
		agree(t)
	})
	t.Run("resync", func(t *testing.T) {
		s.adjusted(t)
		for _, command := range []string{"resync", "bulk"} {
			t.Log(must[string](t)(n.Sluice(command)))
		}
		agree(t)
	})
	t.Run("commit", func(t *testing.T) {
		testbed.Eventually(t, patience, empty(s.FW2.Table))
		d.MustCtl(t, "-c")
		testbed.Eventually(t, patience, same(committed, s.FW1.Table, s.FW2.Table))
	})
	undisturbed(t, d)
	unharmed(t, n)
}

// The messages by which sluice says more than conntrackd knows of are no more
// than signs of life to it, also in a bulk update that has one in each datagram.
func TestExtensionsMeanNothingToConntrackd(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW2, testbed.ConntrackdConfig{})
	wire := listen(t, s.FW2)
	// Room for all events, also if nobody reads them for a while.
	n := s.sluice(t, s.FW1, map[string]string{"netlink": "buffer_size = \"16MiB\"\n    buffer_size_max = \"16MiB\""})
	const flows = 3000
	for _, shape := range []testbed.Synthetic{
		{Mark: mark, SNAT: testbed.OutsideVIP.V4.Addr()}, {IPv6: true, UDP: true, Zone: zone},
	} {
		s.FW1.MustInject(t, flows, shape)
	}
	agree := same(testbed.Printed, s.FW1.Table, d.External)
	testbed.Eventually(t, patience, agree)
	for range 3 {
		d.MustCtl(t, "-f", "external")
		if _, err := n.Sluice("bulk"); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, patience, agree)
	}
	d.MustCtl(t, "-n")
	testbed.Eventually(t, patience, func() error {
		return wire.wants(map[byte]int{hello: 1, replayed: 3 * 2 * flows * 76 / 1472, begin: 4, end: 4})
	})
	testbed.Eventually(t, patience, n.Quiet)
	undisturbed(t, d)
	unharmed(t, n)
}

// Over IPv6 too, both ways.
func TestIPv6Link(t *testing.T) {
	s := newSite(t)
	d := testbed.MustDaemon(t, s.FW2.Namespace, testbed.ConntrackdConfig{Address: s.FW2.Sync.V6.Addr()})
	n := node.Must(t, binary, s.FW1, "sluice", overIPv6(node.Pipelines(nil)))
	s.traffic(t)
	s.FW1.MustInject(t, 300, testbed.Synthetic{IPv6: true, Mark: mark})
	testbed.Eventually(t, patience, same(testbed.Printed, s.FW1.Table, d.External))
	d.MustCtl(t, "-c")
	testbed.Eventually(t, patience, same(committed, s.FW1.Table, s.FW2.Table))

	// The other way: conntrackd hears of what it committed, but its own events
	// are not sent by themselves.
	d.MustCtl(t, "-B")
	testbed.Eventually(t, patience, same(committed, s.FW1.Table, peers(n)))
	undisturbed(t, d)
	unharmed(t, n)
}
