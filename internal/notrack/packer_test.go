package notrack

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

func TestTracker(t *testing.T) {
	type step struct {
		seq     uint32
		order   Order
		missing uint32
	}
	for name, steps := range map[string][]step{
		"first":              {{1000, InOrder, 0}, {1001, InOrder, 0}},
		"gap":                {{1, InOrder, 0}, {5, Gap, 3}, {6, InOrder, 0}},
		"before":             {{5, InOrder, 0}, {3, Before, 0}, {4, InOrder, 0}},
		"repeated":           {{5, InOrder, 0}, {5, Before, 0}},
		"wrap":               {{0xffffffff, InOrder, 0}, {0, InOrder, 0}, {2, Gap, 1}},
		"gap over the wrap":  {{0xfffffffe, InOrder, 0}, {1, Gap, 2}},
		"back over the wrap": {{1, InOrder, 0}, {0xfffffff0, Before, 0}},
		"half way":           {{0, InOrder, 0}, {0x7fffffff, Gap, 0x7ffffffe}},
		"half back":          {{0, InOrder, 0}, {0x80000000, Before, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var tr Tracker
			for _, s := range steps {
				if o, n := tr.Observe(s.seq); o != s.order || n != s.missing {
					t.Errorf("%d: order %d, %d missing; want %d, %d", s.seq, o, n, s.order, s.missing)
				}
			}
		})
	}
}

func TestRepeats(t *testing.T) {
	for name, c := range map[string]struct {
		seq  []uint32
		want []int // indexes of those that repeat
	}{
		"in order":           {[]uint32{5, 6, 7}, nil},
		"at once":            {[]uint32{5, 5, 6, 6}, []int{1, 3}},
		"later":              {[]uint32{5, 6, 7, 6, 8}, []int{3}},
		"late, not twice":    {[]uint32{5, 7, 6, 8, 6}, []int{4}},
		"below the first":    {[]uint32{5, 4, 4}, []int{2}},
		"over the wrap":      {[]uint32{0xffffffff, 0, 0xffffffff}, []int{2}},
		"after a gap":        {[]uint32{5, 5 + repeatWindow - 1, 5}, []int{2}},
		"another count":      {[]uint32{5000, 5000 + repeatWindow, 5000}, nil},
		"a number anew":      {[]uint32{1, 400, 1 + repeatWindow, 1 + repeatWindow}, []int{3}},
		"far back and forth": {[]uint32{1 << 20, 1, 1 << 20}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var tr Tracker
			var got []int
			for i, seq := range c.seq {
				if tr.Repeats(seq) {
					got = append(got, i)
					continue
				}
				tr.Observe(seq)
			}
			if !slices.Equal(got, c.want) || tr.Repeated != uint64(len(c.want)) {
				t.Errorf("%d repeat, want %d; counted %d", got, c.want, tr.Repeated)
			}
		})
	}
}

// A datagram that the network doubles yields its messages once, and makes the
// next one no gap.
func TestRepeatedDatagram(t *testing.T) {
	packer := NewPacker(1472, NewSequencer(1))
	e := newFlow(flow.UDPLite, 1, 2) // with an extension
	data, _ := NewEncoder(Settings{}).AppendFlow(nil, &e)
	for range 3 {
		packer.Append(data)
		packer.Flush()
	}
	var d Decoder
	var tr Tracker
	flows := 0
	for _, i := range []int{0, 1, 0, 1, 2} {
		d.Reset(packer.Datagram(i), &tr)
		for m := (Message{}); d.Next(&m); {
			flows++
		}
	}
	if flows != 3 || tr.Gaps+tr.Before != 0 || tr.Repeated != 4 || d.Counters != (Counters{}) {
		t.Errorf("%d flows, %+v, %+v", flows, tr, d.Counters)
	}
}

func TestRoom(t *testing.T) {
	for _, tt := range []struct {
		mtu  int
		ipv6 bool
		want int
	}{{1500, false, 1472}, {1500, true, 1452}, {9000, false, 8972}, {65536, false, 65507}, {65536, true, 65488}} {
		if got := Room(tt.mtu, tt.ipv6); got != tt.want {
			t.Errorf("MTU %d, IPv6 %v: room %d, want %d", tt.mtu, tt.ipv6, got, tt.want)
		}
	}
}

func TestPacker(t *testing.T) {
	p := NewPacker(1472, NewSequencer(0xfffffffe))
	message := make([]byte, 92) // 16 of these are exactly the room: one too many
	binary.BigEndian.PutUint16(message[2:], 92)
	for range 16 {
		p.Append(message)
	}
	p.Flush()
	if p.Len() != 2 || len(p.Datagram(0)) != 15*92 || len(p.Datagram(1)) != 92 {
		t.Fatalf("%d datagrams", p.Len())
	}
	if seq := binary.BigEndian.Uint32(p.Datagram(1)[4:]); seq != 13 {
		t.Errorf("message 16 has number %d, want 13", seq)
	}
	if p.Append(make([]byte, 1472)) {
		t.Error("took a message as long as the room")
	}

	p.Reset()
	p.SetReplay(7)
	for range 16 {
		p.Append(message)
	}
	p.SetReplay(0)
	p.Append(message)
	p.Flush()
	if p.Len() != 3 {
		t.Fatalf("%d datagrams, want 3", p.Len())
	}
	for i, want := range []uint64{7, 7, 0} {
		var d Decoder
		d.Reset(p.Datagram(i), nil)
		for m := (Message{}); d.Next(&m); {
		}
		if d.replay != want {
			t.Errorf("datagram %d is of replay %d, want %d", i, d.replay, want)
		}
	}
}

func TestParseVersion(t *testing.T) {
	for s, want := range map[string]Version{"1.4.2": 2, "1.4.9": 9, "1.4.7": 7, "1.4.1": 0, "1.4.10": 0, "7": 0, "1.4.x": 0, "": 0} {
		got, err := ParseVersion(s)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
}

// realDatagrams are what a busy conntrackd sent.
func realDatagrams(tb testing.TB) (datagrams [][]byte, messages int) {
	for _, c := range readIndex(tb).Captures {
		for i, p := range readCapture(tb, c.File) {
			datagrams = append(datagrams, p)
			messages += len(c.Datagrams[i].Messages)
		}
	}
	return datagrams, messages
}

func BenchmarkDecode(b *testing.B) {
	datagrams, messages := realDatagrams(b)
	var d Decoder
	var tr Tracker
	var m Message
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		for _, p := range datagrams {
			d.Reset(p, &tr)
			for d.Next(&m) {
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*messages), "ns/message")
}

func BenchmarkEncode(b *testing.B) {
	events, seq := realEvents(b), NewSequencer(1)
	enc, p := NewEncoder(Settings{Timeout: true}), NewPacker(1472, seq)
	var buf []byte
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		p.Reset()
		for i := range events {
			buf, _ = enc.AppendFlow(buf[:0], &events[i])
			p.Append(buf)
		}
		p.Flush()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(events)), "ns/message")
}

func realEvents(tb testing.TB) (events []flow.Event) {
	datagrams, _ := realDatagrams(tb)
	for _, p := range datagrams {
		var d Decoder
		var m Message
		for d.Reset(p, nil); d.Next(&m); {
			if m.Kind == Flow {
				e := m.Event
				e.Tail = append(flow.Attributes{}, e.Tail...)
				events = append(events, e)
			}
		}
	}
	return events
}

// TestNoAllocations holds the benchmarks' promise in every test run.
func TestNoAllocations(t *testing.T) {
	datagrams, _ := realDatagrams(t)
	events := realEvents(t)
	var d Decoder
	var tr Tracker
	var m Message
	enc, p := NewEncoder(Settings{Timeout: true}), NewPacker(1472, NewSequencer(1))
	var buf []byte
	work := func() {
		for _, dg := range datagrams {
			for d.Reset(dg, &tr); d.Next(&m); {
			}
		}
		p.Reset()
		for i := range events {
			buf, _ = enc.AppendFlow(buf[:0], &events[i])
			p.Append(buf)
		}
		p.Flush()
	}
	work()
	if n := testing.AllocsPerRun(5, work); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
