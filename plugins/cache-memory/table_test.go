package cachememory

import (
	"bytes"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/sluice-project/sluice/core/flow"
)

// TestEntrySize guards what docs and bytes() say of memory.
func TestEntrySize(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n != entrySize {
		t.Errorf("an entry has %d bytes", n)
	}
}

// TestTableAgainstMap does the same random things to a table and to a map.
func TestTableAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	table, model := newTable(), map[key][]byte{}
	random := func() (key, flow.Record) {
		e := flow.Event{Kind: flow.New, Flow: flow.Flow{Family: flow.IPv4, Protocol: flow.TCP}}
		e.Original.SourcePort = uint16(r.IntN(3000))
		for i, address := range [...]*[16]byte{&e.Original.Source, &e.Original.Destination, &e.Reply.Source, &e.Reply.Destination} {
			// A key's addresses are always the same. Its reply has room for a while, and then not.
			if seed := int(e.Original.SourcePort) + i/2*r.IntN(2); seed%3 == 0 {
				address[4+(seed/3+i)%12] = byte(1 + seed%255)
			}
			address[0], address[3] = 10, byte(i)
		}
		e.Reply.DestinationPort = uint16(r.Uint32())
		if r.IntN(2) == 0 {
			n := r.IntN(100)
			if r.IntN(100) == 0 {
				n = r.IntN(60000)
			}
			e.Tail = e.Tail.Append(1, bytes.Repeat([]byte{byte(r.IntN(256))}, n))
		}
		e.Mark = r.Uint32()
		record := flow.AppendRecord(nil, &e)
		return keyOf(record), record
	}
	for range 200000 {
		k, record := random()
		slot := table.find(&k)
		if (slot != 0) != (model[k] != nil) {
			t.Fatalf("slot %d, model %v", slot, model[k] != nil)
		}
		switch {
		case slot == 0:
			table.insert(&k, record)
			model[k] = record
		case r.IntN(2) == 0:
			table.remove(slot)
			delete(model, k)
		default:
			table.replace(table.at(slot), record)
			model[k] = record
		}
	}
	for k, want := range model {
		slot := table.find(&k)
		if slot == 0 || !bytes.Equal(table.appendRecord(nil, table.at(slot)), want) {
			t.Fatal("an entry is lost or wrong")
		}
	}
	used := 0
	for slot := uint32(1); slot <= table.last; slot++ {
		if table.at(slot).alive() {
			used++
		}
	}
	if used != len(model) || table.index.used != used {
		t.Errorf("%d entries, %d in the index, %d in the model", used, table.index.used, len(model))
	}
}
