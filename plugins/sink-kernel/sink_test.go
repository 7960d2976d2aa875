package sinkkernel

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/ctnl"
	"github.com/sluice-project/sluice/internal/testbed"
)

// testHost keeps what the stage reports.
type testHost struct {
	start   plugin.Start
	reports []plugin.Report
}

func (h *testHost) Start() plugin.Start          { return h.start }
func (h *testHost) Logger() *slog.Logger         { return slog.New(slog.DiscardHandler) }
func (h *testHost) Signal(plugin.Signal, string) {}
func (h *testHost) Done(r plugin.Report)         { h.reports = append(h.reports, r) }

// A stage is the sink at work in a namespace.
type stage struct {
	t    *testing.T
	ns   *testbed.Namespace
	sink *sink
	host *testHost
}

func start(t *testing.T, n *testbed.Namespace, config string, p plugin.Start) *stage {
	t.Helper()
	c := Definition.Config().(*Config)
	if d := plugin.Decode([]byte(config), c); len(d) > 0 {
		t.Fatal(d)
	}
	built, err := c.Build()
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, ns: n, sink: built.(*sink), host: &testHost{start: p}}
	if err := n.Do(func() error { return s.sink.Open(context.Background(), s.host) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.sink.Close() })
	return s
}

// write sends events as one batch after another.
func (s *stage) write(h flow.Header, events ...flow.Event) {
	s.t.Helper()
	var b flow.Builder
	b.Reset(h)
	send := func() {
		batch, err := flow.DecodeBatch(b.Bytes())
		if err == nil {
			err = s.sink.Write(&batch)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		b.Reset(h)
	}
	for i := range events {
		if !b.Append(&events[i]) {
			send()
			b.Append(&events[i])
		}
	}
	send()
}

// live sends one event as a peer's source does.
func (s *stage) live(kind flow.Kind, f flow.Flow) {
	s.t.Helper()
	s.write(flow.Header{Origin: flow.Peer, Owner: peer}, flow.Event{Kind: kind, Flow: f})
}

var peer = netip.MustParseAddr("192.0.2.2")

// replay sends flows between marks, and returns the report.
func (s *stage) replay(id uint64, flags flow.SyncFlags, flows []flow.Flow) plugin.Report {
	s.t.Helper()
	h := flow.Header{Replay: id}
	s.write(h, flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flags}})
	var events []flow.Event
	for _, f := range flows {
		events = append(events, flow.Event{Kind: flow.Update, Flow: f})
	}
	s.write(h, events...)
	return s.end(id, flags, len(flows))
}

func (s *stage) end(id uint64, flags flow.SyncFlags, count int) plugin.Report {
	s.t.Helper()
	s.write(flow.Header{Replay: id}, flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: flags, Count: uint64(count)}})
	if len(s.host.reports) == 0 {
		s.t.Fatal("the replay's end was not reported")
	}
	return s.host.reports[len(s.host.reports)-1]
}

func mustReport(t *testing.T, r plugin.Report, failed string, counts ...plugin.Count) {
	t.Helper()
	if got, want := fmt.Sprint(r.Counts), fmt.Sprint(counts); got != want || r.Failed != failed {
		t.Fatalf("reported %v, failed %q; want %v, failed %q", got, r.Failed, want, failed)
	}
}

// table reads the kernel's table.
func table(t *testing.T, n *testbed.Namespace) map[flow.Key]flow.Flow {
	t.Helper()
	flows := map[flow.Key]flow.Flow{}
	err := n.Do(func() error {
		d, err := ctnl.OpenDump(ctnl.Filter{})
		if err != nil {
			return err
		}
		defer d.Close()
		for more := true; more && err == nil; {
			more, err = d.Next(func(e *flow.Event) error {
				f := e.Flow
				f.Tail = append(flow.Attributes(nil), f.Tail...)
				flows[f.Key()] = f
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

func (s *stage) entry(f flow.Flow) (flow.Flow, bool) {
	s.t.Helper()
	e, ok := table(s.t, s.ns)[f.Key()]
	return e, ok
}

func (s *stage) mustEntry(f flow.Flow) flow.Flow {
	s.t.Helper()
	e, ok := s.entry(f)
	if !ok {
		s.t.Fatalf("no entry for %v", &f)
	}
	return e
}

func list(flows map[flow.Key]flow.Flow) (l []flow.Flow) {
	for _, f := range flows {
		l = append(l, f)
	}
	return l
}

// newTCP is an established flow as a peer sends it.
func newTCP(port uint16) flow.Flow {
	f := flow.Flow{
		Family: flow.IPv4, Protocol: flow.TCP, State: 3, Timeout: 1000, ID: 0xdead, WindowScale: [2]uint8{7, 10},
		TCPFlags: [2]uint8{0x23, 0x23}, Status: flow.SeenReply | flow.Assured | flow.Confirmed,
		Present: flow.HasReply | flow.HasStatus | flow.HasTimeout | flow.HasState | flow.HasMark | flow.HasID |
			flow.HasWindowScale | flow.HasTCPFlags,
	}
	f.Original = flow.Tuple{Source: [16]byte{10, 0, 0, 1}, Destination: [16]byte{10, 9, 9, 9}, SourcePort: port, DestinationPort: 80}
	f.Reply = f.Original.Inverted(flow.TCP)
	return f
}

const liberal = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL

func isLiberal(f flow.Flow) bool { return f.TCPFlags[0]&f.TCPFlags[1]&liberal != 0 }

func TestCommitCreatesUpdatesAndReplaces(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{"commit_timeout": "180s"}`, plugin.Start{PortID: 4242})
	present, stale, moved := newTCP(1), newTCP(2), newTCP(3)
	strict := start(t, s.ns, `{"tcp_window_tracking": true}`, plugin.Start{WriteThrough: true})
	strict.live(flow.New, present)
	stale.State = 1
	strict.live(flow.New, stale)
	strict.live(flow.New, moved)
	if isLiberal(s.mustEntry(present)) {
		t.Fatal("window tracking is off where it should be on")
	}
	stale.State = 3
	moved.Reply.Destination = [16]byte{192, 0, 2, 1} // now translated
	fresh := newTCP(4)
	r := s.replay(9, flow.SyncCommit, []flow.Flow{present, stale, moved, fresh})
	mustReport(t, r, "", plugin.Count{Name: "flows", Value: 4}, plugin.Count{Name: "created", Value: 1},
		plugin.Count{Name: "updated", Value: 2}, plugin.Count{Name: "replaced", Value: 1})
	if r.Replay != 9 || len(s.host.reports) != 1 {
		t.Fatalf("reports %+v", s.host.reports)
	}
	for _, f := range []flow.Flow{present, stale, moved, fresh} {
		e := s.mustEntry(f)
		if !isLiberal(e) || e.State != 3 || e.Reply != f.Reply || e.Timeout > 180 || e.Timeout < 150 {
			t.Errorf("entry %v, flags %v", &e, e.TCPFlags)
		}
	}
}

func TestCommitPutsMastersFirst(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{}`, plugin.Start{})
	master, orphan := newTCP(21), newTCP(23)
	related, lost := newTCP(20), newTCP(22)
	related.Tail = related.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original})
	lost.Tail = lost.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: orphan.Original})
	related.Status |= flow.Expected // as events have it; the kernel refuses it
	h, begin := flow.Header{Replay: 1}, flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncCommit}}
	s.write(h, begin, flow.Event{Kind: flow.Update, Flow: related}, flow.Event{Kind: flow.Update, Flow: lost})
	s.write(h, flow.Event{Kind: flow.Update, Flow: master}) // in a later batch
	r := s.end(1, flow.SyncCommit, 3)
	mustReport(t, r, "", plugin.Count{Name: "flows", Value: 3}, plugin.Count{Name: "created", Value: 3},
		plugin.Count{Name: "without_master", Value: 1})
	if m, ok := related.Tail.Master(); !ok || m.Tuple != master.Original {
		t.Fatal("no master")
	}
	e := s.mustEntry(related)
	if m, ok := e.Tail.Master(); !ok || m.Tuple != master.Original || e.Status&flow.Expected == 0 {
		t.Fatalf("entry %v has master %v", &e, m)
	}
	s.mustEntry(lost)
}

func TestLossOfRecordsFailsCommit(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{}`, plugin.Start{})
	s.write(flow.Header{Replay: 3}, flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncCommit}},
		flow.Event{Kind: flow.Update, Flow: newTCP(1)})
	mustReport(t, s.end(3, flow.SyncCommit, 2), "1 of 2 records arrived", plugin.Count{Name: "flows", Value: 1},
		plugin.Count{Name: "created", Value: 1})
	s.mustEntry(newTCP(1))
}

// A begin cancels the replay before it, whose end then counts for nothing.
func TestBeginCancelsReplay(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{}`, plugin.Start{})
	begin := flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncCommit}}
	s.write(flow.Header{Replay: 1}, begin, flow.Event{Kind: flow.Update, Flow: newTCP(1)})
	r := s.replay(2, flow.SyncCommit, []flow.Flow{newTCP(1), newTCP(2)})
	mustReport(t, r, "", plugin.Count{Name: "flows", Value: 2}, plugin.Count{Name: "created", Value: 1}, plugin.Count{Name: "updated", Value: 1})
	if r = s.end(1, flow.SyncCommit, 1); r.Failed == "" {
		t.Fatalf("the cancelled replay's end succeeded: %+v", r)
	}
}

// Live records that come between the marks of a commit are carried out inline
// and do not count as the replay's.
func TestLiveChangesDuringCommit(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{"commit_timeout": "180s"}`, plugin.Start{})
	h := flow.Header{Replay: 1}
	s.write(h, flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncCommit}}, flow.Event{Kind: flow.Update, Flow: newTCP(1)})
	s.live(flow.Destroy, newTCP(1))
	s.live(flow.New, newTCP(2))
	if e := s.mustEntry(newTCP(1)); e.Timeout > 10 {
		t.Fatalf("ended flow lives on for %d s", e.Timeout)
	}
	if e := s.mustEntry(newTCP(2)); e.Timeout > 180 {
		t.Fatalf("new flow lives for %d s", e.Timeout)
	}
	mustReport(t, s.end(1, flow.SyncCommit, 1), "", plugin.Count{Name: "flows", Value: 1}, plugin.Count{Name: "created", Value: 1})
}

func TestWriteThroughTakesNothingBack(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{}`, plugin.Start{WriteThrough: true})
	f := newTCP(1)
	s.live(flow.New, f)
	behind := f
	behind.State, behind.Timeout, behind.Mark = 2, 60, 5
	s.live(flow.Update, behind)
	if e := s.mustEntry(f); e.State != 3 || e.Timeout < 900 || e.Mark != 5 {
		t.Fatalf("behind: %v", &e)
	}
	garbage := f
	garbage.State, garbage.Timeout = 200, 1
	s.live(flow.Update, garbage)
	if e := s.mustEntry(f); e.State != 3 || e.Timeout < 900 {
		t.Fatalf("no state at all: %v", &e)
	}
	same := f
	same.Timeout = 2000
	s.live(flow.Update, same)
	if e := s.mustEntry(f); e.Timeout < 1900 {
		t.Fatalf("longer timeout: %v", &e)
	}
	ahead := f
	ahead.State, ahead.Timeout = 7, 120
	s.live(flow.Update, ahead)
	if e := s.mustEntry(f); e.State != 7 || e.Timeout > 120 {
		t.Fatalf("ahead: %v", &e)
	}
	reopened := f
	reopened.State, reopened.Status = 1, flow.Confirmed
	s.live(flow.New, reopened)
	if e := s.mustEntry(f); e.State != 1 || e.Status&flow.SeenReply != 0 {
		t.Fatalf("reopened: %v", &e)
	}
	s.live(flow.Destroy, f)
	if e := s.mustEntry(f); e.Timeout > 10 || e.Timeout == 0 {
		t.Fatalf("destroyed at the peer: %v", &e)
	}
	s.live(flow.Destroy, newTCP(99))
	unknown := newTCP(2)
	unknown.Present &^= flow.HasTimeout
	s.live(flow.Update, unknown)
	if e := s.mustEntry(unknown); e.Timeout > unknownTimeout || e.Timeout < unknownTimeout-10 {
		t.Fatalf("no timeout told: %v", &e)
	}
}

// The stage above was started again in the midst of a replay: its end, which
// related flows without their master would wait for, never comes.
func TestRelatedFlowsOutliveABrokenReplay(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{}`, plugin.Start{WriteThrough: true})
	master, child := newTCP(21), newTCP(1)
	child.Tail = child.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original})
	h := flow.Header{Generation: 1, Origin: flow.Peer, Owner: peer}
	s.write(flow.Header{Generation: 1, Replay: 9}, flow.Event{Kind: flow.SyncBegin})
	s.write(h, flow.Event{Kind: flow.New, Flow: child})
	if _, ok := s.entry(child); ok {
		t.Fatal("did not wait for its master")
	}
	h.Generation = 2
	s.write(h, flow.Event{Kind: flow.New, Flow: newTCP(2)})
	s.mustEntry(child)
}

// An injected flow never pushes out another one, which may have packets here.
func TestWriteThroughLeavesOthersAlone(t *testing.T) {
	s := start(t, testbed.MustNamespace(t, "fw"), `{}`, plugin.Start{WriteThrough: true})
	local, peers := newTCP(1), newTCP(2)
	local.Reply.Destination, local.Reply.DestinationPort = [16]byte{192, 0, 2, 1}, 5000
	peers.Reply.Destination, peers.Reply.DestinationPort = [16]byte{192, 0, 2, 1}, 5000
	s.live(flow.New, local)
	s.live(flow.New, peers)
	s.mustEntry(local)
	if _, ok := s.entry(peers); ok {
		t.Fatal("both flows have the same reply tuple")
	}
	for _, one := range s.sink.Statistics() {
		if one.Name == "failed" && one.Value != 1 {
			t.Fatalf("%d failed", one.Value)
		}
	}
	s.replay(1, flow.SyncCommit, []flow.Flow{peers}) // a takeover may
	s.mustEntry(peers)
	if _, ok := s.entry(local); ok {
		t.Fatal("the entry that held the reply tuple is still there")
	}
}

func TestPurgeDeletesWhatItIsSent(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	fill := start(t, n, `{}`, plugin.Start{})
	fill.replay(1, flow.SyncCommit, []flow.Flow{newTCP(1), newTCP(2), newTCP(3)})
	dumped := table(t, n)
	var doomed []flow.Flow
	for _, f := range dumped {
		switch f.Original.SourcePort {
		case 2: // gone meanwhile, and another flow in its place
			f.ID++
			doomed = append(doomed, f)
		case 3:
			doomed = append(doomed, f)
		}
	}
	purge := start(t, n, `{}`, plugin.Start{OneShot: true})
	mustReport(t, purge.replay(1, 0, doomed), "", plugin.Count{Name: "flows", Value: 2},
		plugin.Count{Name: "deleted", Value: 1}, plugin.Count{Name: "gone", Value: 1})
	purge.mustEntry(newTCP(1))
	purge.mustEntry(newTCP(2))
	if len(table(t, n)) != 2 {
		t.Fatal("not deleted")
	}
}

// The whole point: streams through one firewall go on through the other, which
// knows them by the commit alone and drops what it does not know.
func TestTakeoverKeepsStreamsAlive(t *testing.T) {
	p := testbed.MustPair(t, testbed.FirewallConfig{SNAT: true})
	testbed.MustServer(t, p.Server, testbed.ServerPort)
	var streams []*testbed.Transfer
	for i, to := range []netip.Prefix{testbed.ServerAddr.V4, testbed.ServerAddr.V6} {
		for _, upload := range []bool{false, true} {
			streams = append(streams, p.Client.MustTransfer(t, testbed.TransferConfig{
				To: testbed.At(to), Size: 10 << 20, Rate: 4 << 20, Seed: uint64(i), Upload: upload,
			}))
		}
	}
	for _, stream := range streams {
		testbed.Eventually(t, 20*time.Second, stream.Progress(1<<20))
	}
	s := start(t, p.FW2.Namespace, `{"commit_timeout": "60s"}`, plugin.Start{})
	r := s.replay(1, flow.SyncCommit, list(table(t, p.FW1.Namespace)))
	if r.Failed != "" {
		t.Fatal(r.Failed)
	}
	if err := p.MoveTo(p.FW2); err != nil {
		t.Fatal(err)
	}
	patience := time.After(60 * time.Second)
	for _, stream := range streams {
		select {
		case <-stream.Done():
			if err := stream.Wait(); err != nil {
				t.Error(err)
			}
		case <-patience:
			t.Fatalf("a stream stands still after %d bytes", stream.Moved())
		}
	}
}
