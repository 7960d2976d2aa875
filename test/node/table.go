package node

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// Table reads a cache as the testbed sees the kernel's table, so that the two
// can be compared.
func (n *Node) Table(target string) (testbed.Table, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*Timeout)
	defer cancel()
	var out bytes.Buffer
	if err := n.Client().Dump(ctx, control.DumpRequest{Target: target, JSON: true}, &out); err != nil {
		return nil, err
	}
	table, decoder := testbed.Table{}, json.NewDecoder(&out)
	for {
		var v flow.View
		err := decoder.Decode(&v)
		if errors.Is(err, io.EOF) {
			return table, nil
		}
		if err != nil {
			return nil, fmt.Errorf("dump of %s: %w", target, err)
		}
		table.Add(flowOf(&v))
	}
}

func flowOf(v *flow.View) (f testbed.Flow) {
	f.Proto, f.Zone = v.ProtocolNumber, v.Zone
	f.Orig = tupleOf(&v.Original, v.ZoneOriginal)
	if v.Reply != nil {
		f.Reply = tupleOf(v.Reply, v.ZoneReply)
	}
	f.Status = statusOf(v.Status)
	stateOf(v, &f)
	set(&f.Timeout, v.Timeout)
	set(&f.Mark, v.Mark)
	f.Helper, f.Labels = v.Helper, labels(v.Labels)
	if v.Master != nil {
		f.Master = tupleOf(&v.Master.TupleView, 0)
	}
	if v.SeqAdj != nil {
		for i, a := range v.SeqAdj {
			f.SeqAdjust[i] = testbed.SeqAdjust{Position: a.Position, Before: a.Before, After: a.After}
		}
	}
	return f
}

// stateOf fills in what a protocol keeps of its own.
func stateOf(v *flow.View, f *testbed.Flow) {
	f.TCP = testbed.NoTCPState
	switch {
	case f.Proto == unix.IPPROTO_TCP && v.State != "":
		if state, err := flow.ParseTCPState(v.State); err == nil {
			f.TCP = testbed.TCPState(state)
		}
	case f.Proto == unix.IPPROTO_SCTP && v.State != "":
		f.SCTPState, _ = flow.ParseSCTPState(v.State)
	}
	set(&f.TCPWindow, v.WindowScale)
	set(&f.SCTPTags, v.SCTPTags)
	if s := v.Synproxy; s != nil {
		f.SynProxy = [3]uint32{s.ISN, s.ITS, s.TSOff}
	}
}

// labels leaves out labels of which none is set, as testbed.Flow does.
func labels(text string) string {
	raw, _ := hex.DecodeString(text)
	for _, b := range raw {
		if b != 0 {
			return text
		}
	}
	return ""
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

func tupleOf(v *flow.TupleView, zone uint16) testbed.Tuple {
	t := testbed.Tuple{Src: v.Source, Dst: v.Destination, Zone: zone}
	set(&t.SrcPort, v.SourcePort)
	set(&t.DstPort, v.DestinationPort)
	set(&t.ICMPType, v.ICMPType)
	set(&t.ICMPCode, v.ICMPCode)
	set(&t.ICMPID, v.ICMPID)
	set(&t.SrcPort, v.SourceKey)
	set(&t.DstPort, v.DestinationKey)
	return t
}

func statusOf(names []string) (status uint32) {
	for _, name := range names {
		if bit, err := flow.ParseStatus(name); err == nil {
			status |= uint32(bit)
		}
	}
	return status
}
