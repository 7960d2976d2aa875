package testbed

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
)

// Table is a set of flows by their identity.
type Table map[Key]Flow

// Add puts a flow into the table.
func (t Table) Add(f Flow) { t[f.Key] = f }

// Where is the part of the table that keep accepts.
func (t Table) Where(keep func(Flow) bool) Table {
	part := make(Table)
	for key, f := range t {
		if keep(f) {
			part[key] = f
		}
	}
	return part
}

// One is the only flow that match accepts; none or several is an error, which
// makes it a condition for Await.
func (t Table) One(match func(Flow) bool) (Flow, error) {
	part := t.Where(match)
	for _, f := range part {
		if len(part) == 1 {
			return f, nil
		}
	}
	return Flow{}, fmt.Errorf("%d flows match among these %d:\n%s", len(part), len(t), tail(t.String(), 4<<10))
}

// String lists the flows in a fixed order, one a line.
func (t Table) String() string {
	var text strings.Builder
	for _, key := range t.keys() {
		fmt.Fprintln(&text, t[key])
	}
	return text.String()
}

// Table reads the connections that the kernel tracks in the namespace. It costs
// 10 to 20 µs and 3 kB a flow: see Count and Dump for large tables.
func (n *Namespace) Table() (Table, error) {
	conn, err := n.Conntrack()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	flows, err := conn.Dump(nil)
	if err != nil {
		return nil, fmt.Errorf("testbed: %s: table: %w", n, err)
	}
	return normalise(flows), nil
}

// Dump is Table for the flows that a filter of the kernel's accepts.
func (n *Namespace) Dump(filter conntrack.Filter) (Table, error) {
	conn, err := n.Conntrack()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	flows, err := conn.DumpFilter(filter, nil)
	if err != nil {
		return nil, fmt.Errorf("testbed: %s: table: %w", n, err)
	}
	return normalise(flows), nil
}

// MustTable is Table for tests.
func (n *Namespace) MustTable(t TB) Table {
	t.Helper()
	table, err := n.Table()
	if err != nil {
		t.Fatalf("%v", err)
	}
	return table
}

// Conntrack opens a ctnetlink connection to the namespace, for what this
// package has no function for. Never call Get on it: it waits for ever.
func (n *Namespace) Conntrack() (*conntrack.Conn, error) {
	conn, err := conntrack.Dial(&netlink.Config{NetNS: int(n.file.Fd())})
	if err != nil {
		return nil, fmt.Errorf("testbed: %s: ctnetlink: %w", n, err)
	}
	return conn, nil
}

// Count is the number of entries in the kernel's table, those on their way out
// included.
func (n *Namespace) Count() (int, error) {
	text, err := n.ReadSysctl("net.netfilter.nf_conntrack_count")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// Flush empties the kernel's table.
func (n *Namespace) Flush() error {
	conn, err := n.Conntrack()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("testbed: %s: flush: %w", n, err)
	}
	return nil
}

func normalise(flows []conntrack.Flow) Table {
	table := make(Table, len(flows))
	for i := range flows {
		table.Add(flowOf(&flows[i]))
	}
	return table
}

func flowOf(f *conntrack.Flow) Flow {
	flow := Flow{
		Key:       Key{Proto: f.TupleOrig.Proto.Protocol, Orig: tupleOf(&f.TupleOrig), Zone: f.Zone},
		Reply:     tupleOf(&f.TupleReply),
		Status:    uint32(f.Status),
		Timeout:   f.Timeout,
		Mark:      f.Mark,
		Labels:    labelsOf(f.Labels),
		Helper:    strings.TrimRight(f.Helper.Name, "\x00"),
		Master:    tupleOf(&f.TupleMaster),
		TCP:       NoTCPState,
		SeqAdjust: [2]SeqAdjust{seqAdjustOf(f.SeqAdjOrig), seqAdjustOf(f.SeqAdjReply)},
		ID:        f.ID,
	}
	if tcp := f.ProtoInfo.TCP; tcp != nil {
		flow.TCP = TCPState(tcp.State)
		flow.TCPWindow = [2]uint8{tcp.OriginalWindowScale, tcp.ReplyWindowScale}
		flow.TCPFlags = [2]uint8{uint8(tcp.OriginalFlags >> 8), uint8(tcp.ReplyFlags >> 8)}
	}
	if sctp := f.ProtoInfo.SCTP; sctp != nil {
		flow.SCTPState = sctp.State
		flow.SCTPTags = [2]uint32{sctp.VTagOriginal, sctp.VTagReply}
	}
	flow.SynProxy = [3]uint32{f.SynProxy.ISN, f.SynProxy.ITS, f.SynProxy.TSOff}
	return flow
}

func tupleOf(t *conntrack.Tuple) Tuple {
	return Tuple{
		Src:      t.IP.SourceAddress,
		Dst:      t.IP.DestinationAddress,
		SrcPort:  t.Proto.SourcePort,
		DstPort:  t.Proto.DestinationPort,
		ICMPType: t.Proto.ICMPType,
		ICMPCode: t.Proto.ICMPCode,
		ICMPID:   t.Proto.ICMPID,
		Zone:     t.Zone,
	}
}

func labelsOf(labels []byte) string {
	text := hex.EncodeToString(labels)
	if strings.Trim(text, "0") == "" {
		return ""
	}
	return text
}

func seqAdjustOf(s conntrack.SequenceAdjust) SeqAdjust {
	return SeqAdjust{Position: s.Position, Before: s.OffsetBefore, After: s.OffsetAfter}
}
