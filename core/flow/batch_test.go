package flow

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// events reads all of a batch into events of their own memory.
func events(b *Batch) (all []Event) {
	var e Event
	for c := b.Cursor(); c.Next(&e); {
		kept := e
		kept.Tail = append(Attributes(nil), e.Tail...)
		all = append(all, kept)
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	headers := []Header{
		{},
		{Origin: Own, Generation: 7, Time: -1, Edge: 65535},
		{Origin: Peer, Replay: 1<<64 - 1, Owner: netip.MustParseAddr("10.1.2.3")},
		{Origin: Peer, Replay: 5, Owner: netip.MustParseAddr("fe80::1")},
	}
	for _, h := range headers {
		var b Builder
		b.Reset(h)
		var want []Event
		for _, f := range flows() {
			want = append(want, Event{Kind: Update, Flow: f})
		}
		if h.Replay != 0 {
			want = append(want, Event{Kind: SyncEnd, Sync: Sync{SyncClaim, 12}})
		}
		for i := range want {
			if !b.Append(&want[i]) {
				t.Fatal("no room")
			}
		}
		got, err := DecodeBatch(b.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(h, got.Header, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
			t.Error(diff)
		}
		for i, e := range events(&got) {
			if len(e.Tail) == 0 {
				e.Tail = want[i].Tail
			}
			if !sameEvent(&want[i], &e) {
				t.Errorf("event %d: %v, not %v", i, &e, &want[i])
			}
		}
	}
}

func sameEvent(a, b *Event) bool {
	return string(AppendRecord(nil, a)) == string(AppendRecord(nil, b)) && a.Sync == b.Sync
}

func TestDecodeRefuses(t *testing.T) {
	le := binary.LittleEndian
	const mark, record = headerSize, headerSize + markSize
	cases := []struct {
		name, want string
		change     func(p []byte) []byte
	}{
		{"empty", "less than a header", func(p []byte) []byte { return nil }},
		{"header cut", "less than a header", func(p []byte) []byte { return p[:47] }},
		{"too long", "more than a batch holds", func(p []byte) []byte { return make([]byte, MaxBatch+1) }},
		{"version", "byte 0: version 2", func(p []byte) []byte { p[0] = 2; return p }},
		{"origin", "byte 1: unknown origin 3", func(p []byte) []byte { p[1] = 3; return p }},
		{"count too high", "3 records, not 4", func(p []byte) []byte { p[2] = 4; return p }},
		{"count too low", "3 records, not 2", func(p []byte) []byte { p[2] = 2; return p }},
		{"mark in live batch", "mark in a live batch", func(p []byte) []byte { p[8] = 0; return p }},
		{"mark too short", "mark of 12 bytes", func(p []byte) []byte { p[mark] = 12; return p }},
		{"record of nothing", "record of 0 bytes", func(p []byte) []byte { le.PutUint16(p[record:], 0); return p }},
		{"record too short", "less than a head", func(p []byte) []byte { le.PutUint16(p[record:], 108); return p }},
		{"record too long", "are left", func(p []byte) []byte { le.PutUint16(p[record:], 0xfffc); return p }},
		{"record unaligned", "are left", func(p []byte) []byte { p[record]++; return p }},
		{"record cut", "are left", func(p []byte) []byte { return p[:len(p)-20] }},
		{"trailing bytes", "record cut short", func(p []byte) []byte { return append(p, 0, 0, 0, 0) }},
		{"kind 0", "unknown kind 0", func(p []byte) []byte { p[record+2] = 0; return p }},
		{"kind 8", "unknown kind 8", func(p []byte) []byte { p[record+2] = 8; return p }},
		{"family", "unknown family 7", func(p []byte) []byte { p[record+8] = 7; return p }},
		{"attribute too long", "attribute of", func(p []byte) []byte { le.PutUint16(p[record+headSize+2:], 100); return p }},
		{"attribute cut", "attribute of", func(p []byte) []byte { le.PutUint16(p[record:], headSize+4); return p }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := DecodeBatch(c.change(append([]byte(nil), exampleBatch()...)))
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, not %q", err, c.want)
			}
		})
	}
}

// TestReservedBytes checks that what a newer version may put where we have
// nothing does no harm and passes on where records are copied.
func TestReservedBytes(t *testing.T) {
	p := append([]byte(nil), exampleBatch()...)
	p[headerSize+markSize+3], p[headerSize+markSize+7] = 0x55, 0x80 // reserved, and an unknown presence bit
	b, err := DecodeBatch(p)
	if err != nil {
		t.Fatal(err)
	}
	var e Event
	c := b.Cursor()
	c.Next(&e)
	c.Next(&e)
	var out Builder
	out.Reset(b.Header)
	out.AppendRecord(c.Record())
	if got := out.Bytes()[headerSize:]; got[3] != 0x55 || got[7] != 0x80 {
		t.Errorf("% x", got[:8])
	}
}

func TestBuilderIsFull(t *testing.T) {
	var b Builder
	b.Reset(Header{})
	f := tcpFlow()
	e := Event{Kind: New, Flow: f}
	n := 0
	for b.Append(&e) {
		n++
	}
	if b.AppendRecord(AppendRecord(nil, &e)) {
		t.Error("a record went where the event did not")
	}
	got, err := DecodeBatch(b.Bytes())
	if err != nil || got.Count != n || n != (MaxBatch-headerSize)/(headSize+len(f.Tail)) {
		t.Errorf("%d of %d records: %v", got.Count, n, err)
	}
	b.Reset(Header{})
	e.Tail = e.Tail[:0].Append(1, make([]byte, MaxTail-attrHeader))
	if !b.Append(&e) {
		t.Error("the longest tail does not fit")
	}
	if got, err := DecodeBatch(b.Bytes()); err != nil || got.Count != 1 {
		t.Error(err)
	}
	b.Reset(Header{})
	e.Tail = append(e.Tail, 0, 0, 0, 0)
	if b.Append(&e) {
		t.Error("a tail that is too long fits")
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(exampleBatch())
	var b Builder
	b.Reset(Header{Origin: Peer, Owner: netip.MustParseAddr("10.0.0.9")})
	for _, one := range flows() {
		b.Append(&Event{Kind: New, Flow: one})
	}
	f.Add(append([]byte(nil), b.Bytes()...))
	f.Fuzz(func(t *testing.T, p []byte) {
		got, err := DecodeBatch(p)
		if err != nil {
			return
		}
		var again Builder
		again.Reset(got.Header)
		all := events(&got)
		if len(all) != got.Count {
			t.Fatalf("%d events, count %d", len(all), got.Count)
		}
		for i := range all {
			exercise(&all[i])
			if !again.Append(&all[i]) {
				t.Fatal("what came in a batch does not fit into one")
			}
		}
		back, err := DecodeBatch(again.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if back.Header != got.Header {
			t.Fatalf("header %+v, not %+v", back.Header, got.Header)
		}
		for i, e := range events(&back) {
			if !sameEvent(&e, &all[i]) {
				t.Fatalf("event %d: %v, not %v", i, &e, &all[i])
			}
		}
	})
}

// exercise calls what reads a flow, for its panics.
func exercise(e *Event) {
	_ = e.String()
	if _, err := e.MarshalJSON(); err != nil {
		panic(err)
	}
	e.Key()
	e.SourceNAT()
	e.DestinationNAT()
	e.Tail.Master()
	f := e.Flow
	f.Merge(&e.Flow, nil)
	if Attributes(f.Tail).check(0) != nil {
		panic("merge made a malformed tail")
	}
}

func TestNoAllocations(t *testing.T) {
	p := append([]byte(nil), exampleBatch()...)
	var b Builder
	b.Reset(Header{})
	known, buf := tcpFlow(), make([]byte, 0, 256)
	var e Event
	allocations := testing.AllocsPerRun(100, func() {
		batch, err := DecodeBatch(p)
		if err != nil {
			t.Fatal(err)
		}
		b.Reset(batch.Header)
		for c := batch.Cursor(); c.Next(&e); {
			b.Append(&e)
			b.AppendRecord(c.Record())
			e.Key()
			e.SourceNAT()
			f := known
			f.Merge(&e.Flow, buf)
		}
	})
	if allocations != 0 {
		t.Errorf("%v allocations a batch", allocations)
	}
}

func fullBatch(b *Builder) []byte {
	b.Reset(Header{})
	f := tcpFlow()
	f.Tail = nil
	for e := (Event{Kind: Update, Flow: f}); b.Append(&e); {
	}
	return b.Bytes()
}

// BenchmarkDecode reads full batches: ns/op is per event.
func BenchmarkDecode(b *testing.B) {
	var builder Builder
	p := fullBatch(&builder)
	var e Event
	b.ReportAllocs()
	for n := 0; n < b.N; {
		batch, err := DecodeBatch(p)
		if err != nil {
			b.Fatal(err)
		}
		for c := batch.Cursor(); c.Next(&e); n++ {
		}
	}
}

// BenchmarkAppend builds full batches: ns/op is per event.
func BenchmarkAppend(b *testing.B) {
	var builder Builder
	builder.Reset(Header{})
	e := Event{Kind: Update, Flow: tcpFlow()}
	b.ReportAllocs()
	for range b.N {
		if !builder.Append(&e) {
			builder.Reset(Header{})
		}
	}
}

func BenchmarkMerge(b *testing.B) {
	known, u, buf := tcpFlow(), tcpFlow(), make([]byte, 0, 256)
	b.ReportAllocs()
	for range b.N {
		f := known
		buf = f.Merge(&u, buf)
	}
}
