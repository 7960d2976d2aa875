package sinkkernel

import (
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/ctnl"
	"github.com/sluice-project/sluice/internal/testbed"
)

// control is a control connection of FTP.
func control(port uint16) flow.Flow {
	f := newTCP(port)
	f.Original.DestinationPort, f.Reply.SourcePort = 21, 21
	f.Tail = flow.Attributes(nil).Append(flow.AttrHelper, []byte("ftp"))
	return f
}

// expectationOf is what a peer sends when the helper of a flow waits for another.
func expectationOf(master flow.Flow, port uint16) flow.Flow {
	f := flow.Flow{Family: flow.IPv4, Protocol: flow.TCP, Present: flow.HasReply | flow.HasTimeout | flow.HasID, Timeout: 123, ID: 0xdead}
	f.Original = flow.Tuple{Source: master.Original.Source, Destination: master.Original.Destination, DestinationPort: port}
	f.Reply = flow.Tuple{Source: [16]byte{255, 255, 255, 255}, Destination: [16]byte{255, 255, 255, 255}, DestinationPort: 65535}
	f.Tail = flow.Attributes(nil).Append(flow.AttrHelper, []byte("ftp")).
		AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original}).
		AppendExpectation(&flow.Expectation{HasClass: true})
	return f
}

// expected reads the kernel's expectations.
func expected(t *testing.T, n *testbed.Namespace) map[flow.ExpectationKey]flow.Flow {
	t.Helper()
	flows := map[flow.ExpectationKey]flow.Flow{}
	err := n.Do(func() error {
		d, err := ctnl.OpenExpectationDump()
		if err != nil {
			return err
		}
		defer d.Close()
		for more := true; more && err == nil; {
			more, err = d.Next(func(e *flow.Event) error {
				flows[e.ExpectationKey()] = e.Flow
				return nil
			})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return flows
}

func (s *stage) mustExpect(want ...flow.Flow) {
	s.t.Helper()
	there := expected(s.t, s.ns)
	for _, f := range want {
		if e, ok := there[f.ExpectationKey()]; !ok || e.Timeout > f.Timeout || e.Timeout < f.Timeout-10 {
			s.t.Fatalf("expected %v, there is %v", &f, there)
		}
	}
	if len(there) != len(want) {
		s.t.Fatalf("%d expectations, not %d", len(there), len(want))
	}
}

func tracked(t *testing.T) *testbed.Namespace {
	t.Helper()
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	return n
}

// Expectations are committed behind all flows, whatever the order in which they
// came, and what the kernel refuses is reported apart from flows.
func TestCommitOfExpectations(t *testing.T) {
	s := start(t, tracked(t), `{"commit_timeout": "500s"}`, plugin.Start{})
	first, second, missing := control(1000), control(1001), control(1002)
	h := flow.Header{Replay: 1}
	s.write(h, flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncCommit}},
		flow.Event{Kind: flow.Expect, Flow: expectationOf(first, 30000)}, flow.Event{Kind: flow.Update, Flow: first},
		flow.Event{Kind: flow.Expect, Flow: expectationOf(missing, 30002)})
	s.write(h, flow.Event{Kind: flow.Update, Flow: second}, flow.Event{Kind: flow.Expect, Flow: expectationOf(second, 30001)})
	mustReport(t, s.end(1, flow.SyncCommit, 5), "", plugin.Count{Name: "flows", Value: 2}, plugin.Count{Name: "created", Value: 2},
		plugin.Count{Name: "expectations", Value: 3}, plugin.Count{Name: "expectations_created", Value: 2},
		plugin.Count{Name: "expectations_failed", Value: 1})
	s.mustExpect(expectationOf(first, 30000), expectationOf(second, 30001))
	r := s.replay(2, flow.SyncCommit, []flow.Flow{first, second})
	mustReport(t, r, "", plugin.Count{Name: "flows", Value: 2}, plugin.Count{Name: "updated", Value: 2})
	s.mustExpect(expectationOf(first, 30000), expectationOf(second, 30001)) // the sink sweeps nothing
	if s.statistic("expectations_created") != 2 || s.statistic("expectations_failed") != 1 || s.statistic("failed") != 0 {
		t.Fatal("not counted")
	}
}

func (s *stage) statistic(name string) uint64 {
	s.t.Helper()
	for _, one := range s.sink.Statistics() {
		if one.Name == name {
			return one.Value
		}
	}
	s.t.Fatalf("no statistic %q", name)
	return 0
}

// What a peer's helper expects, or no more, is carried out when it comes: during
// a commit and in a pair that writes through. The peer's id means nothing here.
func TestLiveExpectations(t *testing.T) {
	for _, through := range []bool{false, true} {
		s := start(t, tracked(t), `{}`, plugin.Start{WriteThrough: through})
		if !through {
			s.write(flow.Header{Replay: 1}, flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncCommit}})
		}
		master := control(1000)
		s.live(flow.New, master)
		s.live(flow.Expect, expectationOf(master, 30000))
		s.mustExpect(expectationOf(master, 30000))
		s.live(flow.Unexpect, expectationOf(master, 30000))
		s.mustExpect()
		data := newTCP(1)
		data.Tail = data.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original})
		h := flow.Header{Origin: flow.Peer, Owner: peer}
		s.write(h, flow.Event{Kind: flow.Expect, Flow: expectationOf(master, 80)}, flow.Event{Kind: flow.Unexpect, Flow: expectationOf(master, 80)},
			flow.Event{Kind: flow.New, Flow: data}, flow.Event{Kind: flow.Expect, Flow: expectationOf(master, 30001)})
		s.mustExpect(expectationOf(master, 30001))
		if e := s.mustEntry(data); !e.Related() {
			t.Fatalf("%v has no master", &e)
		}
		s.live(flow.Unexpect, expectationOf(master, 30009))
		s.live(flow.Expect, expectationOf(control(1009), 30009)) // of a master that may still come
		if !through {
			s.end(1, flow.SyncCommit, 0)
		}
		if s.statistic("expectations_gone") != 1 || s.statistic("expectations_deleted") != 2 || s.statistic("expectations_failed") != 1 {
			t.Fatalf("%+v", s.sink.Statistics())
		}
	}
}

// The purge deletes by id, so that a later expectation of the same tuple stays.
func TestOneShotDeletesExpectations(t *testing.T) {
	n := tracked(t)
	fill := start(t, n, `{}`, plugin.Start{WriteThrough: true})
	kept, named := control(1000), control(1001)
	fill.live(flow.New, kept)
	fill.live(flow.New, named)
	fill.live(flow.Expect, expectationOf(kept, 30000))
	fill.live(flow.Expect, expectationOf(named, 30001))
	there := expected(t, n)
	s := start(t, n, `{}`, plugin.Start{OneShot: true})
	other, mine := there[expectationKey(kept, 30000)], there[expectationKey(named, 30001)]
	other.ID++
	h := flow.Header{Replay: 1}
	s.write(h, flow.Event{Kind: flow.SyncBegin}, flow.Event{Kind: flow.Expect, Flow: other}, flow.Event{Kind: flow.Expect, Flow: mine})
	mustReport(t, s.end(1, 0, 2), "", plugin.Count{Name: "flows"}, plugin.Count{Name: "expectations", Value: 2},
		plugin.Count{Name: "expectations_deleted", Value: 1}, plugin.Count{Name: "expectations_gone", Value: 1})
	s.mustExpect(expectationOf(kept, 30000))
}

func expectationKey(master flow.Flow, port uint16) flow.ExpectationKey {
	f := expectationOf(master, port)
	return f.ExpectationKey()
}
