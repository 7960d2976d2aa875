package interop

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/testbed"
)

// whole compares all that nodes can tell each other.
var whole = testbed.Comparison{Fields: testbed.Replicated | testbed.FieldTCPWindow}

// internal compares what conntrackd prints of its own kernel's flows.
var internal = testbed.Comparison{Fields: testbed.Printed.Fields | testbed.FieldReply, Status: testbed.Printed.Status}

// A fault is something that conntrackd does not tell its peers, or spoils. It
// says what becomes of a flow; false, if nothing remains of it.
type fault struct {
	name  string
	spoil func(f *testbed.Flow) bool
}

type faults []fault

// printed is how many of unsent conntrackd's dump of its peers' flows shows.
const printed = 2

// unsent is what NOTRACK has no attribute for.
var unsent = faults{
	{"ports of UDP-Lite and keys of GRE are not sent, but where they are translated", func(f *testbed.Flow) bool {
		if f.Proto == unix.IPPROTO_UDPLITE || f.Proto == unix.IPPROTO_GRE {
			before := f.Orig
			f.Orig.SrcPort, f.Orig.DstPort = 0, 0
			if f.Reply.DstPort == before.SrcPort {
				f.Reply.DstPort = 0
			}
			if f.Reply.SrcPort == before.DstPort {
				f.Reply.SrcPort = 0
			}
		}
		return true
	}},
	{"zones of one direction are not sent", func(f *testbed.Flow) bool {
		f.Orig.Zone, f.Reply.Zone = 0, 0
		return true
	}},
	{"a translated ICMP id is not sent", func(f *testbed.Flow) bool {
		f.Reply.ICMPID = f.Orig.ICMPID
		return true
	}},
}

// windowScale: they are sent with TCPWindowTracking alone, and in no case do they
// get into the kernel: it takes them with a flag that conntrackd does not set.
var windowScale = fault{"window scales are not sent, or not committed", func(f *testbed.Flow) bool {
	f.TCPWindow = [2]uint8{}
	return true
}}

// natPorts is what becomes of a translated port of other protocols than TCP and
// UDP when conntrackd commits it.
var natPorts = fault{"translated ports are committed of TCP and UDP alone", func(f *testbed.Flow) bool {
	if f.Proto != unix.IPPROTO_SCTP && f.Proto != unix.IPPROTO_UDPLITE {
		return true
	}
	f.Reply.SrcPort, f.Reply.DstPort = f.Orig.DstPort, f.Orig.SrcPort
	if f.Reply.Dst == f.Orig.Src {
		f.Status &^= testbed.StatusSrcNAT
	}
	if f.Reply.Src == f.Orig.Dst {
		f.Status &^= testbed.StatusDstNAT
	}
	return true
}}

// sctpTag is what becomes of an SCTP flow that conntrackd commits without
// TCPWindowTracking: TCP's flags are written over the tag.
var sctpTag = fault{"the lowest byte of SCTP's original tag becomes 8", func(f *testbed.Flow) bool {
	if f.Proto == unix.IPPROTO_SCTP {
		f.SCTPTags[0] = f.SCTPTags[0]&^0xff | 8
	}
	return true
}}

func (all faults) spoil(table testbed.Table) testbed.Table {
	spoilt := testbed.Table{}
	for _, f := range table {
		if !slices.ContainsFunc(all, func(x fault) bool { return !x.spoil(&f) }) {
			spoilt.Add(f)
		}
	}
	return spoilt
}

// compare waits until got is want with all faults, and checks that each of them
// still shows: the list is to name no fault that there is not.
func (all faults) compare(t *testing.T, c testbed.Comparison, want, got source) {
	t.Helper()
	var w, g testbed.Table
	testbed.Eventually(t, patience, func() (err error) {
		if w, err = want(); err != nil {
			return err
		}
		if g, err = got(); err != nil {
			return err
		}
		return c.Same(all.spoil(w), g)
	})
	for i, x := range all {
		if c.Same(slices.Delete(slices.Clone(all), i, i+1).spoil(w), g) == nil {
			t.Errorf("not seen: %s", x.name)
		}
	}
}

// liberal says whether the kernel does not check a flow's windows.
func liberal(f testbed.Flow) bool {
	const beLiberal = 8 // IP_CT_TCP_FLAG_BE_LIBERAL
	return f.TCPFlags[0]&f.TCPFlags[1]&beLiberal != 0
}

// drift is how far timeouts may differ, in seconds: what is sent is as old as the
// flow's last event, and the two kernels count down for themselves.
const drift = 45

// unacknowledged is what TCP gives a connection while data is under way
// (nf_conntrack_tcp_timeout_unacknowledged). The acknowledgement makes no event.
const unacknowledged = 300

// sameTimeouts is an error unless what is left of each flow's time is about the
// same in both tables.
func sameTimeouts(want, got testbed.Table) error {
	near := func(a, b uint32) bool { return a < b+drift && b < a+drift }
	for key, f := range got {
		w, found := want[key]
		if found && !near(f.Timeout, w.Timeout) && !(f.TCP == testbed.Established && near(f.Timeout, unacknowledged)) {
			return fmt.Errorf("%v: %d s are left, not %d", key, f.Timeout, w.Timeout)
		}
	}
	return nil
}
