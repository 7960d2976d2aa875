package ctnl

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// dumpExpectations reads a namespace's expectations.
func dumpExpectations(t testing.TB, n *testbed.Namespace) []flow.Event {
	t.Helper()
	return readDump(t, n, OpenExpectationDump)
}

// expectation makes one of a flow to a port of its server, as ftp's helper does.
func expectation(master *flow.Flow, port uint16) *flow.Flow {
	f := &flow.Flow{Family: master.Family, Protocol: master.Protocol, Zone: master.Zone,
		Present: flow.HasReply | flow.HasTimeout, Timeout: 200}
	f.Original.Source, f.Original.Destination = master.Original.Source, master.Original.Destination
	f.Original.DestinationPort = port
	for i := range 4 {
		f.Reply.Source[i], f.Reply.Destination[i] = 0xff, 0xff
	}
	f.Reply.DestinationPort = 0xffff
	return withExpectation(f, master, flow.Expectation{HasClass: true})
}

// withExpectation gives f a new tail.
func withExpectation(f, master *flow.Flow, x flow.Expectation) *flow.Flow {
	f.Tail = flow.Attributes(nil).Append(flow.AttrHelper, helperOf(master))
	f.Tail = f.Tail.AppendMaster(&flow.Master{Family: master.Family, Protocol: master.Protocol, Zone: master.Zone, Tuple: master.Original})
	f.Tail = f.Tail.AppendExpectation(&x)
	return f
}

func helperOf(f *flow.Flow) []byte {
	name, _ := f.Tail.Get(flow.AttrHelper)
	return name
}

func helped(f *flow.Flow, helper string) *flow.Flow {
	f.Tail = f.Tail.Append(flow.AttrHelper, []byte(helper))
	return f
}

// A data connection that was announced to one firewall passes another one, and
// is related to its master there, once both were put into its kernel.
func TestExpectationsMoveWithTheirMaster(t *testing.T) {
	for _, snat := range []bool{false, true} {
		for _, host := range testbed.ServerAddr.Addrs() {
			for _, active := range []bool{false, true} {
				t.Run(fmt.Sprintf("snat=%t,%s,active=%t", snat, host, active), func(t *testing.T) { moveExpectation(t, snat, host, active) })
			}
		}
	}
}

func moveExpectation(t *testing.T, snat bool, host netip.Addr, active bool) {
	bed := testbed.MustPair(t, testbed.FirewallConfig{SNAT: snat, Rules: testbed.FTPRules})
	testbed.MustFTPServer(t, bed.Server)
	session := bed.Client.MustFTP(t, host)
	announce := session.Passive
	if active {
		announce = session.Active
	}
	if err := announce(); err != nil {
		t.Fatal(err)
	}
	expected := dumpExpectations(t, bed.FW1.Namespace)
	if len(expected) != 1 {
		t.Fatalf("%d expectations", len(expected))
	}
	w := mustWriter(t, bed.FW2.Namespace, WriterConfig{})
	if err := w.CommitExpectation(&expected[0].Flow); err != nil { // too early: it waits
		t.Fatal(err)
	}
	for _, e := range dump(t, bed.FW1.Namespace, Filter{}) {
		if err := w.Commit(&e.Flow); err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Expectations.Created != 1 || len(c.Failures) > 0 {
		t.Fatalf("%+v", c)
	}
	there := dumpExpectations(t, bed.FW2.Namespace)
	if len(there) != 1 || there[0].ExpectationKey() != expected[0].ExpectationKey() {
		t.Fatalf("committed %v, there is %v", expected, there)
	}
	if err := bed.MoveTo(bed.FW2); err != nil {
		t.Fatal(err)
	}
	if err := session.MustOpen(t).Exchange(100_000); err != nil {
		t.Fatal(err)
	}
	related, err := bed.FW2.MustTable(t).One(func(f testbed.Flow) bool { return f.Status&testbed.StatusExpected != 0 })
	if err != nil {
		t.Fatal(err)
	}
	if related.Master.SrcPort != session.Local().Port() || related.Helper != "" {
		t.Errorf("%v: master %v, helper %q", related, related.Master, related.Helper)
	}
	if snat != related.Translated() {
		t.Errorf("%v: translated %t", related, related.Translated())
	}
	if err := announce(); err != nil { // the moved helper goes on listening
		t.Fatal(err)
	}
	if err := session.MustOpen(t).Exchange(1000); err != nil {
		t.Fatal(err)
	}
}

// What was put into the kernel is what a dump then says.
func TestExpectationsAreCommitted(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	ftp, sip := helped(tcp("10.0.0.1:1000", "10.0.0.2:21"), "ftp"), helped(udp("10.0.0.1:5060", "10.0.0.2:5060"), "sip")
	ftp6 := helped(tcp("[fd00::1]:1000", "[fd00::2]:21"), "ftp")
	zoned := helped(tcp("10.0.0.1:1009", "10.0.0.2:21"), "ftp")
	zoned.Zone = 9
	permanent, class, anywhere, nat, in9 := expectation(ftp, 1), expectation(sip, 2), expectation(sip, 3), expectation(ftp6, 4), expectation(zoned, 1)
	withExpectation(permanent, ftp, flow.Expectation{HasClass: true, Flags: flow.ExpectPermanent | flow.ExpectInactive | flow.ExpectUserspace})
	withExpectation(class, sip, flow.Expectation{HasClass: true, Class: 2})
	class.Timeout = 3000 // longer than the policy
	anywhere.Original.Source, anywhere.Reply.Source = [16]byte{}, [16]byte{}
	for i := range nat.Reply.Source {
		nat.Reply.Source[i], nat.Reply.Destination[i] = 0xff, 0xff
	}
	withExpectation(nat, ftp6, flow.Expectation{HasClass: true, HasNAT: true, NATDirection: flow.Reply, NATProtocol: flow.TCP,
		NAT: flow.Tuple{Source: [16]byte{0xfd, 1}, SourcePort: 5000}})
	nat.Tail = nat.Tail.Append(flow.AttrFunction, []byte("nat-follow-master"))
	all := []*flow.Flow{permanent, class, anywhere, nat, in9}

	w := mustWriter(t, n, WriterConfig{})
	for _, f := range []*flow.Flow{ftp, sip, ftp6, zoned} {
		if err := w.Commit(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, round := range []ExpectationCounts{{Created: 5}, {Updated: 5}} {
		for _, f := range all {
			if err := w.CommitExpectation(f); err != nil {
				t.Fatal(err)
			}
		}
		if c := finish(t, w); c.Expectations != round || len(c.Failures) > 0 {
			t.Fatalf("%+v", c)
		}
		mustExpect(t, n, all)
	}
	for _, f := range all {
		if err := w.DeleteExpectation(f); err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Expectations.Deleted != 5 || len(dumpExpectations(t, n)) > 0 {
		t.Fatalf("%+v", c)
	}
}

// mustExpect compares what the kernel expects with what it was told to. It tells
// neither the zone, nor that userspace made them.
func mustExpect(t *testing.T, n *testbed.Namespace, want []*flow.Flow) {
	t.Helper()
	there := map[flow.ExpectationKey]flow.Event{}
	for _, e := range dumpExpectations(t, n) {
		there[e.ExpectationKey()] = e
	}
	for _, f := range want {
		key := f.ExpectationKey()
		key.Zone = 0
		e, ok := there[key]
		if !ok {
			t.Errorf("missing %v in %v", (&flow.Event{Kind: flow.Expect, Flow: *f}).String(), there)
			continue
		}
		x, _ := f.Tail.Expectation()
		x.Flags &^= flow.ExpectUserspace
		if got, _ := e.Tail.Expectation(); got != x {
			t.Errorf("%+v, not %+v", got, x)
		}
		function, _ := f.Tail.Get(flow.AttrFunction)
		if got, _ := e.Tail.Get(flow.AttrFunction); string(got) != string(function) {
			t.Errorf("function %q, not %q", got, function)
		}
		if string(helperOf(&e.Flow)) != string(helperOf(f)) || e.Timeout > f.Timeout || e.Timeout < f.Timeout-10 {
			t.Errorf("helper %q, timeout %d of %d", helperOf(&e.Flow), e.Timeout, f.Timeout)
		}
	}
	if len(there) != len(want) {
		t.Errorf("%d expectations, not %d", len(there), len(want))
	}
}

// An expectation of another flow makes way at a takeover, and for nothing else.
func TestExpectationsInTheWay(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	one, two := helped(tcp("10.0.0.1:1000", "10.0.0.2:21"), "ftp"), helped(tcp("10.0.0.1:1001", "10.0.0.2:21"), "ftp")
	first, second := expectation(one, 30000), expectation(two, 30000)
	w := mustWriter(t, n, WriterConfig{})
	for _, f := range []*flow.Flow{one, two} {
		if err := w.Commit(f); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		name string
		do   func(*flow.Flow) error
		f    *flow.Flow
		want ExpectationCounts
		fail unix.Errno
		left *flow.Flow
	}{
		{"inject", w.InjectExpectation, first, ExpectationCounts{Created: 1}, 0, first},
		{"inject again", w.InjectExpectation, first, ExpectationCounts{Updated: 1}, 0, first},
		{"inject another's", w.InjectExpectation, second, ExpectationCounts{}, unix.EEXIST, first},
		{"commit another's", w.CommitExpectation, second, ExpectationCounts{Replaced: 1}, 0, second},
		{"delete", w.DeleteExpectation, second, ExpectationCounts{Deleted: 1}, 0, nil},
		{"delete again", w.DeleteExpectation, second, ExpectationCounts{Missing: 1}, 0, nil},
	}
	for _, s := range steps {
		if err := s.do(s.f); err != nil {
			t.Fatal(err)
		}
		c := finish(t, w)
		if c.Expectations != s.want || errnoOf(c)[s.fail] != c.FailedExpectations() || (s.fail != 0) != (c.FailedExpectations() == 1) {
			t.Fatalf("%s: %+v", s.name, c)
		}
		var left []*flow.Flow
		if s.left != nil {
			left = append(left, s.left)
		}
		mustExpect(t, n, left)
	}
}

// Each refusal is a failure of its own, with its reason, and no flow's.
func TestRefusedExpectations(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	ftp, helpless, missing := helped(tcp("10.0.0.1:1000", "10.0.0.2:21"), "ftp"), tcp("10.0.0.1:1001", "10.0.0.2:21"), tcp("10.0.0.1:1002", "10.0.0.2:21")
	w := mustWriter(t, n, WriterConfig{})
	for _, f := range []*flow.Flow{ftp, helpless} {
		if err := w.Commit(f); err != nil {
			t.Fatal(err)
		}
	}
	badClass, badFunction := expectation(ftp, 30003), expectation(ftp, 30004)
	withExpectation(badClass, ftp, flow.Expectation{HasClass: true, Class: 7})
	badFunction.Tail = badFunction.Tail.Append(flow.AttrFunction, []byte("no such function, and longer than any name is"))
	for _, f := range []*flow.Flow{expectation(helpless, 30000), expectation(missing, 30001), expectation(missing, 30002), badClass, badFunction} {
		if err := w.CommitExpectation(f); err != nil {
			t.Fatal(err)
		}
	}
	c := finish(t, w)
	want := map[unix.Errno]uint64{unix.EOPNOTSUPP: 1, unix.ENOENT: 2, unix.EINVAL: 2}
	if got := errnoOf(c); fmt.Sprint(got) != fmt.Sprint(want) || c.FailedExpectations() != 5 || c.Failed() != 0 {
		t.Fatalf("%+v", c)
	}
	for _, f := range c.Failures {
		if f.Reason() == f.Errno.Error() || f.Sample == "" {
			t.Errorf("%+v: reason %q", f, f.Reason())
		}
	}
}

// An expectation that nobody meets ends when its time is over, and the kernel
// says so; the end of a master ends its own at once.
func TestExpectationsEnd(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	events := mustEvents(t, n, EventsConfig{Expectations: true})
	w := mustWriter(t, n, WriterConfig{Port: 777777})
	master, short := helped(tcp("10.0.0.1:1000", "10.0.0.2:21"), "ftp"), helped(tcp("10.0.0.1:1001", "10.0.0.2:21"), "ftp")
	brief := expectation(short, 2)
	brief.Timeout = 1
	for _, err := range []error{
		w.Commit(master), w.Commit(short), w.CommitExpectation(expectation(master, 1)), w.CommitExpectation(brief), w.Delete(master),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Deleted != 1 || len(c.Failures) > 0 {
		t.Fatalf("%+v", c)
	}
	var got []string
	for deadline := time.Now().Add(patience); len(got) < 4 && time.Now().Before(deadline); {
		if err := events.Wait(patience); err != nil {
			t.Fatal(err)
		}
		for _, m := range drain(t, events) {
			var e flow.Event
			if _, err := Decode(m, &e, nil); err != nil {
				t.Fatal(err)
			}
			if e.IsExpectation() {
				got = append(got, fmt.Sprint(e.Kind, " ", e.Original.DestinationPort, " by ", Port(m)))
			}
		}
	}
	want := []string{"expect 1 by 777777", "expect 2 by 777777", "unexpect 1 by 0", "unexpect 2 by 0"}
	if !slices.Equal(got, want) {
		t.Fatalf("events %q", got)
	}
}

// A master that has to be replaced is replaced before its expectations come: they
// would end with the entry that makes way.
func TestExpectationsComeBehindTheirMaster(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	stale := helped(tcp("10.0.0.1:1000", "10.0.0.2:21"), "ftp")
	fresh := helped(snat(tcp("10.0.0.1:1000", "10.0.0.2:21"), "192.0.2.1:1000"), "ftp")
	w := mustWriter(t, n, WriterConfig{})
	commitAll(t, w, stale)
	for _, err := range []error{w.Commit(fresh), w.CommitExpectation(expectation(fresh, 30000))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Replaced != 1 || c.Expectations.Created != 1 {
		t.Fatalf("%+v", c)
	}
	mustExpect(t, n, []*flow.Flow{expectation(fresh, 30000)})
}

// Older kernels give the flow to come the helper that a request names, and take a
// class only with one.
func TestHelperIsNamedWithAClass(t *testing.T) {
	for class, want := range map[uint32]bool{0: false, 1: true} {
		master := helped(udp("10.0.0.1:5060", "10.0.0.2:5060"), "sip")
		f := withExpectation(expectation(master, 1), master, flow.Expectation{HasClass: true, Class: class})
		var e flow.Event
		if _, err := Decode(AppendExpect(nil, f, 1), &e, nil); err != nil {
			t.Fatal(err)
		}
		if got := string(helperOf(&e.Flow)) == "sip"; got != want {
			t.Errorf("class %d: helper %q", class, helperOf(&e.Flow))
		}
	}
}
