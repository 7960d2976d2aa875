package notrack

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/flow"
)

// drain decodes a datagram in every mode and checks what must hold of any.
func drain(t *testing.T, p []byte) {
	for _, d := range []*Decoder{
		{}, {Strict: true}, {ByteOrders: ByteOrders{BigEndianPorts: true, ReversedNAT: true}},
	} {
		var tr Tracker
		var m Message
		var b flow.Builder
		n := 0
		for d.Reset(p, &tr); d.Next(&m); n++ {
			if m.Kind == Flow && !d.Strict {
				checkFlow(t, d.ByteOrders, &m.Event, &b)
			}
		}
		c := &d.Counters
		if sum := c.Truncated + c.BadSize + c.WrongVersion + c.MalformedHeader + c.MalformedPayload; c.Malformed != sum {
			t.Errorf("malformed %d, causes %d", c.Malformed, sum)
		}
		if n > len(p)/4 {
			t.Errorf("%d messages in %d bytes", n, len(p))
		}
	}
}

// checkFlow checks that a decoded flow is fit for a batch, and that it comes
// out of another encoding and decoding as it went in.
func checkFlow(t *testing.T, o ByteOrders, e *flow.Event, b *flow.Builder) {
	b.Reset(flow.Header{Origin: flow.Peer})
	if b.Append(e) {
		if _, err := flow.DecodeBatch(b.Bytes()); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
	}
	enc := NewEncoder(Settings{ByteOrders: o, Timeout: true, WindowScale: true, Room: 1 << 20})
	p, err := enc.AppendFlow(nil, e)
	if err != nil {
		t.Fatal(err)
	}
	if len(p) > MaxMessage {
		return // what it says does not fit into one message and its extension
	}
	d := Decoder{ByteOrders: o}
	var m Message
	if d.Reset(p, nil); !d.Next(&m) || m.Kind != Flow {
		t.Fatalf("encoded again %x: %+v", p, d.Counters)
	}
	want, got := *e, m.Event
	if diff := cmp.Diff(sorted(withoutUnsent(want.Tail)), sorted(withoutUnsent(got.Tail))); diff != "" {
		t.Fatalf("tail (-before +after):\n%s", diff)
	}
	for _, f := range []*flow.Event{&want, &got} {
		f.Tail = nil
		if f.Protocol != flow.TCP || !f.Has(flow.HasState) { // window scales go with a TCP state
			f.Present &^= flow.HasWindowScale
			f.WindowScale = [2]uint8{}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-before +after):\n%s", diff)
	}
}

// withoutUnsent leaves out attributes that are sent for some protocols alone,
// that say nothing, or whose zeros may differ in number.
func withoutUnsent(a flow.Attributes) (b flow.Attributes) {
	for typ, v := range a.All() {
		switch typ {
		case flow.AttrSCTPTags, flow.AttrDCCP, flow.AttrCounters, flow.AttrTimestamps:
			continue
		case flow.AttrMaster:
			m, ok := a.Master()
			if m.Zone = 0; ok {
				b = b.AppendMaster(&m)
				continue
			}
		case flow.AttrSynproxy:
			if allZero(v) {
				continue
			}
		case flow.AttrHelper, flow.AttrFunction:
			if len(v) == 0 || bytes.IndexByte(v, 0) >= 0 {
				continue
			}
		}
		b = b.Append(typ, v)
	}
	return b
}

func FuzzDecode(f *testing.F) {
	datagrams, _ := realDatagrams(f)
	for _, p := range datagrams {
		f.Add(p)
	}
	for _, p := range readIndex(f).Probes {
		for _, d := range p.Datagrams {
			b, _ := hex.DecodeString(d)
			f.Add(b)
		}
	}
	for _, e := range flows() {
		p, _ := NewEncoder(Settings{}).AppendFlow(AppendReplay(nil, 1), &e)
		f.Add(p)
	}
	f.Fuzz(drain)
}

// TestDamaged decodes every captured datagram cut short at every byte and with
// every bit flipped, and random bytes.
func TestDamaged(t *testing.T) {
	datagrams, _ := realDatagrams(t)
	for _, e := range flows() {
		p, _ := NewEncoder(Settings{}).AppendFlow(AppendReplay(nil, 1), &e)
		datagrams = append(datagrams, AppendHello(p, &Hello{Name: []byte("fw")}))
	}
	seen := map[int]bool{}
	for _, p := range datagrams {
		if len(p) > 300 && seen[len(p)] {
			continue // long ones are alike
		}
		seen[len(p)] = true
		var d Decoder
		var m Message
		for n := range p {
			for d.Reset(p[:n:n], nil); d.Next(&m); {
			}
		}
		q := slices.Clone(p)
		for bit := range min(len(p), 400) * 8 {
			q[bit/8] ^= 1 << (bit % 8)
			for d.Reset(q, nil); d.Next(&m); {
			}
			q[bit/8] ^= 1 << (bit % 8)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		p := make([]byte, r.IntN(120))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		if len(p) > 4 { // get past the first checks
			p[0], p[1], p[2], p[3] = 0x10|byte(r.IntN(7)), 0, 0, byte(len(p)-r.IntN(2))
		}
		drain(t, p)
	}
}
