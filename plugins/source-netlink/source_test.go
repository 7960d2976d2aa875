package sourcenetlink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/internal/testbed"
)

const ownPort = 0x51000001

func TestPacketEventsArriveInOrder(t *testing.T) {
	bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true})
	testbed.MustServer(t, bed.Server, testbed.ServerPort)
	s := startStage(t, bed.FW.Namespace, `{}`, &stagepb.StartRequest{})
	bed.Client.MustChurn(t, testbed.Churn{To: testbed.At(testbed.ServerAddr.V4), Count: 1, Ending: testbed.Orderly})
	var states []uint8
	for _, a := range s.readUntil(func(a arrival) bool { return a.State == uint8(testbed.TimeWait) }) {
		if a.Origin != flow.Kernel || a.Replay != 0 || a.Time == 0 || a.Generation != 1 {
			t.Fatalf("header %+v", a.Header)
		}
		if to, ok := a.SourceNAT(); !ok || flow.Address(a.Family, to.Address) != testbed.OutsideVIP.V4.Addr() {
			t.Fatalf("not translated: %v", &a.Flow)
		}
		if (a.Kind == flow.New) != (len(states) == 0) {
			t.Fatalf("event %d is %v", len(states), a.Kind)
		}
		states = append(states, a.State)
	}
	if !slices.IsSorted(states) || states[0] != uint8(testbed.SynSent) || !slices.Contains(states, uint8(testbed.Established)) {
		t.Fatalf("states %v", states)
	}
	if err := bed.FW.Flush(); err != nil {
		t.Fatal(err)
	}
	s.readUntil(func(a arrival) bool { return a.Kind == flow.Destroy && a.Has(flow.HasID) })
	if got := s.statistic("events_new"); got != 1 {
		t.Fatalf("%d NEW events counted", got)
	}
}

// Flows from before the start are in the replay. Those that begin after it have
// events for good, because the stage has the kernel give them to all flows:
// even the end of a flow that began while the stage was being restarted.
func TestReplayNamesWholeTable(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, 0)
	const flows = 3000
	create(t, w, 0, flows)
	s := startStage(t, n, `{"coalesce": "0s"}`, &stagepb.StartRequest{})
	s.replay(77, flow.SyncClaim)
	all := s.readUntil(isEnd(77))
	first, last := all[0], all[len(all)-1]
	if first.Kind != flow.SyncBegin || first.Sync.Flags != flow.SyncClaim || last.Sync.Flags != flow.SyncClaim {
		t.Fatalf("marks %+v, %+v", first, last)
	}
	named := map[flow.Key]bool{}
	for _, a := range all[1 : len(all)-1] {
		if a.Kind != flow.Update || a.Replay != 77 || !a.Has(flow.HasID|flow.HasTimeout) {
			t.Fatalf("record %+v", a)
		}
		named[a.Key()] = true
	}
	if len(named) != flows || last.Sync.Count != flows || len(all) != flows+2 {
		t.Fatalf("%d flows named by %d records, count %d", len(named), len(all)-2, last.Sync.Count)
	}
	s.plugin.Kill()
	create(t, w, flows, 1)
	s = startStage(t, n, `{}`, &stagepb.StartRequest{})
	if err := w.Delete(testFlow(flows)); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	s.readUntil(func(a arrival) bool { return a.Kind == flow.Destroy && a.Key() == testFlow(flows).Key() })
}

func TestOriginTellsOwnWriters(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{}`, &stagepb.StartRequest{OwnPortIds: []uint32{ownPort}})
	create(t, mustWriter(t, n, ownPort), 0, 10)
	create(t, mustWriter(t, n, 0), 10, 10)
	seen := 0
	for seen < 20 {
		for _, a := range s.read() {
			want := flow.Own
			if seen >= 10 {
				want = flow.Kernel
			}
			if a.Origin != want || a.Key() != testFlow(seen).Key() {
				t.Fatalf("event %d: origin %v of %v", seen, a.Origin, &a.Flow)
			}
			seen++
		}
	}
}

func TestDropOwnDropsInTheKernel(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{"buffer_size": "64KiB"}`,
		&stagepb.StartRequest{OwnPortIds: []uint32{ownPort - 1, ownPort}, DropOwn: true})
	create(t, mustWriter(t, n, ownPort), 0, 5000) // far more than the buffer holds
	create(t, mustWriter(t, n, 0), 5000, 1)
	for _, a := range s.readUntil(func(a arrival) bool { return a.Key() == testFlow(5000).Key() }) {
		if a.Key() != testFlow(5000).Key() {
			t.Fatalf("own event arrived: %v", &a.Flow)
		}
	}
	if n := s.statistic("overruns"); n != 0 {
		t.Fatalf("%d overruns", n)
	}
}

// While new flows are ignored their changes are heard of; if nobody ends it the
// source does, and asks for a replay.
func TestNewFlowsCanBeIgnored(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{}`, &stagepb.StartRequest{OwnPortIds: []uint32{ownPort}, DropOwn: true})
	w := mustWriter(t, n, 0)
	create(t, w, 0, 1)
	s.command(plugin.IgnoreNew)
	create(t, w, 1, 1)
	changed := testFlow(2)
	create(t, w, 2, 1)
	changed.Mark, changed.Present = 7, changed.Present|flow.HasMark
	if err := errors.Join(w.Commit(changed), w.Finish()); err != nil {
		t.Fatal(err)
	}
	s.command(plugin.HearNew)
	create(t, w, 3, 1)
	var got []string
	last := func(a arrival) bool { return a.Key() == testFlow(3).Key() }
	for _, a := range s.readUntil(last) {
		got = append(got, fmt.Sprint(a.Kind, " ", a.Original.Destination[3]))
	}
	if want := []string{"new 0", "update 2", "new 3"}; !slices.Equal(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
}

// The kernel drops what the filters below drop anyway, if it is asked to; a replay
// is sent whole in any case.
func TestKernelFilter(t *testing.T) {
	screens := []*stagepb.Screen{
		{Protocols: &stagepb.ProtocolList{Accept: true, Protocols: []byte{flow.UDP}}},
		{Addresses: &stagepb.AddressList{Prefixes: []string{"10.1.0.0/32"}}}, // flows 0 to 255
	}
	for _, on := range []bool{false, true} {
		n := testbed.MustNamespace(t, "fw")
		s := startStage(t, n, fmt.Sprintf(`{"kernel_filter": %t}`, on), &stagepb.StartRequest{Screens: screens})
		create(t, mustWriter(t, n, 0), 250, 10)
		first, all := 256, s.readUntil(func(a arrival) bool { return indexOf(a) == 259 })
		if !on {
			first = 250
		}
		if len(all) != 260-first || indexOf(all[0]) != first || s.statistic("events_new") != uint64(260-first) {
			t.Errorf("kernel_filter %t: %d events", on, len(all))
		}
		s.replay(3, 0)
		if all := s.readUntil(isEnd(3)); len(all) != 12 {
			t.Errorf("kernel_filter %t: %d records replayed", on, len(all)-2)
		}
	}
}

// A barrier arrives behind every event that was made before it was asked for.
func TestBarrierArrivesBehindEvents(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{}`, &stagepb.StartRequest{})
	w := mustWriter(t, n, 0)
	for round := range 20 {
		create(t, w, round*100, 100)
		s.replay(uint64(round+1), flow.SyncKeep)
		all := s.readUntil(isEnd(uint64(round + 1)))
		if len(all) != 102 {
			t.Fatalf("round %d: %d events before the barrier", round, len(all)-2)
		}
		if end := all[101]; end.Sync.Flags != flow.SyncKeep || end.Sync.Count != 0 {
			t.Fatalf("end %+v", end)
		}
	}
}

// While nobody reads the edge, the stage keeps reading the kernel, keeps what
// it may, drops and counts the rest, and says so when the edge takes data.
func TestFullEdgeNeverBlocksReading(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{"queue_limit": "128KiB", "buffer_size": "64MiB", "buffer_size_max": "64MiB"}`, &stagepb.StartRequest{})
	w := mustWriter(t, n, 0)
	const flows = 20000
	create(t, w, 0, flows)
	testbed.Eventually(t, wait, testbed.Holds(func() bool { return s.statistic("events_new") == flows }))
	dropped := s.statistic("queue_dropped")
	if dropped == 0 || s.statistic("queue_bytes") > 128<<10 {
		t.Fatalf("%d dropped, %d bytes queued", dropped, s.statistic("queue_bytes"))
	}
	last := -1
	for got := 0; got < flows-int(dropped); {
		for _, a := range s.read() {
			i := indexOf(a)
			if i <= last {
				t.Fatalf("flow %d came after flow %d", i, last)
			}
			last = i
			got++
		}
	}
	testbed.Eventually(t, wait, s.signalled(plugin.SignalEdgeFull))
	create(t, w, flows, 1)
	s.readUntil(func(a arrival) bool { return a.Key() == testFlow(flows).Key() })
}

// indexOf is the number of a testFlow.
func indexOf(a arrival) int {
	return int(a.Original.Source[2])<<16 | int(a.Original.Source[3])<<8 | int(a.Original.Destination[3])
}

// What waits for the edge is not overtaken by what comes when there is room.
func TestQueuedEventsAreNotOvertaken(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{"buffer_size": "8MiB", "coalesce": "0s"}`, &stagepb.StartRequest{})
	w := mustWriter(t, n, 0)
	made, next := 6000, 0
	create(t, w, 0, made)
	for next < made {
		for _, a := range s.read() {
			if indexOf(a) != next {
				t.Fatalf("flow %d came instead of flow %d", indexOf(a), next)
			}
			next++
		}
		if next < 5000 {
			create(t, w, made, 5)
			made += 5
		}
	}
	if s.statistic("overruns")+s.statistic("queue_dropped") != 0 {
		t.Fatal("events were lost")
	}
}

func TestReplayWaitsForRoomAndLetsLivePass(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, 0)
	const flows = 20000
	create(t, w, 0, flows)
	s := startStage(t, n, `{"replay_rate": 0, "buffer_size": "8MiB"}`, &stagepb.StartRequest{})
	s.replay(5, 0)
	create(t, w, flows, 1) // while the replay fills the edge
	live, records := -1, 0
	all := s.readUntil(isEnd(5))
	for i, a := range all {
		switch {
		case a.Replay == 0:
			live = i
		case !a.IsMark():
			records++
		}
	}
	if live < 0 || live == len(all)-1 {
		t.Fatalf("the live event came as number %d of %d", live, len(all))
	}
	if records < flows || uint64(records) != all[len(all)-1].Sync.Count {
		t.Fatalf("%d records, count %d", records, all[len(all)-1].Sync.Count)
	}
}

func TestOverrunGrowsAndSignals(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{"buffer_size": "16KiB", "buffer_size_max": "64KiB"}`, &stagepb.StartRequest{})
	testbed.Eventually(t, wait, func() error { // one burst may just be read fast enough
		w := mustWriter(t, n, 0)
		create(t, w, 0, 2000)
		if err := n.Flush(); err != nil {
			return err
		}
		return s.signalled(plugin.SignalOverrun)()
	})
	go func() {
		buf := make([]byte, flow.MaxBatch+1)
		for {
			if n, err := unix.Read(s.edge, buf); n <= 0 || err != nil && err != unix.EINTR {
				return
			}
		}
	}()
	if size := s.statistic("receive_buffer_bytes"); size <= 16<<10 || size > 64<<10 {
		t.Fatalf("receive buffer is %d", size)
	}
	if s.statistic("overruns") == 0 || s.statistic("socket_drops") == 0 {
		t.Fatal("not counted")
	}
}

func TestOneShotReplaysOnceAndEnds(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	const flows = 2000
	create(t, mustWriter(t, n, 0), 0, flows)
	s := startStage(t, n, `{}`, &stagepb.StartRequest{OneShot: true})
	all := s.readUntil(func(a arrival) bool { return a.Kind == flow.SyncEnd })
	if len(all) != flows+2 || all[0].Kind != flow.SyncBegin || all[len(all)-1].Sync.Count != flows {
		t.Fatalf("%d events", len(all))
	}
	if s.read() != nil {
		t.Fatal("something came after the end")
	}
	testbed.Eventually(t, wait, testbed.Holds(s.plugin.Exited))
}

func TestDrainSendsWhatIsHeld(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := startStage(t, n, `{"buffer_size": "8MiB"}`, &stagepb.StartRequest{})
	const flows = 5000 // more than the edge takes at once
	create(t, mustWriter(t, n, 0), 0, flows)
	if _, err := s.client.Drain(context.Background(), &stagepb.Empty{}); err != nil {
		t.Fatal(err)
	}
	got := 0
	for batch := s.read(); batch != nil; batch = s.read() {
		got += len(batch)
	}
	if got != flows {
		t.Fatalf("%d events before the end", got)
	}
}

func TestEventsOfBothFamilies(t *testing.T) {
	bed := testbed.MustSingle(t, testbed.FirewallConfig{})
	s := startStage(t, bed.FW.Namespace, `{}`, &stagepb.StartRequest{})
	for _, to := range []netip.Addr{testbed.ServerAddr.V4.Addr(), testbed.ServerAddr.V6.Addr()} {
		if err := bed.Client.Ping(testbed.Echo{To: to, ID: 99}); err != nil {
			t.Fatal(err)
		}
		s.readUntil(func(a arrival) bool {
			return flow.Address(a.Family, a.Original.Destination) == to && a.Original.SourcePort == 99 &&
				a.Kind == flow.Update && a.Status&flow.SeenReply != 0
		})
	}
}

// The loop goes round also while nothing happens, or the runner would take the
// source to hang.
func TestIdleSourceBeats(t *testing.T) {
	s := startStage(t, testbed.MustNamespace(t, "fw"), `{}`, &stagepb.StartRequest{})
	testbed.Eventually(t, 3*plugin.BeatInterval, testbed.Holds(func() bool { return s.beats() > 0 }))
	before := s.beats()
	testbed.Eventually(t, 5*plugin.BeatInterval, testbed.Holds(func() bool { return s.beats() > before }))
}
