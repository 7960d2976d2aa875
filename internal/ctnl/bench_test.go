package ctnl

import (
	"net/netip"
	"testing"

	"github.com/ti-mo/conntrack"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// benchFlow is the i-th of many flows that no entry is in the way of.
func benchFlow(i int) *flow.Flow {
	f := tcp("10.0.0.1:1000", "10.9.9.9:80")
	f.Original.Source = [16]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}
	f.Original.DestinationPort = uint16(80 + i>>24)
	f.Reply = f.Original.Inverted(flow.TCP)
	f.Timeout = 600
	return f
}

// A commit costs, for one flow: ours in batches, with nobody who listens and with
// a listener whose filter drops what the writer caused, and the library's one
// request with an answer. The kernel's part is included, about 4 µs.
func BenchmarkCreate(b *testing.B) {
	b.Run("ours", func(b *testing.B) { benchCreate(b, false, false) })
	b.Run("heard", func(b *testing.B) { benchCreate(b, true, false) })
	b.Run("SNAT", func(b *testing.B) { benchCreate(b, false, true) })
	b.Run("SNAT heard", func(b *testing.B) { benchCreate(b, true, true) })
	b.Run("library", func(b *testing.B) {
		n := testbed.MustNamespace(b, "fw")
		c, err := n.Conntrack()
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			i++
			f := benchFlow(i)
			from, to := flow.Address(f.Family, f.Original.Source), flow.Address(f.Family, f.Original.Destination)
			if err := c.Create(libraryFlow(from, to, f)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func benchCreate(b *testing.B, heard, translated bool) {
	n := testbed.MustNamespace(b, "fw")
	w := mustWriter(b, n, WriterConfig{})
	if heard {
		mustEvents(b, n, EventsConfig{DropPorts: []uint32{w.Port()}, Unreliable: true})
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if i++; i%200_000 == 0 {
			flush(b, n, w)
		}
		f := benchFlow(i)
		if translated {
			f.Reply.Destination = [16]byte{10, 9, 9, 8}
			f.Reply.DestinationPort = uint16(1024 + i%60000)
			f.Original.DestinationPort = uint16(80 + i/60000)
			f.Reply.SourcePort = f.Original.DestinationPort
		}
		if err := w.Commit(f); err != nil {
			b.Fatal(err)
		}
	}
	if c := finish(b, w); c.Failed() > 0 {
		b.Fatalf("%+v", c)
	}
}

func libraryFlow(from, to netip.Addr, f *flow.Flow) conntrack.Flow {
	l := conntrack.NewFlow(f.Protocol, conntrack.Status(f.Status), from, to, f.Original.SourcePort, f.Original.DestinationPort, f.Timeout, 0)
	l.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{State: f.State, OriginalFlags: 0x0808, ReplyFlags: 0x0808}
	return l
}

// flush makes room for more, outside the time that is measured.
func flush(b *testing.B, n *testbed.Namespace, w *Writer) {
	b.StopTimer()
	defer b.StartTimer()
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	if err := n.Flush(); err != nil {
		b.Fatal(err)
	}
}

// Receiving and decoding an event that is queued, without what waiting costs.
func BenchmarkReceive(b *testing.B) {
	n := testbed.MustNamespace(b, "fw")
	s := mustEvents(b, n, EventsConfig{Buffer: 8 << 20})
	w := mustWriter(b, n, WriterConfig{})
	for i := range 5000 {
		if err := w.Commit(benchFlow(i)); err != nil {
			b.Fatal(err)
		}
	}
	finish(b, w)
	drain(b, s)
	b.ReportAllocs()
	var e flow.Event
	buf := make([]byte, 0, 1024)
	queued := 0
	for b.Loop() {
		if queued == 0 {
			queued = refill(b, w, 5000)
		}
		got, err := s.Read()
		if err != nil || got == 0 {
			b.Fatal(got, err)
		}
		for i := range got {
			if buf, err = Decode(s.Message(i), &e, buf); err != nil {
				b.Fatal(err)
			}
		}
		queued -= got
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/vectorLength, "ns/event")
}

// refill has the kernel queue n events, outside the time that is measured.
func refill(b *testing.B, w *Writer, n int) int {
	b.StopTimer()
	defer b.StartTimer()
	for i := range n {
		if err := w.Shorten(benchFlow(i), 600); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	return n
}
