package testbed

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fields are the parts of flows to compare, beside their identity.
type Fields uint

// The fields. Nodes, with their timeouts, clocks and TCP windows of their own,
// differ in some of them by nature: Replicated is what ought to be equal.
const (
	FieldReply Fields = 1 << iota
	FieldStatus
	FieldTCP
	FieldMark
	FieldLabels
	FieldHelper
	FieldMaster
	FieldSCTP
	FieldSeqAdjust
	FieldSynProxy
	FieldTimeout
	FieldTCPWindow
	FieldTCPFlags

	Replicated = FieldReply | FieldStatus | FieldTCP | FieldMark | FieldLabels | FieldHelper | FieldMaster | FieldSCTP | FieldSeqAdjust | FieldSynProxy
)

// Comparison says how to compare tables.
type Comparison struct {
	// Fields to compare; 0 is Replicated.
	Fields Fields
	// Status masks the bits of FieldStatus; 0 is all of them.
	Status uint32
	// Lines bounds the report; 0 is 20.
	Lines int
}

// Diff reports how got differs from want, a line a flow, "" if it does not:
// "-" is missing, "+" is unexpected, and "~" has other values, named.
func (c Comparison) Diff(want, got Table) string {
	var lines []string
	for _, key := range want.keys() {
		other, found := got[key]
		if !found {
			lines = append(lines, fmt.Sprintf("- %s", want[key]))
		} else if changes := c.changes(want[key], other); len(changes) > 0 {
			lines = append(lines, fmt.Sprintf("~ %s: %s", key, strings.Join(changes, ", ")))
		}
	}
	for _, key := range got.keys() {
		if _, known := want[key]; !known {
			lines = append(lines, fmt.Sprintf("+ %s", got[key]))
		}
	}
	return c.report(lines, len(want), len(got))
}

// Diff compares what ought to be equal on two nodes; see Comparison.
func Diff(want, got Table) string { return Comparison{}.Diff(want, got) }

// Same makes a condition for Await: the difference, if there is one, is the
// error.
func (c Comparison) Same(want, got Table) error {
	if diff := c.Diff(want, got); diff != "" {
		return fmt.Errorf("tables differ:\n%s", diff)
	}
	return nil
}

func (c Comparison) report(lines []string, want, got int) string {
	if len(lines) == 0 {
		return ""
	}
	limit := c.Lines
	if limit == 0 {
		limit = 20
	}
	shown := lines[:min(limit, len(lines))]
	text := strings.Join(shown, "\n")
	if more := len(lines) - len(shown); more > 0 {
		text += fmt.Sprintf("\n… and %d more differences", more)
	}
	return text + fmt.Sprintf("\n(%d flows wanted, %d there)", want, got)
}

// changes names each compared field in which b differs from a.
func (c Comparison) changes(a, b Flow) []string {
	fields, mask := c.Fields, c.Status
	if fields == 0 {
		fields = Replicated
	}
	if mask == 0 {
		mask = ^uint32(0)
	}
	var changes []string
	compare := func(field Fields, name string, x, y any) {
		if fields&field != 0 && x != y {
			changes = append(changes, fmt.Sprintf("%s %v, not %v", name, y, x))
		}
	}
	compare(FieldReply, "reply", a.Reply.text(a.Proto), b.Reply.text(b.Proto))
	compare(FieldStatus, "status", fmt.Sprintf("0x%x", a.Status&mask), fmt.Sprintf("0x%x", b.Status&mask))
	compare(FieldTCP, "state", a.TCP, b.TCP)
	compare(FieldMark, "mark", a.Mark, b.Mark)
	compare(FieldLabels, "labels", a.Labels, b.Labels)
	compare(FieldHelper, "helper", a.Helper, b.Helper)
	compare(FieldMaster, "master", a.Master, b.Master)
	compare(FieldSCTP, "sctp state", a.SCTPState, b.SCTPState)
	compare(FieldSCTP, "sctp tags", a.SCTPTags, b.SCTPTags)
	compare(FieldSeqAdjust, "sequence adjustment", a.SeqAdjust, b.SeqAdjust)
	compare(FieldSynProxy, "synproxy", a.SynProxy, b.SynProxy)
	compare(FieldTimeout, "timeout", a.Timeout, b.Timeout)
	compare(FieldTCPWindow, "window scales", a.TCPWindow, b.TCPWindow)
	compare(FieldTCPFlags, "tcp flags", a.TCPFlags, b.TCPFlags)
	return changes
}

// keys lists the identities in order: protocol, addresses, ports.
func (t Table) keys() []Key {
	keys := make([]Key, 0, len(t))
	for key := range t {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(a, b Key) int {
		return cmp.Or(
			cmp.Compare(a.Proto, b.Proto),
			a.Orig.Src.Compare(b.Orig.Src),
			a.Orig.Dst.Compare(b.Orig.Dst),
			cmp.Compare(a.Orig.SrcPort, b.Orig.SrcPort),
			cmp.Compare(a.Orig.DstPort, b.Orig.DstPort),
			cmp.Compare(a.Orig.ICMPType, b.Orig.ICMPType),
			cmp.Compare(a.Orig.ICMPID, b.Orig.ICMPID),
			cmp.Compare(a.Zone, b.Zone),
			cmp.Compare(a.Orig.Zone, b.Orig.Zone),
		)
	})
	return keys
}
