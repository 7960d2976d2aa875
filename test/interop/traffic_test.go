package interop

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
)

// Ports of the servers behind firewalls, beside testbed.ServerPort. Rules of
// the firewalls do something to the flows to each.
const (
	zonePort   = 5002 // a conntrack zone
	markPort   = 5003 // a mark, and labels
	helperPort = 5004 // a helper
	dnatPort   = 8080 // of the virtual address: leads to the other side's server
	closedPort = 5999 // nobody answers
)

const (
	mark = 0x2a01
	zone = 5
)

// rules are the firewalls' rules beside SNAT.
const rules = `
table inet testbed {
	ct helper ftp { type "ftp" protocol tcp; }
	chain prerouting {
		tcp dport 5002 ct zone set 5
		tcp sport 5002 ct zone set 5
	}
	chain forward {
		meta l4proto { tcp, udp } th dport 5003 ct mark set 0x2a01
		tcp dport 5003 ct label set 3
		tcp dport 5004 ct helper set "ftp"
	}
}
table ip nat {
	chain prerouting {
		iifname inside meta l4proto { tcp, udp } th dport 8080 dnat to 10.71.2.2:5001
		iifname outside tcp dport 8080 dnat to 10.71.1.2:5001
	}
}
table ip6 nat {
	chain prerouting {
		iifname inside meta l4proto { tcp, udp } th dport 8080 dnat to [fd71:2::2]:5001
		iifname outside tcp dport 8080 dnat to [fd71:1::2]:5001
	}
}
`

// longTimeouts keep what traffic leaves until it has been compared.
var longTimeouts = map[string]string{
	"net.netfilter.nf_conntrack_udp_timeout":       "300",
	"net.netfilter.nf_conntrack_icmp_timeout":      "300",
	"net.netfilter.nf_conntrack_icmpv6_timeout":    "300",
	"net.netfilter.nf_conntrack_tcp_timeout_close": "300",
}

// families are the two ends' addresses by family.
var families = []struct {
	name                                  string
	client, server, insideVIP, outsideVIP netip.Addr
}{
	{"IPv4", testbed.ClientAddr.V4.Addr(), testbed.ServerAddr.V4.Addr(), testbed.InsideVIP.V4.Addr(), testbed.OutsideVIP.V4.Addr()},
	{"IPv6", testbed.ClientAddr.V6.Addr(), testbed.ServerAddr.V6.Addr(), testbed.InsideVIP.V6.Addr(), testbed.OutsideVIP.V6.Addr()},
}

// endings end connections in every way.
func endings(i int) testbed.Ending {
	return []testbed.Ending{testbed.LeftOpen, testbed.Orderly, testbed.Reset}[i%3]
}

// traffic makes flows of every kind that the rules tell apart, both families:
// source NAT, destination NAT, both; address and port; marks, labels, a zone, a
// helper and what it expected; TCP in all its lasting states, UDP answered and
// not, ICMP.
func (s *site) traffic(t *testing.T) {
	t.Helper()
	for i, f := range families {
		for _, to := range []netip.AddrPort{
			netip.AddrPortFrom(f.server, testbed.ServerPort), // source NAT
			netip.AddrPortFrom(f.insideVIP, dnatPort),        // source and destination NAT
			netip.AddrPortFrom(f.server, markPort),
			netip.AddrPortFrom(f.server, zonePort),
			netip.AddrPortFrom(f.server, helperPort),
		} {
			s.Client.MustChurn(t, testbed.Churn{To: to, Count: 3, Payload: 100, Endings: endings})
		}
		s.Server.MustChurn(t, testbed.Churn{To: netip.AddrPortFrom(f.outsideVIP, dnatPort), Count: 3, Endings: endings}) // destination NAT alone
		for _, to := range []netip.AddrPort{
			netip.AddrPortFrom(f.server, testbed.ServerPort),
			netip.AddrPortFrom(f.insideVIP, dnatPort),
			netip.AddrPortFrom(f.server, markPort),
		} {
			s.Client.MustUDP(t, testbed.UDP{To: to, Count: 2})
		}
		s.Client.MustPing(t, f.server)
		s.unanswered(t, netip.AddrPortFrom(f.server, closedPort))
		s.related(t, i)
	}
}

// unanswered sends a UDP datagram that nobody answers.
func (s *site) unanswered(t *testing.T, to netip.AddrPort) {
	t.Helper()
	conn := s.dial(t, s.Client, "udp", to)
	if _, err := conn.Write([]byte("anybody?")); err != nil {
		t.Fatal(err)
	}
}

// dial connects; the connection is closed when the test ends.
func (s *site) dial(t *testing.T, from *testbed.Namespace, network string, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := from.Dial(t.Context(), network, netip.AddrPort{}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// An echo is a TCP connection whose server sends back what it gets.
type echo struct {
	net.Conn
	lines *bufio.Reader
}

func (s *site) echo(t *testing.T, to netip.AddrPort) *echo {
	t.Helper()
	conn := s.dial(t, s.Client, "tcp", to)
	e := &echo{conn, bufio.NewReader(conn)}
	if _, err := fmt.Fprint(e, "ECHO\n"); err != nil {
		t.Fatal(err)
	}
	e.say(t, "hello")
	return e
}

// port is the client's.
func (e *echo) port() uint16 { return netip.MustParseAddrPort(e.LocalAddr().String()).Port() }

// say sends a line, and waits until it comes back.
func (e *echo) say(t *testing.T, line string) (answer string) {
	t.Helper()
	if err := e.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(e, "%s\r\n", line); err != nil {
		t.Fatal(err)
	}
	answer, err := e.lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(answer)
}

// related makes a flow that the firewall's FTP helper expects: the client tells
// the server over a connection that the helper reads where to connect to. It
// returns that connection and its port at the client.
func (s *site) related(t *testing.T, family int) (net.Conn, uint16) {
	t.Helper()
	f := families[family]
	_, port := s.offer(t, f.server, f.client, f.outsideVIP, f.client.StringExpanded())
	return s.dial(t, s.Server, "tcp", netip.AddrPortFrom(f.outsideVIP, port)), port
}

// offer makes the client listen and tell the server so, by an address in the
// given spelling. The helper translates that to the virtual address, so that
// the server, which sends it back, tells whether the helper worked. It writes
// IPv6 addresses at full length: if the client did not, the helper moves the
// sequence numbers that follow.
func (s *site) offer(t *testing.T, server, client, vip netip.Addr, spelling string) (*echo, uint16) {
	t.Helper()
	listener, err := s.Client.Listen("tcp", netip.AddrPortFrom(client, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	port := netip.MustParseAddrPort(listener.Addr().String()).Port()
	command := func(address string) string {
		if client.Is6() {
			return fmt.Sprintf("EPRT |2|%s|%d|", address, port)
		}
		return fmt.Sprintf("PORT %s,%d,%d", strings.ReplaceAll(address, ".", ","), port>>8, port&0xff)
	}
	control := s.echo(t, netip.AddrPortFrom(server, helperPort))
	if got, want := control.say(t, command(spelling)), command(vip.StringExpanded()); got != want {
		t.Fatalf("the helper made %q of %q, not %q", got, command(spelling), want)
	}
	return control, port
}

// adjusted makes a connection whose sequence numbers the helper moves. The
// kernel sends no event for that: whoever is to know must read the table again.
func (s *site) adjusted(t *testing.T) {
	t.Helper()
	f := families[1]
	control, _ := s.offer(t, f.server, f.client, f.outsideVIP, f.client.String())
	testbed.Eventually(t, patience, has(s.FW1.Table, 1, func(f testbed.Flow) bool {
		return between(control.port(), helperPort)(f) && f.SeqAdjust != [2]testbed.SeqAdjust{}
	}))
}
