package ctnl

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// labelRule makes the kernel keep labels in a namespace.
const labelRule = `table inet labels { chain c { type filter hook input priority 0; ct label 5 counter; }; }`

func commitAll(t testing.TB, w *Writer, flows ...*flow.Flow) Counts {
	t.Helper()
	for _, f := range flows {
		if err := w.Commit(f); err != nil {
			t.Fatal(err)
		}
	}
	return finish(t, w)
}

func with(f *flow.Flow, change func(*flow.Flow)) *flow.Flow {
	c := *f
	change(&c)
	return &c
}

// What the kernel would refuse, drop in silence or store wrongly if it were
// sent as an event has it.
func TestCommitHeedsTheKernel(t *testing.T) {
	base := func() *flow.Flow { return tcp("10.0.0.1:1000", "10.0.0.2:80") }
	label := append([]byte{8}, make([]byte, 15)...)
	for name, c := range map[string]struct {
		rules string
		flow  *flow.Flow
		check func(e *flow.Event, c Counts) bool
	}{
		"timeout 0 lives": {"", with(base(), func(f *flow.Flow) { f.Timeout = 0 }),
			func(e *flow.Event, _ Counts) bool { return true }},
		"timeout of all ones": {"", with(base(), func(f *flow.Flow) { f.Timeout = 1<<32 - 1 }),
			func(e *flow.Event, _ Counts) bool { return e.Timeout > 1<<20 }},
		"status of a dying, expected, translated flow": {"", with(base(), func(f *flow.Flow) {
			f.Status |= flow.Expected | flow.Dying | flow.SrcNAT | flow.SrcNATDone | flow.SeqAdjusted | flow.HelperPresent
		}), func(e *flow.Event, _ Counts) bool {
			return e.Status == flow.SeenReply|flow.Assured|flow.Confirmed
		}},
		"status not known": {"", with(base(), func(f *flow.Flow) { f.Status = 0 }),
			func(e *flow.Event, _ Counts) bool { return e.Status == flow.Confirmed }},
		"window scales": {"", with(base(), func(f *flow.Flow) {
			f.Present |= flow.HasWindowScale | flow.HasTCPFlags
			f.WindowScale, f.TCPFlags = [2]uint8{7, 10}, [2]uint8{0xf3, 0xf7}
		}), func(e *flow.Event, _ Counts) bool {
			return e.WindowScale == [2]uint8{7, 10} && e.TCPFlags == [2]uint8{0x0b, 0x0f}
		}},
		"no window scales: no flag for them": {"", with(base(), func(f *flow.Flow) {
			f.Present |= flow.HasTCPFlags
			f.TCPFlags = [2]uint8{1, 1}
		}), func(e *flow.Event, _ Counts) bool { return e.TCPFlags == [2]uint8{8, 8} }},
		"values out of range": {"", with(base(), func(f *flow.Flow) {
			f.Present |= flow.HasWindowScale
			f.State, f.WindowScale = 10, [2]uint8{15, 255}
		}), func(e *flow.Event, _ Counts) bool { return e.State == 0 && e.WindowScale == [2]uint8{14, 14} }},
		"SCTP without tags": {"", with(newFlow(flow.SCTP, v4(1), v4(2)), func(f *flow.Flow) {
			f.State, f.Present = 3, f.Present|flow.HasState
		}), func(e *flow.Event, _ Counts) bool { return true }},
		"labels without a rule": {"", with(base(), func(f *flow.Flow) { f.Tail = f.Tail.Append(flow.AttrLabels, label) }),
			func(e *flow.Event, _ Counts) bool { return !e.Tail.Has(flow.AttrLabels) }},
		"labels with a rule": {labelRule, with(base(), func(f *flow.Flow) { f.Tail = f.Tail.Append(flow.AttrLabels, label[:3]) }),
			func(e *flow.Event, _ Counts) bool {
				v, _ := e.Tail.Get(flow.AttrLabels)
				return string(v) == string(label)
			}},
		"helper": {"", with(tcp("10.0.0.1:1000", "10.0.0.2:2121"), func(f *flow.Flow) { f.Tail = f.Tail.Append(flow.AttrHelper, []byte("ftp")) }),
			func(e *flow.Event, _ Counts) bool {
				v, _ := e.Tail.Get(flow.AttrHelper)
				return string(v) == "ftp" && e.Status&flow.HelperPresent != 0
			}},
		"unknown helper": {"", with(base(), func(f *flow.Flow) { f.Tail = f.Tail.Append(flow.AttrHelper, []byte("no-such")) }),
			func(e *flow.Event, c Counts) bool { return !e.Tail.Has(flow.AttrHelper) && c.WithoutHelper == 1 }},
		"helper's name too long": {"", with(base(), func(f *flow.Flow) {
			f.Tail = f.Tail.Append(flow.AttrHelper, []byte("a name of more than fifteen characters"))
		}), func(e *flow.Event, c Counts) bool { return c.WithoutHelper == 1 }},
		"sequence adjustment": {"", with(base(), func(f *flow.Flow) {
			f.Tail = appendUint32s(f.Tail, flow.AttrSeqAdj, []uint32{9, 0, 5, 0, 0, 0})
		}), func(e *flow.Event, _ Counts) bool { return e.Status&flow.SeqAdjusted != 0 }},
		"zone": {"", with(base(), func(f *flow.Flow) { f.Zone = 5 }),
			func(e *flow.Event, _ Counts) bool { return e.Zone == 5 }},
		"zone of one direction": {"", with(base(), func(f *flow.Flow) { f.ZoneOriginal = 6 }),
			func(e *flow.Event, _ Counts) bool { return e.Zone == 0 && e.ZoneOriginal == 6 }},
		"mark": {"", with(base(), func(f *flow.Flow) { f.Mark, f.Present = 7, f.Present|flow.HasMark }),
			func(e *flow.Event, _ Counts) bool { return e.Mark == 7 }},
		"id of another kernel": {"", with(base(), func(f *flow.Flow) { f.ID, f.Present = 1, f.Present|flow.HasID }),
			func(e *flow.Event, _ Counts) bool { return e.ID != 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			n := testbed.MustNamespace(t, "fw")
			if c.rules != "" {
				if err := n.Rules(c.rules); err != nil {
					t.Fatal(err)
				}
			}
			counts := commitAll(t, mustWriter(t, n, WriterConfig{}), c.flow)
			e := mustFind(t, n, c.flow)
			if counts.Created != 1 || counts.Failed() > 0 || !c.check(&e, counts) {
				t.Errorf("%+v: %s", counts, format(&e, 0))
			}
		})
	}
}

func TestCommitUpdatesWhatIsThere(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	strict := mustWriter(t, n, WriterConfig{WindowTracking: true})
	w := mustWriter(t, n, WriterConfig{})
	f := tcp("10.0.0.1:1", "10.0.0.2:80")
	f.Mark, f.Present = 5, f.Present|flow.HasMark
	commitAll(t, strict, f)
	before := mustFind(t, n, f)
	cleared := with(f, func(f *flow.Flow) { f.Tail = f.Tail.Append(flow.AttrLabels, labels()) })
	if c := commitAll(t, strict, cleared); c.Updated != 1 || c.WithoutLabels != 0 { // there are none to clear
		t.Fatalf("cleared labels: %+v", c)
	}
	f.Tail = f.Tail.Append(flow.AttrLabels, labels(1)) // ENOSPC, after all else
	f.Status, f.State, f.Mark, f.Timeout = flow.Confirmed, 7, 0, 50
	c := commitAll(t, w, f)
	after := mustFind(t, n, f)
	if c.Updated != 1 || c.WithoutLabels != 1 || before.ID != after.ID {
		t.Fatalf("%+v", c)
	}
	if after.State != 7 || after.Mark != 0 || after.Timeout > 50 || after.TCPFlags != [2]uint8{8, 8} || after.Status&flow.Assured == 0 {
		t.Fatal(format(&after, 0))
	}
}

// The kernel does not change the timeout of a flow for which it is fixed; all
// else changes.
func TestCommitLeavesFixedTimeouts(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	f := tcp("10.0.0.1:1", "10.0.0.2:80")
	f.Status, f.Timeout = f.Status|flow.FixedTimeout, 500
	commitAll(t, w, f)
	f.State, f.Timeout = 7, 50
	c := commitAll(t, w, f)
	if after := mustFind(t, n, f); c.Updated != 1 || c.Failed() > 0 || after.State != 7 || after.Timeout <= 50 {
		t.Fatalf("%+v: %s", c, format(&after, 0))
	}
}

// Each way in which another entry can stand in the way of one.
func TestCommitMakesRoom(t *testing.T) {
	nat := "192.0.2.1:500"
	want := snat(udp("10.0.0.1:1", "10.0.0.9:53"), nat)
	for name, holder := range map[string]*flow.Flow{
		"another translation":                snat(udp("10.0.0.1:1", "10.0.0.9:53"), "192.0.2.1:501"),
		"no translation":                     udp("10.0.0.1:1", "10.0.0.9:53"),
		"the reply tuple":                    snat(udp("10.0.0.2:1", "10.0.0.9:53"), nat),
		"the original as a reply":            udp("10.0.0.9:53", "10.0.0.1:1"),
		"the reply tuple as its original":    udp("10.0.0.9:53", nat),
		"the original as a translated reply": snat(udp("10.0.0.9:53", "10.0.0.1:1"), "10.0.0.9:53"),
	} {
		t.Run(name, func(t *testing.T) {
			n := testbed.MustNamespace(t, "fw")
			w := mustWriter(t, n, WriterConfig{})
			mustCount(t, "created", commitAll(t, w, holder).Created, 1)
			c := commitAll(t, w, want)
			if c.Replaced != 1 || c.Failed() > 0 {
				t.Fatalf("%+v", c)
			}
			if e := mustFind(t, n, want); e.Reply != want.Reply || len(dump(t, n, Filter{})) != 1 {
				t.Fatal(format(&e, 0))
			}
		})
	}
}

func TestSameTuplesInTwoZones(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	zero := udp("10.0.0.1:1", "10.0.0.2:2")
	five := with(zero, func(f *flow.Flow) { f.Zone = 5 })
	six := with(zero, func(f *flow.Flow) { f.ZoneOriginal = 6 })
	mustCount(t, "created", commitAll(t, w, zero, five).Created, 2)
	if err := w.Delete(five); err != nil {
		t.Fatal(err)
	}
	if err := w.Delete(six); err != nil {
		t.Fatal(err)
	}
	c := finish(t, w)
	mustCount(t, "deleted", c.Deleted, 1)
	mustCount(t, "missing", c.Missing, 1)
	mustFind(t, n, zero)
	mustCount(t, "created", commitAll(t, w, with(six, func(f *flow.Flow) { f.Original.SourcePort, f.Reply.DestinationPort = 9, 9 })).Created, 1)
	if err := w.Delete(with(six, func(f *flow.Flow) { f.Original.SourcePort = 9 })); err != nil {
		t.Fatal(err)
	}
	mustCount(t, "deleted", finish(t, w).Deleted, 1)
}

func TestDeleteMindsTheID(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	f := udp("10.0.0.1:1", "10.0.0.2:2")
	commitAll(t, w, f)
	e := mustFind(t, n, f)
	e.ID++
	for _, want := range []Counts{{Missing: 1}, {Deleted: 1}} {
		if err := w.Delete(&e.Flow); err != nil {
			t.Fatal(err)
		}
		if c := finish(t, w); c.Deleted != want.Deleted || c.Missing != want.Missing {
			t.Fatalf("%+v, want %+v", c, want)
		}
		e.ID--
	}
}

// Requests of one flow are carried out in their order, though one of them has
// to go round several times.
func TestRequestsOfOneFlowKeepTheirOrder(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	a := snat(udp("10.0.0.1:1", "10.0.0.2:2"), "192.0.2.1:5")
	commitAll(t, w, udp("10.0.0.1:1", "10.0.0.2:2"))
	for _, err := range []error{w.Commit(a), w.Delete(a), w.Commit(udp("10.0.0.1:3", "10.0.0.2:2")), w.Delete(a)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := finish(t, w)
	if c.Replaced != 1 || c.Deleted != 1 || c.Created != 1 || c.Missing != 1 {
		t.Fatalf("%+v", c)
	}
	if _, ok := find(t, n, a); ok {
		t.Fatal("the deleted flow is there")
	}
}

// In a batch each failure is the failure of its own request, and the others
// are carried out.
func TestFailuresAreMatched(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	var good, bad []*flow.Flow
	for i := range 300 {
		f := udp(fmt.Sprintf("10.0.0.1:%d", i+1), "10.0.0.2:53")
		if i%7 == 3 { // not a query: the kernel tracks no such ICMP
			f = newFlow(flow.ICMP, v4(1), v4(2))
			f.Original.SourcePort, f.Original.DestinationPort = uint16(i), 5<<8
			f.Reply = f.Original.Inverted(flow.ICMP)
			bad = append(bad, f)
		} else {
			good = append(good, f)
		}
		if err := w.Commit(f); err != nil {
			t.Fatal(err)
		}
	}
	c := finish(t, w)
	if c.Created != uint64(len(good)) || errnoOf(c)[unix.EINVAL] != uint64(len(bad)) || c.Failed() != uint64(len(bad)) {
		t.Fatalf("%+v", c)
	}
	if c.Failures[0].Sample != bad[0].String() {
		t.Fatalf("sample %q", c.Failures[0].Sample)
	}
	mustFind(t, n, good[len(good)-1])
	mustCount(t, "entries", uint64(len(dump(t, n, Filter{}))), uint64(len(good)))
}

func TestShortenAndMissing(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	f := tcp("10.0.0.1:1", "10.0.0.2:2")
	f.Timeout = 5000
	commitAll(t, w, f)
	if err := w.Shorten(f, 10); err != nil {
		t.Fatal(err)
	}
	if err := w.Shorten(tcp("10.0.0.1:9", "10.0.0.2:2"), 10); err != nil {
		t.Fatal(err)
	}
	if c := finish(t, w); c.Shortened != 1 || c.Missing != 1 || c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	if e := mustFind(t, n, f); e.Timeout > 10 || e.State != 3 {
		t.Fatal(format(&e, 0))
	}
}

// The kernel finds an entry by either tuple. One that is found by its reply is
// another flow's, and an end that is near is not put off.
func TestShortenLeavesOthersAlone(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	f := tcp("10.0.0.1:1", "10.0.0.2:2")
	f.Timeout = 5000
	ending := tcp("10.0.0.1:3", "10.0.0.2:2")
	ending.Timeout = 40
	commitAll(t, w, f, ending)
	for _, err := range []error{w.Shorten(tcp("10.0.0.2:2", "10.0.0.1:1"), 10), w.Shorten(ending, 1000)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Shortened != 1 || c.Missing != 1 || c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	if e := mustFind(t, n, f); e.Timeout < 4000 {
		t.Fatal(format(&e, 0))
	}
	if e := mustFind(t, n, ending); e.Timeout > 40 {
		t.Fatal(format(&e, 0))
	}
}

// Between the reading of an entry and its update a packet may set bits of its
// status, which the kernel refuses to clear.
func TestStatusThatAdvancesMeanwhile(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	f := tcp("10.0.0.1:1", "10.0.0.2:2")
	commitAll(t, w, f)
	early := *f
	early.Status, early.Mark, early.Present = flow.Confirmed, 7, f.Present|flow.HasMark
	r := &request{}
	r.set(injectUpdate, &early, 0)
	r.step, r.holder = stepUpdate, early // as it was read before the packet
	if err := w.run([]*request{r}); err != nil {
		t.Fatal(err)
	}
	if c := finish(t, w); c.Updated != 1 || c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	if e := mustFind(t, n, f); e.Mark != 7 || e.Status&flow.Assured == 0 {
		t.Fatal(format(&e, 0))
	}
}

// Of two connections with the same original tuple and different translations
// the older one, injected late, does not replace the other.
func TestInjectedPredecessorReplacesNothing(t *testing.T) {
	const established, lastACK, synSent, finWait = 3, 6, 1, 4
	at := func(state uint8, to string) *flow.Flow {
		f := snat(tcp("10.0.0.1:1", "10.0.0.2:2"), to)
		f.State = state
		return f
	}
	for name, c := range map[string]struct {
		entry, injected uint8
		isNew, replaces bool
	}{
		"closing late":          {established, lastACK, false, false},
		"closing late, new":     {established, lastACK, true, false},
		"begun late":            {established, synSent, false, false},
		"after a closing one":   {finWait, established, false, true},
		"reopened":              {finWait, synSent, true, true},
		"as far, the last word": {established, established, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := testbed.MustNamespace(t, "fw")
			w := mustWriter(t, n, WriterConfig{})
			commitAll(t, w, at(c.entry, "192.0.2.1:5"))
			injected := at(c.injected, "192.0.2.1:6")
			if err := w.Inject(injected, c.isNew); err != nil {
				t.Fatal(err)
			}
			counts := finish(t, w)
			e := mustFind(t, n, injected)
			if replaced := e.Reply == injected.Reply; replaced != c.replaces || replaced != (counts.Replaced == 1) {
				t.Fatalf("%s: %+v", format(&e, 0), counts)
			}
			if !c.replaces && errnoOf(counts)[unix.EEXIST] != 1 {
				t.Fatalf("not counted: %+v", counts)
			}
		})
	}
}

// An orphan waits for its master, and a later word on it is not forgotten.
func TestOrphans(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	master := tcp("10.0.0.1:1", "10.0.0.2:21")
	child := func(port int) *flow.Flow {
		f := tcp(fmt.Sprintf("10.0.0.2:%d", port), "10.0.0.1:2")
		f.Tail = f.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original})
		return f
	}
	for port := 1; port <= 100; port++ {
		if err := w.Commit(child(port)); err != nil {
			t.Fatal(err)
		}
	}
	for _, err := range []error{w.Flush(), w.Delete(child(1)), w.Commit(master)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := finish(t, w)
	if c.Created != 100 || c.Missing != 1 || c.WithoutMaster != 0 || c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	if e := mustFind(t, n, child(2)); e.Status&flow.Expected == 0 || !e.Related() {
		t.Fatal(format(&e, 0))
	}
	if err := w.Delete(master); err != nil {
		t.Fatal(err)
	}
	if c := commitAll(t, w, child(200)); c.Created != 1 || c.WithoutMaster != 1 {
		t.Fatalf("%+v", c)
	}
}

// The kernel marks an entry with a master EXPECTED, and refuses an update that
// does not say so.
func TestRelatedIsUpdated(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	master := tcp("10.0.0.1:1", "10.0.0.2:21")
	child := tcp("10.0.0.2:20", "10.0.0.1:2")
	child.Tail = child.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original})
	if c := commitAll(t, w, master, child); c.Created != 2 || c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	child.State = flow.TCPTimeWait
	if c := commitAll(t, w, child); c.Updated != 1 || c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	if e := mustFind(t, n, child); e.State != flow.TCPTimeWait || !e.Related() {
		t.Fatal(format(&e, 0))
	}
}

// A stream that this node did not see for a while is blocked by its entry, with
// the windows of then, and goes on when the entry is committed again.
func TestCommitCuresStaleWindows(t *testing.T) {
	bed := testbed.MustSingle(t, testbed.FirewallConfig{})
	testbed.MustServer(t, bed.Server, testbed.ServerPort)
	w := mustWriter(t, bed.FW.Namespace, WriterConfig{})
	transfer := bed.Client.MustTransfer(t, testbed.TransferConfig{
		To: testbed.At(testbed.ServerAddr.V4), Size: 48 << 20, Rate: 24 << 20, Seed: 3,
	})
	testbed.Eventually(t, patience, transfer.Progress(1<<20))
	peers := dump(t, bed.FW.Namespace, Filter{})
	if err := bed.FW.Rules(`table ip elsewhere { chain c { type filter hook prerouting priority raw; notrack; }; }`); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, transfer.Progress(16<<20))
	for i := range peers {
		if err := w.Commit(&peers[i].Flow); err != nil {
			t.Fatal(err)
		}
	}
	mustCount(t, "updated", finish(t, w).Updated, uint64(len(peers)))
	if _, err := bed.FW.Run("nft", "delete", "table", "ip", "elsewhere"); err != nil {
		t.Fatal(err)
	}
	mustComplete(t, transfer)
}

func TestManyFlows(t *testing.T) {
	if testing.Short() {
		t.Skip("100,000 flows")
	}
	const many = 100_000
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	flowOf := func(i int) *flow.Flow {
		f := snat(tcp("10.0.0.1:1000", "10.9.9.9:80"), "192.0.2.1:1000")
		f.Original.Source = [16]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}
		f.Reply = f.Original.Inverted(flow.TCP)
		f.Timeout = 600
		return f
	}
	for i := range many {
		if err := w.Commit(flowOf(i)); err != nil {
			t.Fatal(err)
		}
	}
	c := finish(t, w)
	if c.Created != many || c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	events := dump(t, n, Filter{})
	mustCount(t, "entries", uint64(len(events)), many)
	for i := range events {
		if err := w.Delete(&events[i].Flow); err != nil {
			t.Fatal(err)
		}
	}
	mustCount(t, "deleted", finish(t, w).Deleted, many)
}
