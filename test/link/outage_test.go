package link

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/testbed"
)

// Stages begin while their interface is not there, and say so; nothing that they
// are told to send passes for sent. When the interface comes they work.
func TestInterfaceComesLater(t *testing.T) {
	for _, p := range transports {
		if p.a.Is6() {
			continue
		}
		t.Run(p.typ, func(t *testing.T) {
			t.Parallel()
			a, b := testbed.MustNamespace(t, "a"), testbed.MustNamespace(t, "b")
			to, from := newSink(t, a, p.typ, p.sink()), newSource(t, b, p.typ, p.source())
			for _, one := range []struct {
				*host
				note func() string
			}{{to.host, to.Note}, {from.host, from.Note}} {
				testbed.Eventually(t, patience, one.given("link-down", 1))
				if want := "interface sync: no such device"; one.note() != want {
					t.Errorf("%s: note %q, want %q", one.name, one.note(), want)
				}
			}
			to.replay(7, flows(0, 10)...)
			const nothing = "nothing was sent to the peers: interface sync: no such device"
			if r := to.reports[0]; r.Unreached != nothing || r.Failed != "" {
				t.Errorf("reported %+v", r)
			}
			err := to.Command(t.Context(), plugin.Command{Name: "request-resync"}, io.Discard)
			if !errors.Is(err, plugin.ErrUnreached) || !strings.HasSuffix(err.Error(), nothing) {
				t.Errorf("request-resync: %v", err)
			}
			if n := statistic(t, to, "datagrams_lost"); n < 3 {
				t.Errorf("%d datagrams lost", n)
			}
			join(t, a, b)
			testbed.Eventually(t, patience, to.given("link-up", 1))
			testbed.Eventually(t, patience, from.given("peer-up", 1))
			to.replay(8, flows(0, 10)...)
			testbed.Eventually(t, patience, to.replayed(8))
			testbed.Eventually(t, patience, from.has(10, p.a))
			testbed.Eventually(t, patience, testbed.Holds(func() bool { return to.Note()+from.Note() == "" }))
		})
	}
}

// Over TCP nobody may be there, though the interface is: that is no success.
func TestNobodyConnected(t *testing.T) {
	t.Parallel()
	a, b := pair(t)
	to := newSink(t, a, "tcp", transports[4].sink())
	const nothing = "nothing was sent to the peers: no peer is "
	if err := to.Command(t.Context(), plugin.Command{Name: "request-resync"}, io.Discard); err == nil || !strings.Contains(err.Error(), nothing) {
		t.Errorf("request-resync: %v", err)
	}
	to.replay(7, flows(0, 10)...)
	if r := to.reports[0]; !strings.HasPrefix(r.Unreached, nothing) {
		t.Errorf("reported %+v", r)
	}
	from := newSource(t, b, "tcp", transports[4].source())
	testbed.Eventually(t, patience, to.given("link-up", 1))
	to.write(flow.Header{}, flows(0, 10)...)
	testbed.Eventually(t, patience, from.has(10, a4.Addr()))
}

// A firewall that takes over while no link works, as when the other is off, does
// so at once, and says that the peers know nothing of it. They are told when a
// link is back.
func TestTakeoverWithoutLink(t *testing.T) {
	for _, typ := range []string{"multicast", "tcp"} {
		t.Run(typ, func(t *testing.T) {
			s := newSite(t)
			n1, n2 := s.sluice(s.FW1, typ), s.sluice(s.FW2, typ)
			testbed.Eventually(t, patience, rests(n2, typ))
			result := s.Client.MustChurn(t, testbed.Churn{To: testbed.At(testbed.ServerAddr.V4), Count: 30, Ending: testbed.LeftOpen})
			t.Cleanup(func() { result.Open.Close(testbed.Reset) })
			testbed.Eventually(t, patience, same(testbed.Comparison{}, through(s.FW1.Table), peersOf(n2)))
			links := func(up bool) {
				if err := errors.Join(s.FW1.SetLink(testbed.SyncLink, up), s.FW1.SetLink(sync2, up)); err != nil {
					t.Fatal(err)
				}
			}
			links(false)
			for _, device := range []string{testbed.SyncLink, sync2} {
				testbed.Eventually(t, patience, notes(n2, typ, "interface "+device+": network is down"))
			}

			const nothing, later = "nothing was sent to the peers: interface sync", "it is made up for when they can be reached"
			out, err := n2.Sluice("role", "primary")
			if err != nil || !strings.Contains(out, "30 flows, 30 created") || !strings.Contains(out, nothing) || !strings.Contains(out, later) {
				t.Errorf("role primary: %v\n%s", err, out)
			}
			if table, err := through(s.FW2.Table)(); err != nil || len(table) != 30 {
				t.Errorf("%d flows in the kernel, %v", len(table), err)
			}
			if out, err := n2.Sluice("bulk"); err == nil || !strings.Contains(err.Error(), nothing) {
				t.Errorf("bulk: %v\n%s", err, out)
			}
			if out, err := n2.Sluice("request-resync"); err == nil || !strings.Contains(err.Error(), nothing) {
				t.Errorf("request-resync: %v\n%s", err, out)
			}
			if out, err := n1.Sluice("role", "backup"); err != nil || !strings.Contains(out, nothing) {
				t.Errorf("role backup: %v\n%s", err, out)
			}
			for _, n := range []interface{ Output() string }{n1, n2} {
				if strings.Contains(n.Output(), "replay again") {
					t.Errorf("what can't work is tried again:\n%s", n.Output())
				}
			}
			links(true)
			testbed.Eventually(t, patience, same(testbed.Comparison{}, through(s.FW2.Table), peersOf(n1)))
		})
	}
}
