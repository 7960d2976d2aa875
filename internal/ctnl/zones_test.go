package ctnl

import (
	"encoding/binary"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

func helpedFlow(kind flow.Kind, i uint32, zone uint16) *flow.Event {
	e := &flow.Event{Kind: kind, Flow: flow.Flow{Family: flow.IPv4, Protocol: flow.TCP, Zone: zone}}
	binary.BigEndian.PutUint32(e.Original.Source[:], i)
	if kind != flow.Destroy {
		e.Tail = e.Tail.Append(flow.AttrHelper, []byte("ftp"))
	}
	return e
}

func expectedBy(z *MasterZones, i uint32) uint16 {
	e := flow.Event{Kind: flow.Expect, Flow: flow.Flow{Family: flow.IPv4, Protocol: flow.TCP}}
	m := helpedFlow(flow.New, i, 0)
	e.Tail = e.Tail.AppendMaster(&flow.Master{Family: m.Family, Protocol: m.Protocol, Tuple: m.Original})
	z.Complete(&e)
	return e.Zone
}

func TestMasterZones(t *testing.T) {
	var z MasterZones
	check := func(i uint32, want uint16) {
		t.Helper()
		if got := expectedBy(&z, i); got != want {
			t.Fatalf("zone %d, want %d", got, want)
		}
	}
	check(1, 0)
	z.Note(helpedFlow(flow.New, 1, 7))
	z.Note(helpedFlow(flow.Destroy, 1, 8)) // of a flow in another zone
	check(1, 7)
	z.Note(helpedFlow(flow.Destroy, 1, 7)) // its expectations end after it
	check(1, 7)
	z.Note(helpedFlow(flow.New, 1, 0)) // the tuple's next flow has no zone
	check(1, 0)
	z.Note(helpedFlow(flow.New, 1, 9))
	z.Note(helpedFlow(flow.Destroy, 1, 9))
	for i := uint32(2); i < 10*maxEnded; i++ {
		z.Note(helpedFlow(flow.New, i, 5))
		z.Note(helpedFlow(flow.Destroy, i, 5))
		check(i, 5)
	}
	check(1, 0) // forgotten in the end
	if n := len(z.zones) + len(z.ended[0]) + len(z.ended[1]); n > maxEnded {
		t.Errorf("%d are remembered", n)
	}
}
