package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

var other4 = netip.MustParsePrefix("192.168.171.3/24") // another node at b's end

// Two peers are sent the same. One that is not there harms the other not, and
// when it is there again the runner is told.
func TestSeveralPeers(t *testing.T) {
	t.Parallel()
	for _, typ := range []string{"udp", "tcp"} {
		t.Run(typ, func(t *testing.T) {
			a, b := pair(t)
			if err := b.AddAddr(testbed.SyncLink, other4); err != nil {
				t.Fatal(err)
			}
			at := func(address netip.Addr) *source {
				return newSource(t, b, typ, fmt.Sprintf(`{"address":%q,"interface":"sync"}`, address))
			}
			one, two := at(b4.Addr()), at(other4.Addr())
			s := newSink(t, a, typ, fmt.Sprintf(`{"destination":[%q,%q],"interface":"sync"}`, b4.Addr(), other4.Addr()))
			if typ == "tcp" {
				testbed.Eventually(t, patience, s.given("link-up", 2))
			}
			s.write(flow.Header{}, flows(0, 500)...)
			testbed.Eventually(t, patience, one.has(500, a4.Addr()))
			testbed.Eventually(t, patience, two.has(500, a4.Addr()))
			before := s.times("link-up")

			two.stop()
			testbed.Eventually(t, patience, func() error { // until it notices
				s.write(flow.Header{}, flowOf(1))
				if statistic(t, s, "send_absent") == 0 {
					return errors.New("nothing was for somebody who is not there")
				}
				return nil
			})
			s.replay(8, flows(500, 600)...)
			testbed.Eventually(t, patience, s.replayed(8))
			testbed.Eventually(t, patience, one.has(600, a4.Addr()))
			two = at(other4.Addr())
			testbed.Eventually(t, patience, s.given("link-up", before+1))
			s.replay(9, flows(0, 600)...)
			testbed.Eventually(t, patience, two.has(600, a4.Addr()))
			testbed.Eventually(t, patience, two.ended(600))
			if n := statistic(t, one, "messages_lost") + statistic(t, one, "malformed") + statistic(t, two, "malformed"); n != 0 {
				t.Errorf("%d messages lost or malformed", n)
			}
			if s.times("link-down") != 0 {
				t.Error("the link is down, since one of two peers is not there")
			}
		})
	}
}

// A peer that takes nothing holds up the pipeline no more than a moment a batch;
// what it misses is counted, and when it takes data again the runner is told.
// The stream stays in one piece.
func TestSlowPeer(t *testing.T) {
	a, b := pair(t)
	var from *source
	listener, err := b.Listen("tcp", netip.AddrPortFrom(b4.Addr(), 3780).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	s := newSink(t, a, "tcp", fmt.Sprintf(`{"destination":[%q],"interface":"sync","send_buffer":"32KiB"}`, b4.Addr()))
	conn, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.(*net.TCPConn).SetReadBuffer(32 << 10); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, s.given("link-up", 1))
	begin := time.Now()
	for i := 0; statistic(t, s, "send_queue_full") == 0; i++ {
		s.write(flow.Header{}, flows(0, 300)...)
		if time.Since(begin) > patience {
			t.Fatal("an endless buffer")
		}
	}
	begin = time.Now()
	for range 100 { // it is known to be slow: no more waiting
		s.write(flow.Header{}, flows(0, 300)...)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("100 batches took %v", took)
	}
	// Relay all of it to a source that checks every byte.
	from = newSource(t, b, "tcp", `{"address":"192.168.171.2","port":3781,"interface":"sync"}`)
	relay, err := a.Dial(t.Context(), "tcp", netip.AddrPort{}, netip.AddrPortFrom(b4.Addr(), 3781))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { relay.Close() })
	go io.Copy(relay, conn)
	testbed.Eventually(t, patience, s.given("link-up", 2))
	s.replay(7, flows(0, 400)...)
	testbed.Eventually(t, patience, from.has(400, a4.Addr()))
	testbed.Eventually(t, patience, from.ended(400))
	if n := statistic(t, from, "malformed") + statistic(t, from, "receive_errors") + statistic(t, from, "extensions_stray"); n != 0 {
		t.Errorf("%v", from.Statistics())
	}
}

// A connection whose peer has gone without a word is noticed at both ends.
func TestDeadConnection(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	p := transports[len(transports)-2]
	from, to := newSource(t, b, p.typ, p.source()), newSink(t, a, p.typ, p.sink())
	testbed.Eventually(t, patience, to.given("link-up", 1))
	testbed.Eventually(t, patience, from.given("peer-up", 1))
	const cut = `table netdev cut { chain in { type filter hook ingress device sync priority 0; drop; }; }`
	if err := errors.Join(a.Rules(cut), b.Rules(cut)); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, to.given("link-down", 1))
	testbed.Eventually(t, patience, testbed.Holds(func() bool { return len(openConnections(t, b)) == 0 }))
	const mend = `delete table netdev cut`
	if err := errors.Join(a.Rules(mend), b.Rules(mend)); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, to.given("link-up", 2))
	to.write(flow.Header{}, flows(0, 10)...)
	testbed.Eventually(t, patience, from.has(10, p.a))
}

// openConnections lists the words of ss(8) about the namespace's established TCP
// connections.
func openConnections(t *testing.T, n *testbed.Namespace) []string {
	t.Helper()
	out, err := n.Run("ss", "-Htn", "state", "established")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(out)
}

// Whoever connects and sends nonsense is cut off, and so are the connections that
// are too many, and those from elsewhere. Good ones are not disturbed.
func TestHostileConnections(t *testing.T) {
	a, b := pair(t)
	alias := netip.MustParsePrefix("192.168.171.77/24")
	if err := a.AddAddr(testbed.SyncLink, alias); err != nil {
		t.Fatal(err)
	}
	from := newSource(t, b, "tcp", `{"address":"192.168.171.2","interface":"sync","accept_from":["192.168.171.0/26"]}`)
	dial := func(local netip.Addr) net.Conn {
		conn, err := a.Dial(t.Context(), "tcp", netip.AddrPortFrom(local, 0), netip.AddrPortFrom(b4.Addr(), 3780))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	ends := func(t *testing.T, conn net.Conn) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(patience))
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("it was not cut off: %v", err)
		}
	}
	for name, p := range map[string][]byte{
		"a length of nothing":      {0x10, 0, 0, 0, 0, 0, 0, 1},
		"less than a header":       {0x10, 0, 0, 7, 0, 0, 0, 1},
		"a frame without an end":   frame(1 << 20),
		"a message, and then none": append([]byte{0x1a, 0x10, 0, 8, 0, 0, 0, 1}, make([]byte, 100)...),
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(a4.Addr())
			if _, err := conn.Write(p); err != nil {
				t.Fatal(err)
			}
			ends(t, conn)
		})
	}
	t.Run("from elsewhere", func(t *testing.T) {
		ends(t, dial(alias.Addr()))
		testbed.Eventually(t, patience, testbed.Holds(func() bool { return statistic(t, from, "datagrams_refused") == 1 }))
	})
	t.Run("too many", func(t *testing.T) {
		first := dial(a4.Addr())
		dial(a4.Addr())
		dial(a4.Addr())
		ends(t, first)
	})
	s := newSink(t, a, "tcp", `{"destination":["192.168.171.2"],"interface":"sync","address":"192.168.171.1"}`)
	testbed.Eventually(t, patience, s.given("link-up", 1))
	s.write(flow.Header{}, flows(0, 10)...)
	testbed.Eventually(t, patience, from.has(10, a4.Addr()))
}

// frame is the mark that n bytes follow that were sent at once.
func frame(n uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{0x1a, 0x10, 0, 20, 0, 0, 0, 1, 'S', 'L', 1, 0, 0, 8, 0, 7}, n)
}
