package recording

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/flow"
)

var about = About{
	Node: "fw1", Stage: "local.source.netlink", Edge: "output", Started: time.Unix(1700000000, 5).UTC(),
	SinceBoot: time.Hour, Boot: "a-b", Sluice: "1.2", Kernel: "6.1", Conditions: []string{"protocol=tcp", "source=10.0.0.1"},
}

// event is of flow number n: of five, two are TCP.
func event(n uint32) flow.Event {
	e := flow.Event{Kind: flow.New}
	e.Family, e.Protocol = flow.IPv4, [5]uint8{flow.TCP, flow.UDP, flow.TCP, flow.ICMP, flow.SCTP}[n%5]
	e.Original = flow.Tuple{Source: [16]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}, Destination: [16]byte{192, 0, 2, 1}, SourcePort: uint16(1024 + n), DestinationPort: 8 << 8}
	e.Reply, e.State, e.Timeout, e.Mark = e.Original.Inverted(e.Protocol), flow.TCPSynRecv, 120+n%1000, 7
	e.Present = flow.HasReply | flow.HasState | flow.HasTimeout | flow.HasMark
	return e
}

// packets are batches of ten events each.
func packets(n uint32) (all [][]byte) {
	for i := range n {
		var b flow.Builder
		b.Reset(flow.Header{})
		for n := range uint32(10) {
			e := event(10*i + n)
			b.Append(&e)
		}
		all = append(all, b.Bytes())
	}
	return all
}

// record makes a recording of packets a millisecond apart, with a loss of 7 events
// before the second, and an end if it is to have one.
func record(t testing.TB, ended bool, packets ...[]byte) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := NewWriter(&file, about)
	for i, p := range packets {
		if i == 1 {
			err = errors.Join(err, w.Lost(time.Millisecond, 7))
		}
		b, _ := flow.DecodeBatch(p)
		err = errors.Join(err, w.Write(time.Duration(i)*time.Millisecond, p, b.Count))
	}
	if err = errors.Join(err, w.Flush()); ended {
		err = errors.Join(err, w.Close("the test ended", time.Second))
	}
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// read returns all that a recording has, and its reader's last error.
func read(file []byte) (r *Reader, packets [][]byte, lost uint64, err error) {
	if r, err = NewReader(bytes.NewReader(file)); err != nil {
		return nil, nil, 0, err
	}
	for {
		b, err := r.Read()
		if err != nil {
			return r, packets, lost, err
		}
		lost += b.Lost
		if b.Packet != nil {
			packets = append(packets, bytes.Clone(b.Packet))
		}
	}
}

func TestRoundTrip(t *testing.T) {
	want := packets(300)
	r, got, lost, err := read(record(t, true, want...))
	if err != io.EOF || lost != 7 {
		t.Errorf("lost %d, %v", lost, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(about, r.About); diff != "" {
		t.Error(diff)
	}
	end := End{Reason: "the test ended", Batches: 300, Events: 3000, Lost: 7, Elapsed: time.Second}
	if diff := cmp.Diff(&end, r.End()); diff != "" {
		t.Error(diff)
	}
}

// What a crash leaves can be read as far as it reaches, wherever it was cut, and
// is known to be cut.
func TestCutShort(t *testing.T) {
	want := packets(4)
	file := record(t, true, want...)
	most := 0
	for n := range len(file) {
		r, got, _, err := read(file[:n])
		if err == io.EOF && r.End() != nil { // only gzip's sum of the end is missing
			continue
		}
		if r == nil && n > 60 && !errors.Is(err, ErrCutShort) || r != nil && !errors.Is(err, ErrCutShort) {
			t.Fatalf("%d of %d bytes: %v", n, len(file), err)
		}
		if most = max(most, len(got)); len(got) > 0 && !bytes.Equal(got[0], want[0]) {
			t.Fatalf("%d of %d bytes: another batch", n, len(file))
		}
	}
	if most != len(want) {
		t.Errorf("%d of %d batches without the end", most, len(want))
	}
	if _, got, _, err := read(record(t, false, want...)); len(got) != len(want) || !errors.Is(err, ErrCutShort) {
		t.Errorf("without an end: %d batches, %v", len(got), err)
	}
}

// What was written a second ago has reached the file, though nobody asked for it.
func TestMembers(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, about)
	for i, p := range packets(10) {
		err = errors.Join(err, w.Write(time.Duration(i)*300*time.Millisecond, p, 10))
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, got, _, _ := read(file.Bytes()); len(got) != 10 && len(got) < 6 {
		t.Errorf("%d batches of 3 seconds", len(got))
	}
	before := file.Len()
	if err := w.Write(3*time.Second, packets(1)[0], 10); err != nil {
		t.Fatal(err)
	}
	if err := w.Tick(5 * time.Second); err != nil || file.Len() == before {
		t.Errorf("nothing was written after two quiet seconds: %v", err)
	}
}

// pack makes the file of raw frames.
func pack(raw ...[]byte) []byte {
	var file bytes.Buffer
	w := gzip.NewWriter(&file)
	for _, p := range raw {
		_, _ = w.Write(p)
	}
	w.Close()
	return file.Bytes()
}

// What is no recording is refused with what is wrong, and where.
func TestMalformed(t *testing.T) {
	text, _ := json.Marshal(about)
	head := append(appendHead([]byte(magic), frameAbout, 0, len(text)), text...)
	damaged := record(t, true, packets(50)...)
	damaged[len(damaged)/2] ^= 0xff
	bad := packets(1)[0]
	bad[48+2] = 99
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"text":             {[]byte("pipeline {}"), "not the file of one"},
		"another gzip":     {pack([]byte("hello hello hello hello")), "does not begin with"},
		"another version":  {pack([]byte("sluice-recording 2\n")), "does not begin with"},
		"no header":        {pack([]byte(magic), AppendBatch(nil, 0, packets(1)[0])), "frame 1, at byte 19 of what is packed: kind 2 instead of a header"},
		"header no JSON":   {pack([]byte(magic), appendHead(nil, frameAbout, 0, 2), []byte("{x")), "frame 1, at byte 19 of what is packed: header"},
		"long frame":       {pack(head, appendHead(nil, frameBatch, 0, 1<<31)), fmt.Sprintf("frame 2, at byte %d of what is packed: a length of 2147483648", len(head))},
		"negative time":    {pack(head, appendHead(nil, frameBatch, -1, 0)), "a time before its begin"},
		"no batch":         {pack(head, AppendBatch(nil, 0, bad)), "frame 2, at byte "},
		"loss of 3 bytes":  {pack(head, appendHead(nil, frameLost, 0, 3), []byte("abc")), "a loss of 3 bytes"},
		"two headers":      {pack(head, head[len(magic):]), "a second header"},
		"end no JSON":      {pack(head, appendHead(nil, frameEnd, 0, 1), []byte("}")), "end: "},
		"a byte is turned": {damaged, "frame "},
	} {
		if _, _, _, err := read(c.file); !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	unknown := pack(head, appendHead(nil, 77, 0, 3), []byte("abc"), AppendBatch(nil, 0, packets(1)[0]))
	if _, got, _, err := read(unknown); len(got) != 1 || !errors.Is(err, ErrCutShort) {
		t.Errorf("a frame of another kind: %d batches, %v", len(got), err)
	}
}

// FuzzReader: no file makes the reader panic, take memory beyond a batch, or
// return a batch that does not decode.
func FuzzReader(f *testing.F) {
	file := record(f, true, packets(3)...)
	unpacked, _ := gzip.NewReader(bytes.NewReader(file))
	raw, err := io.ReadAll(unpacked)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, false)
	f.Add(file, true)
	f.Add(raw[:len(raw)-20], false)
	f.Fuzz(func(t *testing.T, data []byte, packed bool) {
		if !packed {
			data = pack(data) // so that the fuzzer need not learn gzip's sums
		}
		r, err := NewReader(bytes.NewReader(data))
		if err != nil {
			return
		}
		for {
			b, err := r.Read()
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrCutShort) {
					t.Fatal(err)
				}
				return
			}
			if cap(r.buf) > maxContent {
				t.Fatalf("%d bytes of memory", cap(r.buf))
			}
			if b.Packet != nil {
				if _, err := flow.DecodeBatch(b.Packet); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// A copy has what was chosen, to its limits.
func TestCopy(t *testing.T) {
	file := record(t, true, packets(300)...)
	tcp, err := flow.ParseConditions([]string{"protocol=tcp"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		copy   Copy
		reason string
		events uint64
	}{
		"all":    {Copy{}, "", 3000},
		"chosen": {Copy{Conditions: tcp}, "", 1200},
		"events": {Copy{Events: 25}, "after 25 events", 25},
		"both":   {Copy{Events: 7, Conditions: tcp}, "after 7 events", 7},
		"time":   {Copy{For: 9 * time.Millisecond}, "after 9ms", 100},
		"size":   {Copy{Size: 1}, "the file has reached 1 bytes", 10},
	} {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		var made bytes.Buffer
		w, err := NewWriter(&made, about)
		if err != nil {
			t.Fatal(err)
		}
		reason, err := c.copy.Run(w, r)
		if err = errors.Join(err, w.Close(reason, 0)); err != nil || reason != c.reason || w.SoFar().Events != c.events {
			t.Errorf("%s: %q, %d events, %v", name, reason, w.SoFar().Events, err)
		}
		again, _, _, err := read(made.Bytes())
		if err != io.EOF || again.End().Events != c.events {
			t.Errorf("%s: %+v, %v", name, again.End(), err)
		}
	}
}

// The rules of Anonymizer, by number.
func TestAnonymizer(t *testing.T) {
	a, err := NewAnonymizer()
	if err != nil {
		t.Fatal(err)
	}
	common := func(x, y netip.Addr) (n int) {
		p, q := x.AsSlice(), y.AsSlice()
		for n < 8*len(p) && (p[n/8]^q[n/8])>>(7-n%8)&1 == 0 {
			n++
		}
		return n
	}
	random := rand.New(rand.NewPCG(1, 2))
	real4, real6 := netip.MustParseAddr("10.1.2.3"), netip.MustParseAddr("2001:db8::1")
	for range 2000 {
		for _, real := range []netip.Addr{real4, real6} {
			b := real.AsSlice()
			b[len(b)/2+random.IntN(len(b)/2)] ^= byte(random.IntN(256))
			other, _ := netip.AddrFromSlice(b)
			x, y := a.turn(real), a.turn(other)
			if common(real, other) != common(x, y) { // 2
				t.Fatalf("%v and %v become %v and %v", real, other, x, y)
			}
			first := a.Address(other)
			if again := a.Address(other); again != first { // 1
				t.Fatal("not the same again")
			}
		}
	}
	if a.Address(real4) == real4 || a.Address(real6) == real6 {
		t.Error("an address stayed")
	}
	for _, text := range []string{"0.0.0.0", "127.0.0.1", "224.0.0.18", "::", "::1", "ff02::1"} { // 3
		if one := netip.MustParseAddr(text); a.Address(one) != one {
			t.Errorf("%v becomes %v", one, a.Address(one))
		}
	}
	if one := a.Address(netip.MustParseAddr("fe80::1:2:3:4")); !one.IsLinkLocalUnicast() {
		t.Errorf("fe80::1:2:3:4 becomes %v", one)
	}
}

// No address is left in what was anonymized, and flows still belong together.
func TestAnonymizeBatch(t *testing.T) {
	a, err := NewAnonymizer()
	if err != nil {
		t.Fatal(err)
	}
	e := event(1 << 16)
	e.Tail = flow.Attributes{}.AppendMaster(&flow.Master{Family: e.Family, Protocol: flow.TCP, Tuple: e.Original}).Append(777, e.Original.Source[:4])
	owner := netip.MustParseAddr("192.168.100.2")
	var packet flow.Builder
	packet.Reset(flow.Header{Origin: flow.Peer, Owner: owner})
	packet.Append(&e)
	b, err := flow.DecodeBatch(packet.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	other, err := flow.DecodeBatch(a.Batch(&b))
	if err != nil {
		t.Fatal(err)
	}
	var got flow.Event
	c := other.Cursor()
	c.Next(&got)
	master, _ := got.Tail.Master()
	if got.Original != got.Reply.Inverted(got.Protocol) || master.Tuple != got.Original || other.Owner != a.Address(owner) {
		t.Errorf("they no longer belong together: %v, master %v, owner %v", &got, master, other.Owner)
	}
	secret := [][]byte{e.Original.Source[:4], e.Original.Destination[:4], owner.AsSlice()}
	for _, s := range secret {
		if bytes.Contains(a.Batch(&b), s) {
			t.Errorf("%v is still there", s)
		}
	}
	if got.Original.SourcePort != e.Original.SourcePort || got.Mark != e.Mark || got.Tail.Has(777) {
		t.Errorf("changed: %v", &got)
	}
	if one := a.About(about); one.Node != "" || one.Conditions != nil || !one.Anonymized || one.Stage == "" {
		t.Errorf("the header: %+v", one)
	}
}

func TestPrint(t *testing.T) {
	file := record(t, true, packets(2)...)
	for _, inJSON := range []bool{false, true} {
		r, err := NewReader(bytes.NewReader(file))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if err := (&Printer{Out: &out, JSON: inJSON}).Print(r); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		if len(lines) != 23 {
			t.Fatalf("%d lines:\n%s", len(lines), out.String())
		}
		want := map[int]string{
			0:  "# recorded at the output of local.source.netlink on fw1 from 2023-11-14T22:13:20.000000005Z, sluice 1.2, Linux 6.1",
			11: "# 7 events are missing here",
			12: "    0.001000     [NEW] tcp      6 130 SYN_RECV src=10.0.0.10",
			22: "# 20 events in 2 batches and 1s; ended: the test ended; 7 events that passed are missing",
		}
		if inJSON {
			want = map[int]string{0: `{"recording":{"node":"fw1"`, 11: `{"lost":7}`, 12: `{"time":"2023-11-14T22:13:20.001000005Z","kind":"new"`, 22: `{"end":{"reason":`}
		}
		for i, prefix := range want {
			if !strings.HasPrefix(lines[i], prefix) {
				t.Errorf("line %d: %s, not %s", i, lines[i], prefix)
			}
		}
	}
}

// Recording and reading take less than the pipeline does.
func BenchmarkWrite(b *testing.B) {
	all := packets(1000)
	w, err := NewWriter(io.Discard, about)
	if err != nil {
		b.Fatal(err)
	}
	for i := range b.N {
		if err := w.Write(time.Duration(i), all[i%1000], 10); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/10, "ns/event")
	b.ReportMetric(float64(w.Size())/float64(b.N)/10, "B/event")
}

// What a recording says of itself is not for the terminal to obey.
func TestPrintIsPlain(t *testing.T) {
	var file, out bytes.Buffer
	w, err := NewWriter(&file, About{Node: "fw\x1b[2J\n# forged", Stage: "a\u009b0m", Edge: "output"})
	if err == nil {
		err = w.Close("over\r\x07", 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReader(&file)
	if err == nil {
		err = (&Printer{Out: &out}).Print(r)
	}
	text := strings.ReplaceAll(out.String(), "\n", "")
	if err != nil || strings.Count(out.String(), "\n") != 2 || strings.ContainsFunc(text, unicode.IsControl) || !strings.Contains(text, "fw?[2J?# forged") {
		t.Errorf("%v\n%q", err, out.String())
	}
}
