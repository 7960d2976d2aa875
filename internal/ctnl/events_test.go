package ctnl

import (
	"errors"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// Reading after an overrun: the loss is told first, then what is queued comes,
// and when all of it is read, events arrive again.
func TestOverrunIsToldAndEnds(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := mustEvents(t, n, EventsConfig{Buffer: 64 << 10})
	w := mustWriter(t, n, WriterConfig{})
	fill := func(first, many int) {
		for i := first; i < first+many; i++ {
			f := udp("10.0.0.1:1", "10.0.0.2:2")
			f.Original.SourcePort = uint16(i)
			f.Reply = f.Original.Inverted(flow.UDP)
			if err := w.Commit(f); err != nil {
				t.Fatal(err)
			}
		}
		finish(t, w)
	}
	fill(1, 200)
	if got, err := s.Read(); !errors.Is(err, ErrOverrun) {
		t.Fatalf("read %d, %v", got, err)
	}
	if queued := len(drain(t, s)); queued == 0 || queued >= 200 {
		t.Fatalf("%d events were queued", queued)
	}
	var drops uint64
	in(t, n, func() (err error) { drops, err = s.Drops(); return err })
	if drops == 0 {
		t.Fatal("no drops are counted")
	}
	for want := 128 << 10; want <= 256<<10; want *= 2 {
		if size, grew, err := s.Grow(256 << 10); err != nil || !grew || size != want {
			t.Fatalf("grew to %d, %v, %v", size, grew, err)
		}
	}
	if size, grew, err := s.Grow(256 << 10); err != nil || grew {
		t.Fatalf("grew beyond the maximum: %d, %v", size, err)
	}
	fill(1000, 150)
	mustCount(t, "events", uint64(len(drain(t, s))), 150)
}

// While new flows are not to be heard of, all else is.
func TestHearNew(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := mustEvents(t, n, EventsConfig{})
	w := mustWriter(t, n, WriterConfig{})
	f := udp("10.0.0.1:1", "10.0.0.2:2")
	for _, c := range []struct {
		hear   bool
		events uint64
	}{{true, 3}, {false, 2}, {false, 2}, {true, 3}, {true, 3}} {
		if err := s.HearNew(c.hear); err != nil {
			t.Fatal(err)
		}
		for _, mark := range []uint32{1, 2} { // NEW, UPDATE
			f.Mark, f.Present = mark, f.Present|flow.HasMark
			if err := w.Commit(f); err != nil {
				t.Fatal(err)
			}
			finish(t, w)
		}
		if err := w.Delete(f); err != nil {
			t.Fatal(err)
		}
		finish(t, w)
		mustCount(t, "events", uint64(len(drain(t, s))), c.events)
	}
}

func TestDropPorts(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	ports := []uint32{0x11, 0xc0de0001, 0x7fff1234}
	s := mustEvents(t, n, EventsConfig{DropPorts: ports})
	f := udp("10.0.0.1:1", "10.0.0.2:2")
	for _, port := range append(ports, 0x12345678) {
		w := mustWriter(t, n, WriterConfig{Port: port})
		if w.Port() != port {
			t.Fatalf("port %#x", w.Port())
		}
		commitAll(t, w, f)
		if err := w.Delete(f); err != nil {
			t.Fatal(err)
		}
		finish(t, w)
	}
	messages := drain(t, s)
	events := decodeAll(t, messages)
	if len(events) != 2 || events[0].Kind != flow.New || events[1].Kind != flow.Destroy || Port(messages[0]) != 0x12345678 {
		t.Fatalf("%d events arrived", len(events))
	}
}

func TestWakeEndsOneWait(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	s := mustEvents(t, n, EventsConfig{})
	s.Wake()
	if err := s.Wait(patience); err != nil {
		t.Fatal(err)
	}
	s.Wake()
	if err := s.Pause(time.Hour); err != nil {
		t.Fatal(err)
	}
	go s.Wake()
	if err := s.Wait(patience); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Read(); got != 0 || err != nil {
		t.Fatal(got, err)
	}
}

func TestDropsOf(t *testing.T) {
	const table = `sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
0000000000000000 0   1204       00000551 0        0        0     2        7        9061
0000000000000000 12  1204       00000007 1280     0        0     2        31       9062
`
	if got, err := dropsOf(table, 1204); got != 31 || err != nil {
		t.Fatal(got, err)
	}
	if _, err := dropsOf(table, 5); err == nil {
		t.Fatal("found a socket that is not there")
	}
}

// A flow that begins while nobody listens has events because of the setting. (It
// may have them without, when somebody listens in another namespace.)
func TestEnableEvents(t *testing.T) {
	f := udp("10.0.0.1:1", "10.0.0.2:2")
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	for _, want := range []string{"2", "1"} {
		in(t, n, func() error {
			before, err := EnableEvents()
			if before != want {
				return errors.Join(err, errors.New("nf_conntrack_events was "+before))
			}
			return err
		})
	}
	commitAll(t, w, f)
	s := mustEvents(t, n, EventsConfig{})
	if err := w.Delete(f); err != nil {
		t.Fatal(err)
	}
	finish(t, w)
	mustCount(t, "events", uint64(len(drain(t, s))), 1)
}

func TestDumpFilters(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	w := mustWriter(t, n, WriterConfig{})
	marked := with(udp("10.0.0.1:1", "10.0.0.2:2"), func(f *flow.Flow) { f.Mark, f.Present = 0x12, f.Present|flow.HasMark })
	zoned := with(udp("10.0.0.1:3", "10.0.0.2:2"), func(f *flow.Flow) { f.Zone = 4 })
	young := with(udp("10.0.0.1:4", "10.0.0.2:2"), func(f *flow.Flow) { f.Status = flow.Confirmed })
	six := udp("[fd00::1]:1", "[fd00::2]:2")
	commitAll(t, w, marked, zoned, young, six)
	four, zero := uint16(4), uint16(0)
	for name, c := range map[string]struct {
		filter Filter
		want   []*flow.Flow
	}{
		"all":       {Filter{}, []*flow.Flow{marked, zoned, young, six}},
		"family":    {Filter{Family: flow.IPv6}, []*flow.Flow{six}},
		"mark":      {Filter{Mark: 0x10, MarkMask: 0xf0}, []*flow.Flow{marked}},
		"no mark":   {Filter{MarkMask: 0xff}, []*flow.Flow{zoned, young, six}},
		"zone":      {Filter{Zone: &four}, []*flow.Flow{zoned}},
		"zone zero": {Filter{Zone: &zero}, []*flow.Flow{marked, young, six}},
		"status":    {Filter{Status: flow.Assured, StatusMask: flow.Assured}, []*flow.Flow{marked, zoned, six}},
	} {
		got := map[flow.Key]bool{}
		for _, e := range dump(t, n, c.filter) {
			got[e.Key()] = true
			if e.Kind != flow.Update {
				t.Errorf("%s: kind %v", name, e.Kind)
			}
		}
		for _, f := range c.want {
			if !got[f.Key()] {
				t.Errorf("%s: missing %v", name, f)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: %d entries, want %d", name, len(got), len(c.want))
		}
	}
}
