package interop

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/ctnl"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// A lab is a site on whose firewall 1 a sluice and a conntrackd watch the same
// kernel, each telling a group of its own, and on whose firewall 2 one of each
// listens to either. So the same flows reach four receivers by the four ways
// there are, and where conntrackd is told by sluice its answers can be compared
// with those of a conntrackd that is told by conntrackd.
type lab struct {
	*site
	sluice     *node.Node      // of firewall 1
	conntrackd *testbed.Daemon // of firewall 1
	receivers  []*receiver     // of firewall 2
	writer     *ctnl.Writer    // into the kernel of firewall 1
	tracking   bool            // of TCP windows
}

// The ports of the two groups.
const (
	bySluice     = 3780
	byConntrackd = 3781
)

// A receiver is a node or a daemon on firewall 2.
type receiver struct {
	name   string
	node   *node.Node      // or
	daemon *testbed.Daemon // one of them
	faults faults          // of its sender, in what it knows
	lacks  faults          // of its own, in what it commits

	losses, missing losses // in what it knows and what it commits of expectations
}

// newLab builds a lab in which everybody, or nobody, tracks TCP windows.
func newLab(t *testing.T, tracking bool) *lab {
	t.Helper()
	l := &lab{site: newSite(t), tracking: tracking}
	for _, fw := range []*testbed.Firewall{l.FW1, l.FW2} {
		if err := fw.Rules(ftpRules); err != nil {
			t.Fatal(err)
		}
	}
	daemon := func(fw *testbed.Firewall, port int) *testbed.Daemon {
		return l.site.conntrackd(t, fw, testbed.ConntrackdConfig{Port: port, TCPWindowTracking: tracking, ExpectationSync: true})
	}
	run := func(fw *testbed.Firewall, port int) *node.Node {
		more := map[string]string{
			"netlink": "expectations = true",
			"sink":    "window_scale = true", "kernel": fmt.Sprintf("tcp_window_tracking = %v", tracking),
		}
		text := strings.ReplaceAll(node.Pipelines(more), fmt.Sprint(bySluice), fmt.Sprint(port))
		return node.Must(t, binary, fw, fmt.Sprintf("sluice%d", port), text)
	}
	scales, commits := faults{windowScale}, faults{windowScale, natPorts, sctpTag}
	if tracking {
		scales, commits = nil, commits[:2]
	}
	l.receivers = []*receiver{
		{name: "sluice told by sluice", node: run(l.FW2, bySluice)},
		{
			name: "sluice told by conntrackd", node: run(l.FW2, byConntrackd),
			faults: slices.Concat(unsent, scales), losses: notTold, missing: notTold,
		},
		{
			name: "conntrackd told by sluice", daemon: daemon(l.FW2, bySluice),
			faults: unsent, lacks: commits, losses: notPrinted, missing: notCommitted,
		},
		{
			name: "conntrackd told by conntrackd", daemon: daemon(l.FW2, byConntrackd),
			faults: unsent, lacks: commits, losses: notPrinted, missing: notCommitted,
		},
	}
	l.sluice, l.conntrackd = run(l.FW1, bySluice), daemon(l.FW1, byConntrackd)
	err := l.FW1.Do(func() (err error) {
		l.writer, err = ctnl.OpenWriter(ctnl.WriterConfig{WindowTracking: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.writer.Close() })
	return l
}

// put creates or changes flows in the kernel of firewall 1.
func (l *lab) put(t *testing.T, flows []flow.Flow) {
	t.Helper()
	for i := range flows {
		if err := l.writer.Commit(&flows[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.writer.Finish(); err != nil {
		t.Fatal(err)
	}
	if c := l.writer.Counts(true); c.Created+c.Updated != uint64(len(flows)) || c.WithoutHelper+c.WithoutLabels+c.WithoutMaster > 0 {
		t.Fatalf("%d flows: %+v", len(flows), c)
	}
}

// expect creates expectations in the kernel of firewall 1.
func (l *lab) expect(t *testing.T, expectations []flow.Flow) {
	t.Helper()
	for i := range expectations {
		if err := l.writer.CommitExpectation(&expectations[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.writer.Finish(); err != nil {
		t.Fatal(err)
	}
	if c := l.writer.Counts(true); c.Expectations.Created != uint64(len(expectations)) {
		t.Fatalf("%d expectations: %+v", len(expectations), c)
	}
}

// unexpect ends expectations.
func (l *lab) unexpect(t *testing.T, expectations []flow.Flow) {
	t.Helper()
	for i := range expectations {
		if err := l.writer.DeleteExpectation(&expectations[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.writer.Flush(); err != nil {
		t.Fatal(err)
	}
	if c := l.writer.Counts(true); c.Expectations.Deleted != uint64(len(expectations)) {
		t.Fatalf("%d expectations to delete: %+v", len(expectations), c)
	}
}

// expects is what the receiver knows of its peer's expectations.
func (r *receiver) expects() ([]expected, error) {
	if r.node != nil {
		return expectedBy(r.node, "peers")()
	}
	return printedBy(r.daemon, "-e")()
}

// known is what the receiver knows of its peer.
func (r *receiver) known() (testbed.Table, error) {
	if r.node != nil {
		return r.node.Table("peers")
	}
	return r.daemon.External()
}

// reread has both senders read the kernel again, which tells of sequence numbers
// that a helper moved in no event.
func (l *lab) reread(t *testing.T) {
	t.Helper()
	must[string](t)(l.sluice.Sluice("resync"))
	l.conntrackd.MustCtl(t, "-R")
	moved := func(f testbed.Flow) bool { return f.SeqAdjust != [2]testbed.SeqAdjust{} }
	count := len(l.FW1.MustTable(t).Where(moved))
	testbed.Eventually(t, patience, func() error { // -R works in the background, and sends nothing
		l.conntrackd.MustCtl(t, "-B")
		return has(l.receivers[1].known, count, moved)()
	})
}

// agree waits until everybody knows the flows of firewall 1's kernel.
func (l *lab) agree(t *testing.T) {
	t.Helper()
	own := func() error {
		want, err := l.FW1.Table()
		if err == nil {
			err = same(whole, l.FW1.Table, local(l.sluice))()
		}
		if err == nil {
			got, dumpErr := l.conntrackd.Internal()
			err = errors.Join(dumpErr, internal.Same(want, got))
		}
		return err
	}
	testbed.Eventually(t, patience, own)
	losses(nil).compare(t, inKernel(l.FW1), expectedBy(l.sluice, "local"))
	notPrinted.compare(t, inKernel(l.FW1), printedBy(l.conntrackd, "-i"))
	for _, r := range l.receivers {
		t.Run(r.name, func(t *testing.T) {
			c, shown := whole, r.faults
			if r.daemon != nil {
				c, shown = testbed.Printed, shown[:printed]
			}
			shown.compare(t, c, l.FW1.Table, r.known)
			r.losses.compare(t, inKernel(l.FW1), r.expects)
			if r.node != nil { // as people and scripts read it
				if err := same(internal, r.known, text(r.node, "peers"))(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	told, reference := l.receivers[2], l.receivers[3]
	for _, args := range [][]string{{"-e"}, {"-e", "-x"}, {"-e", "expect"}} {
		testbed.Eventually(t, patience, func() error { return sameText(told.daemon, reference.daemon, args) })
	}
}

// since is what a dump of conntrackd says that differs with the time of asking,
// and a mark of zero: sluice sends it, conntrackd not until there was another.
var since = regexp.MustCompile(` ?\[active since \d+s\]|<when>.*?</when>| mark=0\b|<mark>0</mark>`)

// sameText is an error unless two daemons print the same, in any order.
func sameText(a, b *testbed.Daemon, args []string) error {
	var lines [2][]string
	for i, d := range []*testbed.Daemon{a, b} {
		out, err := d.Ctl(args...)
		if err != nil {
			return err
		}
		lines[i] = strings.Split(since.ReplaceAllString(out, ""), "\n")
		slices.Sort(lines[i])
	}
	var diff []string
	for i, other := range [][]string{lines[1], lines[0]} {
		for _, line := range lines[i] {
			if _, found := slices.BinarySearch(other, line); !found {
				diff = append(diff, []string{"told by sluice: ", "by conntrackd:  "}[i]+line)
			}
		}
	}
	if len(diff) > 0 || len(lines[0]) != len(lines[1]) {
		return fmt.Errorf("conntrackd %v: %d lines and %d:\n%s", args, len(lines[0]), len(lines[1]), strings.Join(diff, "\n"))
	}
	return nil
}

// forget empties what all receivers know.
func (l *lab) forget(t *testing.T) {
	t.Helper()
	for _, r := range l.receivers {
		if r.node != nil {
			must[string](t)(r.node.Sluice("flush", "peers"))
		} else {
			r.daemon.MustCtl(t, "-f", "external")
		}
		testbed.Eventually(t, patience, empty(r.known))
		if r.node != nil { // conntrackd keeps expectations
			losses(nil).compare(t, func() ([]expected, error) { return nil, nil }, r.expects)
		}
	}
}

// clear clears all labels of a flow, which no event tells and no attribute of
// NOTRACK: sluice finds it when it reads the kernel again, and tells its kind.
func (l *lab) clear(t *testing.T) {
	in := &injector{first: 230}
	for _, labels := range []string{"\x08", "\x00"} {
		in.addOf(flow.IPv4, flow.UDP, 1000, 53, func(f *flow.Flow) {
			f.Original.Source, f.Original.Destination = [16]byte{10, 99, 230, 1}, [16]byte{10, 99, 230, 2}
			f.Reply = f.Original.Inverted(f.Protocol)
			f.Tail = f.Tail.Append(flow.AttrLabels, append([]byte(labels), make([]byte, 15)...))
		})
	}
	is := func(labels string) func(testbed.Flow) bool {
		return func(f testbed.Flow) bool {
			return f.Orig.Src == netip.AddrFrom4([4]byte{10, 99, 230, 1}) && f.Labels == labels
		}
	}
	set := "08" + strings.Repeat("00", 15)
	l.put(t, in.flows[:1])
	l.agree(t)
	l.put(t, in.flows[1:])
	if err := has(l.FW1.Table, 1, is(""))(); err != nil {
		t.Fatal(err)
	}
	must[string](t)(l.sluice.Sluice("resync"))
	testbed.Eventually(t, patience, has(l.receivers[0].known, 1, is("")))
	if err := has(l.receivers[1].known, 1, is(set))(); err != nil {
		t.Errorf("conntrackd tells of cleared labels: %v", err)
	}
	l.end(t, in.flows[:1])
	l.agree(t)
}

// tell empties what all know, and has the senders tell them again.
func (l *lab) tell(t *testing.T) {
	t.Helper()
	l.forget(t)
	must[string](t)(l.sluice.Sluice("bulk"))
	l.conntrackd.MustCtl(t, "-B")
}

// commitOf has a receiver put what it knows into the kernel of firewall 2, which
// knew nothing.
func (l *lab) commitOf(t *testing.T, r *receiver) {
	t.Helper()
	if err := l.FW2.Flush(); err != nil {
		t.Fatal(err)
	}
	if r.node != nil {
		t.Log(must[string](t)(r.node.Sluice("commit")))
	} else {
		r.daemon.MustCtl(t, "-c")
	}
}

// commit has each receiver in its turn put what it knows into the kernel of
// firewall 2, which is compared with that of firewall 1.
func (l *lab) commit(t *testing.T) {
	for _, r := range l.receivers {
		t.Run(r.name, func(t *testing.T) {
			l.commitOf(t, r)
			c := whole
			c.Status = committed.Status
			slices.Concat(r.faults, r.lacks).compare(t, c, l.FW1.Table, l.FW2.Table)
			r.missing.compare(t, inKernel(l.FW1), inKernel(l.FW2))
			strange := func(f testbed.Flow) bool { return f.Proto == unix.IPPROTO_TCP && liberal(f) == l.tracking }
			if table := l.FW2.MustTable(t).Where(strange); len(table) > 0 {
				t.Errorf("window tracking %v, but not of\n%v", l.tracking, table)
			}
			if err := sameTimeouts(l.FW1.MustTable(t), l.FW2.MustTable(t)); err != nil {
				t.Error(err)
			}
		})
	}
}

// Everything that a flow can have reaches every receiver as its sender knows it,
// and gets into its kernel: what is made, what changes, what ends; again in bulk
// and when somebody asks; by sluice whole, by conntrackd less what is named.
func TestEveryAttributeEveryWay(t *testing.T) {
	for name, tracking := range map[string]bool{"liberal": false, "window tracking": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, tracking)
			step := func(name string, f func(t *testing.T)) {
				if !t.Run(name, f) {
					t.FailNow() // what follows would wait for the same in vain
				}
			}
			announced := l.live(t, step)
			step("bulk", func(t *testing.T) {
				l.tell(t)
				l.agree(t)
			})
			step("request", func(t *testing.T) {
				l.forget(t)
				must[string](t)(l.receivers[1].node.Sluice("request-resync"))
				l.receivers[2].daemon.MustCtl(t, "-n")
				l.agree(t)
			})
			step("labels cleared", l.clear)
			step("commit", l.commit)
			step("takeover", func(t *testing.T) { l.takeover(t, announced) })
			for _, r := range l.receivers {
				if r.daemon != nil {
					undisturbed(t, r.daemon)
				} else {
					unharmed(t, r.node)
				}
			}
			unharmed(t, l.sluice) // conntrackd here hears two nodes, and mixes up their numbers
		})
	}
}

// live makes all flows and expectations, changes them and ends some.
func (l *lab) live(t *testing.T, step func(string, func(*testing.T))) (announced []announcement) {
	l.traffic(t)
	announced = l.sessions(t)
	flows := injected()
	l.put(t, flows)
	masters, expectations := injectedExpectations()
	l.put(t, masters)
	l.expect(t, expectations)
	l.reread(t)
	step("created", l.agree)
	everyKind(t, l.FW1.MustTable(t))
	everySort(t, l.FW1.MustTable(t))
	changed, gone := changes(flows)
	l.put(t, changed)
	step("updated", l.agree)
	l.end(t, gone)
	l.unexpect(t, expectations[:1])
	step("destroyed", l.agree)
	return announced
}

// takeover moves the addresses to firewall 2, where a sluice has committed what
// it knows. The client then makes the connections that it had announced before.
func (l *lab) takeover(t *testing.T, announced []announcement) {
	l.tell(t)
	l.agree(t)
	told := l.receivers[1] // by conntrackd
	if l.tracking {
		told = l.receivers[0]
	}
	l.commitOf(t, told)
	if err := l.MoveTo(l.FW2); err != nil {
		t.Fatal(err)
	}
	for _, a := range announced {
		a.open(t)
	}
}

// end deletes flows from the kernel of firewall 1.
func (l *lab) end(t *testing.T, flows []flow.Flow) {
	t.Helper()
	for i := range flows {
		if err := l.writer.Delete(&flows[i]); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.writer.Flush(); err != nil {
		t.Fatal(err)
	}
	if c := l.writer.Counts(true); c.Deleted != uint64(len(flows)) {
		t.Fatalf("%d flows to delete: %+v", len(flows), c)
	}
}
