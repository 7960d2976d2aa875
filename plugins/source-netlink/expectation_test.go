package sourcenetlink

import (
	"fmt"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/internal/ctnl"
	"github.com/sluice-project/sluice/internal/testbed"
)

// announced begins an FTP session through a firewall up to the announcement of a
// data connection.
func announced(t *testing.T, bed *testbed.Single) *testbed.FTP {
	t.Helper()
	testbed.MustFTPServer(t, bed.Server)
	session := bed.Client.MustFTP(t, testbed.ServerAddr.V4.Addr())
	if err := session.Passive(); err != nil {
		t.Fatal(err)
	}
	return session
}

// The end of an expectation comes before the flow that met it, whose master it
// names.
func TestExpectationsComeInOrder(t *testing.T) {
	for _, expectations := range []string{`true`, `["sip", "ftp"]`} {
		bed := testbed.MustSingle(t, testbed.FirewallConfig{Rules: testbed.FTPRules})
		s := startStage(t, bed.FW.Namespace, fmt.Sprintf(`{"expectations": %s}`, expectations), &stagepb.StartRequest{})
		data := announced(t, bed).MustOpen(t)
		if err := data.Exchange(10); err != nil {
			t.Fatal(err)
		}
		var kinds []flow.Kind
		var key flow.ExpectationKey
		for _, a := range s.readUntil(func(a arrival) bool { return a.Kind == flow.New && a.Related() }) {
			if a.IsExpectation() && (a.Origin != flow.Kernel || key != (flow.ExpectationKey{}) && key != a.ExpectationKey()) {
				t.Fatalf("%v of %d", &a.Event, a.Origin)
			}
			if a.IsExpectation() {
				key = a.ExpectationKey()
			}
			if a.Kind != flow.Update {
				kinds = append(kinds, a.Kind)
			}
		}
		if got := fmt.Sprint(kinds); got != fmt.Sprint([]flow.Kind{flow.New, flow.Expect, flow.Unexpect, flow.New}) {
			t.Fatalf("kinds %v", kinds)
		}
		if s.statistic("events_expect") != 1 || s.statistic("events_unexpect") != 1 {
			t.Fatal("not counted")
		}
	}
}

// A replay has the expectations that were asked for, behind all flows.
func TestReplayNamesExpectations(t *testing.T) {
	for expectations, want := range map[string]int{`false`: 0, `true`: 1, `["ftp"]`: 1, `["sip"]`: 0} {
		t.Run(expectations, func(t *testing.T) {
			bed := testbed.MustSingle(t, testbed.FirewallConfig{Rules: testbed.FTPRules})
			announced(t, bed)
			for _, oneShot := range []bool{false, true} {
				s := startStage(t, bed.FW.Namespace, fmt.Sprintf(`{"expectations": %s}`, expectations), &stagepb.StartRequest{OneShot: oneShot})
				if !oneShot {
					s.replay(1, 0)
				}
				all := s.readUntil(func(a arrival) bool { return a.Kind == flow.SyncEnd })
				records := all[1 : len(all)-1]
				if len(records) != 1+want || records[0].Kind != flow.Update || want == 1 && records[1].Kind != flow.Expect {
					t.Fatalf("one-shot %t: %v", oneShot, records)
				}
				if end := all[len(all)-1]; end.Sync.Count != uint64(len(records)) {
					t.Fatalf("%d records, count %d", len(records), end.Sync.Count)
				}
			}
		})
	}
}

// The kernel does not tell the zone of an expectation, so the source does: that
// of its master, from an event or from a dump.
func TestExpectationsHaveZonesAndOrigins(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	// So that the expectations of a flow from before the start have events.
	if err := n.Sysctl("net.netfilter.nf_conntrack_events", "1"); err != nil {
		t.Fatal(err)
	}
	own, other := mustWriter(t, n, ownPort), mustWriter(t, n, 0)
	early, late := zonedMaster(1, 7), zonedMaster(2, 8)
	commit := func(w *ctnl.Writer, flows ...*flow.Flow) {
		t.Helper()
		for _, f := range flows {
			if err := w.Commit(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Finish(); err != nil {
			t.Fatal(err)
		}
	}
	commit(other, early)
	s := startStage(t, n, `{"expectations": true}`, &stagepb.StartRequest{OwnPortIds: []uint32{ownPort}})
	expect(t, other, zonedExpectation(early, 30001))
	s.readUntil(func(a arrival) bool { return a.Kind == flow.Expect }) // of a master that nobody told of: no zone
	s.replay(1, 0)
	mustZones(t, s.readUntil(isEnd(1)), flow.Kernel, 7)
	commit(other, late)
	expect(t, own, zonedExpectation(early, 30002), zonedExpectation(late, 30003))
	mustZones(t, s.readUntil(func(a arrival) bool { return a.Kind == flow.Expect && a.Zone == 8 }), flow.Own, 7, 8)
}

func expect(t *testing.T, w *ctnl.Writer, expectations ...*flow.Flow) {
	t.Helper()
	for _, f := range expectations {
		if err := w.CommitExpectation(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if c := w.Counts(true); c.Expectations.Created != uint64(len(expectations)) {
		t.Fatalf("%+v", c)
	}
}

// mustZones checks the expectations among arrivals; their ends have zones too.
func mustZones(t *testing.T, all []arrival, origin flow.Origin, zones ...uint16) {
	t.Helper()
	for _, a := range all {
		if a.Kind != flow.Expect {
			continue
		}
		m, _ := a.Tail.Master()
		if len(zones) == 0 || a.Zone != zones[0] || m.Zone != zones[0] || a.Origin != origin || !a.Tail.Has(flow.AttrExpectation) {
			t.Fatalf("%v: zone %d, origin %v; want zones %v", &a.Event, a.Zone, a.Origin, zones)
		}
		zones = zones[1:]
	}
	if len(zones) > 0 {
		t.Fatalf("no expectations in zones %v", zones)
	}
}

// zonedMaster is a control connection of FTP in a zone.
func zonedMaster(i int, zone uint16) *flow.Flow {
	f := testFlow(i)
	f.Protocol, f.State, f.Present, f.Zone = flow.TCP, flow.TCPEstablished, f.Present|flow.HasState, zone
	f.Tail = f.Tail.Append(flow.AttrHelper, []byte("ftp"))
	return f
}

func zonedExpectation(of *flow.Flow, port uint16) *flow.Flow {
	f := &flow.Flow{Family: of.Family, Protocol: of.Protocol, Zone: of.Zone, Present: flow.HasReply | flow.HasTimeout, Timeout: 100}
	f.Original.Source, f.Original.Destination, f.Original.DestinationPort = of.Original.Source, of.Original.Destination, port
	f.Reply = flow.Tuple{Source: [16]byte{255, 255, 255, 255}, Destination: [16]byte{255, 255, 255, 255}, DestinationPort: 65535}
	f.Tail = f.Tail.AppendMaster(&flow.Master{Family: of.Family, Protocol: of.Protocol, Tuple: of.Original}).AppendExpectation(&flow.Expectation{})
	return f
}

// The kernel tells of the end of a master before the ends of the expectations
// that end with it. Without their zones nobody below knows which these were.
func TestExpectationsThatEndWithTheirMasterHaveItsZone(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	s := startStage(t, n, `{"expectations": true}`, &stagepb.StartRequest{})
	w := mustWriter(t, n, 0)
	master := zonedMaster(1, 7)
	if err := w.Commit(master); err != nil {
		t.Fatal(err)
	}
	expect(t, w, zonedExpectation(master, 30001))
	if err := w.Delete(master); err != nil {
		t.Fatal(err)
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	var begun flow.ExpectationKey
	all := s.readUntil(func(a arrival) bool {
		if a.Kind == flow.Expect {
			begun = a.ExpectationKey()
		}
		return a.Kind == flow.Unexpect
	})
	if end := all[len(all)-1]; end.ExpectationKey() != begun || end.Zone != 7 {
		t.Fatalf("ended: %v of zone %d; began: %+v", &end.Event, end.Zone, begun)
	}
}
