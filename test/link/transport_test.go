package link

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// Addresses of the two nodes on each of two links.
var (
	a4, b4 = netip.MustParsePrefix("192.168.171.1/24"), netip.MustParsePrefix("192.168.171.2/24")
	a6, b6 = netip.MustParsePrefix("fd71:99::1/64"), netip.MustParsePrefix("fd71:99::2/64")
)

// pair makes two namespaces with a cable between them.
func pair(t testing.TB) (a, b *testbed.Namespace) {
	t.Helper()
	a, b = testbed.MustNamespace(t, "a"), testbed.MustNamespace(t, "b")
	join(t, a, b)
	return a, b
}

// join lays a cable between two namespaces.
func join(t testing.TB, a, b *testbed.Namespace) {
	t.Helper()
	if err := testbed.Cable(a, testbed.SyncLink, b, testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(a.AddAddr(testbed.SyncLink, a4, a6), b.AddAddr(testbed.SyncLink, b4, b6)); err != nil {
		t.Fatal(err)
	}
}

// A transport is what a test is run for.
type transport struct {
	typ        string // of the plugins
	conntrackd string
	a, b       netip.Addr
}

var transports = []transport{
	{"multicast", "Multicast", a4.Addr(), b4.Addr()},
	{"multicast", "Multicast", a6.Addr(), b6.Addr()},
	{"udp", "UDP", a4.Addr(), b4.Addr()},
	{"udp", "UDP", a6.Addr(), b6.Addr()},
	{"tcp", "TCP", a4.Addr(), b4.Addr()},
	{"tcp", "TCP", a6.Addr(), b6.Addr()},
}

func (p transport) String() string { return p.typ + " " + p.a.String() }

// sink is the block of a sink at a that sends to b.
func (p transport) sink() string {
	if p.typ != "multicast" {
		return fmt.Sprintf(`{"destination":[%q],"interface":"sync","address":%q}`, p.b, p.a)
	}
	return fmt.Sprintf(`{"group":%q,"interface":"sync","address":%q}`, p.group(), p.a)
}

// source is the block of a source at b.
func (p transport) source() string {
	if p.typ != "multicast" {
		return fmt.Sprintf(`{"address":%q,"interface":"sync"}`, p.b)
	}
	return fmt.Sprintf(`{"group":%q,"interface":"sync"}`, p.group())
}

func (p transport) group() string {
	if p.a.Is4() {
		return "225.0.0.50"
	}
	return "ff15::50"
}

func eachTransport(t *testing.T, test func(t *testing.T, p transport)) {
	for _, p := range transports {
		t.Run(p.String(), func(t *testing.T) { test(t, p) })
	}
}

// What a sink sends arrives at a conntrackd.
func TestConntrackdReceives(t *testing.T) {
	eachTransport(t, func(t *testing.T, p transport) {
		testbed.Require(t, testbed.Conntrackd)
		a, b := pair(t)
		if err := b.Track(); err != nil {
			t.Fatal(err)
		}
		d := testbed.MustDaemon(t, b, testbed.ConntrackdConfig{Transport: p.conntrackd, Address: p.b, Peer: p.a, CommitTimeout: 180})
		s := newSink(t, a, p.typ, p.sink())
		testbed.Eventually(t, patience, p.reaches(s))
		// GRE flows between the same addresses are one to conntrackd.
		s.replay(7, flows(0, 550)...)
		testbed.Eventually(t, patience, s.replayed(7))
		testbed.Eventually(t, patience, knows(d.External, 545+1))
		s.write(flow.Header{}, ended(flowOf(3)))
		testbed.Eventually(t, patience, knows(d.External, 545))
		for _, words := range []string{"Malformed messages", "Packets lost", "Wrong protocol version", "Bad message size"} {
			if n, err := d.Counter("network", words); err != nil || n != 0 {
				t.Errorf("%s: %d, %v", words, n, err)
			}
		}
	})
}

// reaches is a condition: somebody can be reached.
func (p transport) reaches(s *sink) func() error {
	if p.typ != "tcp" {
		return func() error { return nil }
	}
	return s.host.given("link-up", 1)
}

func knows(table func() (testbed.Table, error), count int) func() error {
	return func() error {
		all, err := table()
		if err == nil && len(all) != count {
			err = fmt.Errorf("%d flows, want %d", len(all), count)
		}
		return err
	}
}

// What a conntrackd sends arrives at a source.
func TestFromConntrackd(t *testing.T) {
	t.Parallel()
	eachTransport(t, func(t *testing.T, p transport) {
		testbed.Require(t, testbed.Conntrackd)
		a, b := pair(t)
		if err := a.Track(); err != nil {
			t.Fatal(err)
		}
		s := newSource(t, b, p.typ, p.source())
		d := testbed.MustDaemon(t, a, testbed.ConntrackdConfig{
			Transport: p.conntrackd, Address: p.a, Peer: p.b, Protocols: []string{"TCP"}, Ignore: []netip.Addr{p.a, p.b},
		})
		testbed.Eventually(t, patience, s.given("peer-up", 1))
		a.MustInject(t, 300, testbed.Synthetic{Mark: 5})
		testbed.Eventually(t, patience, s.has(300, p.a))
		d.MustCtl(t, "-n")
		testbed.Eventually(t, patience, testbed.Holds(func() bool { return statistic(t, s, "resyncs_requested") == 1 }))
		if n := statistic(t, s, "malformed") + statistic(t, s, "messages_lost") + statistic(t, s, "attributes_unknown"); n != 0 {
			t.Errorf("%v", s.Statistics())
		}
	})
}

// What a sink sends arrives at a source, whole: marks, and what only the
// extension carries.
func TestBetweenNodes(t *testing.T) {
	eachTransport(t, func(t *testing.T, p transport) {
		a, b := pair(t)
		from := newSource(t, b, p.typ, p.source())
		to := newSink(t, a, p.typ, p.sink())
		testbed.Eventually(t, patience, p.reaches(to))
		to.write(flow.Header{}, flows(0, 1000)...)
		testbed.Eventually(t, patience, from.has(1000, p.a))
		to.replay(9, flows(1000, 3000)...)
		testbed.Eventually(t, patience, from.has(3000, p.a))
		testbed.Eventually(t, patience, from.ended(2000))
		to.write(flow.Header{}, ended(flowOf(99)), ended(flowOf(3)))
		testbed.Eventually(t, patience, from.has(2998, p.a))
		if n := statistic(t, from, "malformed") + statistic(t, from, "messages_lost") + statistic(t, from, "extensions_stray"); n != 0 {
			t.Errorf("%v", from.Statistics())
		}
		if peers := from.Peers(); len(peers) != 1 || peers[0].Name != "sink" || peers[0].Address != p.a {
			t.Errorf("peers %+v", peers)
		}
	})
}
