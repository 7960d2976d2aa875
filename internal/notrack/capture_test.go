package notrack

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

// An index is testdata/captures/index.json: what is in the captures, said by
// somebody else than the code under test.
type index struct {
	Captures []capture
	Probes   []probe
}

type capture struct {
	File      string
	Versions  map[string]string
	Datagrams []struct {
		Src      netip.Addr
		Sport    uint16
		Payload  int
		Messages []struct {
			Type  string
			Flags []string
			Seq   uint32
			Len   int
			Attrs []string
		}
	}
}

// sender returns the version of the conntrackd that sent the datagram i: the
// addresses of the first node end in 1.
func (c *capture) sender(t *testing.T, i int) Version {
	node := "fw2"
	if c.Datagrams[i].Src.As16()[15] == 1 {
		node = "fw1"
	}
	v, err := ParseVersion(c.Versions[node])
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func readIndex(t testing.TB) *index {
	t.Helper()
	text, err := os.ReadFile("testdata/captures/index.json")
	if err != nil {
		t.Fatal(err)
	}
	x := &index{}
	if err := json.Unmarshal(text, x); err != nil {
		t.Fatal(err)
	}
	if len(x.Captures) == 0 || len(x.Probes) == 0 {
		t.Fatal("index.json is empty")
	}
	return x
}

// readCapture returns the payloads of the UDP datagrams in a file: Ethernet,
// IPv4 without fragments, IPv6 with them.
func readCapture(t testing.TB, file string) (payloads [][]byte) {
	t.Helper()
	p, err := os.ReadFile(filepath.Join("testdata/captures", file))
	if err != nil {
		t.Fatal(err)
	}
	var fragments []byte
	for p = p[24:]; len(p) > 0; {
		n := binary.LittleEndian.Uint32(p[8:])
		frame := p[16 : 16+n]
		p = p[16+n:]
		ip := frame[14:]
		if binary.BigEndian.Uint16(frame[12:]) == 0x0800 {
			ip = ip[:binary.BigEndian.Uint16(ip[2:])]
			payloads = append(payloads, ip[int(ip[0]&0xf)*4+8:])
			continue
		}
		ip = ip[:40+int(binary.BigEndian.Uint16(ip[4:]))]
		next, upper := ip[6], ip[40:]
		if next == 44 { // fragment header: these captures have them in order
			last := upper[3]&1 == 0
			fragments = append(fragments, upper[8:]...)
			if !last {
				continue
			}
			upper, fragments = fragments, nil
		}
		payloads = append(payloads, upper[8:])
	}
	return payloads
}

// everyDatagram calls f with every datagram of every capture.
func everyDatagram(t *testing.T, f func(t *testing.T, c *capture, i int, payload []byte)) {
	x := readIndex(t)
	for i := range x.Captures {
		c := &x.Captures[i]
		t.Run(c.File, func(t *testing.T) {
			payloads := readCapture(t, c.File)
			if len(payloads) != len(c.Datagrams) {
				t.Fatalf("%d datagrams in the file, %d in the index", len(payloads), len(c.Datagrams))
			}
			for i, p := range payloads {
				if len(p) != c.Datagrams[i].Payload {
					t.Fatalf("datagram %d: %d bytes, index says %d", i, len(p), c.Datagrams[i].Payload)
				}
				f(t, c, i, p)
			}
		})
	}
}

// rendered writes the attributes of m as the index does, from the decoded
// values alone and with no help of the Encoder.
func rendered(m *Message, d *Decoder, v Version, artefacts map[string]bool) []string {
	if m.Kind != Flow {
		return nil
	}
	if m.Event.IsExpectation() {
		return renderedExpectation(&m.Event.Flow)
	}
	var out []string
	add := func(number int, v []byte) { out = append(out, fmt.Sprintf("%d:%x", number, v)) }
	be16, be32 := binary.BigEndian.AppendUint16, binary.BigEndian.AppendUint32
	f := &m.Event.Flow
	addresses := func(number int, family uint8, t *flow.Tuple) {
		n := 4
		if family == flow.IPv6 {
			number, n = number+1, 16
		}
		add(number, append(t.Source[:n:n], t.Destination[:n]...))
	}
	ports := func(number int, t *flow.Tuple) { add(number, be16(be16(nil, t.SourcePort), t.DestinationPort)) }
	addresses(0, f.Family, &f.Original)
	if f.Has(flow.HasStatus) {
		status := f.Status
		if artefacts["dying"] {
			status |= flow.Dying
		}
		add(5, be32(nil, uint32(status)))
	}
	add(2, []byte{f.Protocol})
	switch {
	case f.Protocol == flow.ICMP || f.Protocol == flow.ICMPv6:
		add(22, []byte{byte(f.Original.DestinationPort >> 8)})
		add(23, []byte{byte(f.Original.DestinationPort)})
		add(24, binary.LittleEndian.AppendUint16(nil, f.Original.SourcePort))
	case f.Protocol == flow.TCP || f.Protocol == flow.UDP || f.Protocol == flow.SCTP || f.Protocol == flow.DCCP:
		ports(3, &f.Original)
	}
	if f.Has(flow.HasState) && f.Protocol == flow.TCP {
		add(4, []byte{f.State})
	}
	if f.Has(flow.HasWindowScale) {
		add(25, f.WindowScale[:1])
		add(26, f.WindowScale[1:])
	}
	if f.Has(flow.HasState) && f.Protocol == flow.SCTP {
		tags, _ := f.Tail.Get(flow.AttrSCTPTags)
		add(17, []byte{f.State})
		add(18, be32(nil, binary.LittleEndian.Uint32(tags)))
		add(19, be32(nil, binary.LittleEndian.Uint32(tags[4:])))
	}
	if f.Has(flow.HasTimeout) {
		add(6, be32(nil, f.Timeout))
	}
	if f.Has(flow.HasMark) {
		add(7, be32(nil, f.Mark))
	}
	if master, ok := f.Tail.Master(); ok {
		addresses(8, master.Family, &master.Tuple)
		add(10, []byte{master.Protocol})
		ports(11, &master.Tuple)
	}
	if artefacts["v6nat"] {
		add(12, make([]byte, 4))
	}
	out = append(out, renderedNAT(f, v)...)
	if artefacts["icmp"] {
		add(14, []byte{0, 0})
		add(15, []byte{0, 0})
	}
	swapped := func(v []byte, order ...int) (w []byte) {
		for _, i := range order {
			w = be32(w, binary.LittleEndian.Uint32(v[4*i:]))
		}
		return w
	}
	if v, ok := f.Tail.Get(flow.AttrSeqAdj); ok {
		add(16, swapped(v, 0, 1, 2, 3, 4, 5))
	}
	if v, ok := f.Tail.Get(flow.AttrHelper); ok {
		add(27, append(v[:len(v):len(v)], 0))
	}
	if v, ok := f.Tail.Get(flow.AttrLabels); ok {
		add(28, swapped(v, 0, 1, 2, 3))
	}
	if v, ok := f.Tail.Get(flow.AttrSynproxy); ok {
		add(31, swapped(v, 1, 0, 2))
	} else if artefacts["synproxy"] {
		add(31, make([]byte, 12))
	}
	if f.Zone != 0 {
		add(32, be16(nil, f.Zone))
	}
	return out
}

func renderedNAT(f *flow.Flow, v Version) (out []string) {
	plain := f.Original.Inverted(f.Protocol)
	number, n := 12, 4
	if f.Family == flow.IPv6 {
		number, n = 29, 16
	}
	address := func(number int, a [16]byte) {
		w := a[:n:n]
		if v.ReversesNAT() && n == 4 {
			w = []byte{a[3], a[2], a[1], a[0]}
		}
		out = append(out, fmt.Sprintf("%d:%x", number, w))
	}
	if f.Reply.Destination != plain.Destination {
		address(number, f.Reply.Destination)
	}
	if f.Reply.Source != plain.Source {
		address(number+1, f.Reply.Source)
	}
	le16 := func(v uint16) []byte { return binary.LittleEndian.AppendUint16(nil, v) }
	if f.Reply.DestinationPort != plain.DestinationPort {
		out = append(out, fmt.Sprintf("14:%x", le16(f.Reply.DestinationPort)))
	}
	if f.Reply.SourcePort != plain.SourcePort {
		out = append(out, fmt.Sprintf("15:%x", le16(f.Reply.SourcePort)))
	}
	return out
}

// renderedExpectation does the same for expectations, all of which have ports
// in the captures.
func renderedExpectation(f *flow.Flow) (out []string) {
	add := func(number int, v []byte) { out = append(out, fmt.Sprintf("%d:%x", number, v)) }
	be16, be32 := binary.BigEndian.AppendUint16, binary.BigEndian.AppendUint32
	family, n := 0, 4
	if f.Family == flow.IPv6 {
		family, n = 1, 16
	}
	master, _ := f.Tail.Master()
	for i, t := range []flow.Tuple{master.Tuple, f.Original, f.Reply} {
		add(4*i+family, append(t.Source[:n:n], t.Destination[:n]...))
		add(4*i+2, []byte{[]uint8{master.Protocol, f.Protocol, f.Protocol}[i]})
		add(4*i+3, be16(be16(nil, t.SourcePort), t.DestinationPort))
	}
	if f.Has(flow.HasTimeout) {
		add(12, be32(nil, f.Timeout))
	}
	x, _ := f.Tail.Expectation()
	add(13, be32(nil, uint32(x.Flags)))
	add(14, be32(nil, x.Class))
	if x.HasNAT {
		add(15, append(x.NAT.Source[:4:4], x.NAT.Destination[:4]...))
		add(17, []byte{x.NATProtocol})
		add(16, be16(be16(nil, x.NAT.SourcePort), x.NAT.DestinationPort))
		add(18, be32(nil, uint32(x.NATDirection)))
	}
	for i, typ := range []flow.Attr{flow.AttrHelper, flow.AttrFunction} {
		if v, ok := f.Tail.Get(typ); ok {
			add(19+i, append(v[:len(v):len(v)], 0))
		}
	}
	return out
}

var typeNames = map[flow.Kind]string{
	flow.New: "CT_NEW", flow.Update: "CT_UPD", flow.Destroy: "CT_DEL", flow.Expect: "EXP_NEW", flow.Unexpect: "EXP_DEL",
}

func typeName(m *Message) (name, flag string) {
	switch m.Kind {
	case Flow:
		return typeNames[m.Event.Kind], ""
	case Asks:
		return "CTL", "RESYNC"
	case Alive:
		return "CTL", "ALIVE"
	}
	return "?", "?"
}

// artefactsOf says which artefacts of conntrackd the message of the index has,
// by name for rendered and as settings for an Encoder.
func artefactsOf(typ string, attrs []string) (map[string]bool, Artefacts) {
	names, settings := map[string]bool{}, Artefacts(0)
	line := " " + strings.Join(attrs, " ") + " "
	has := func(s string) bool { return strings.Contains(line, " "+s) }
	if has("22:") && has("14:0000 ") && has("15:0000 ") {
		names["icmp"], settings = true, settings|ICMPPorts
	}
	if has("31:" + strings.Repeat("0", 24) + " ") {
		names["synproxy"], settings = true, settings|EmptySynproxy
	}
	if has("1:") && has("12:00000000 ") {
		names["v6nat"], settings = true, settings|IPv6NATAsIPv4
	}
	if typ == "EXP_UPD" {
		settings |= ExpectationUpdates
	}
	for _, a := range attrs {
		if status, ok := strings.CutPrefix(a, "5:"); ok && typ == "CT_DEL" {
			if b, _ := hex.DecodeString(status); len(b) == 4 && b[2]&2 != 0 {
				names["dying"], settings = true, settings|DyingStatus
			}
		}
	}
	return names, settings
}

func TestCapturesDecode(t *testing.T) {
	trackers := map[string]*Tracker{}
	everyDatagram(t, func(t *testing.T, c *capture, i int, payload []byte) {
		want := c.Datagrams[i]
		v := c.sender(t, i)
		d := Decoder{ByteOrders: ByteOrders{ReversedNAT: v.ReversesNAT()}, Strict: true}
		key := fmt.Sprint(c.File, want.Src, want.Sport)
		if trackers[key] == nil {
			trackers[key] = &Tracker{}
		}
		d.Reset(payload, trackers[key])
		var m Message
		for j, wm := range want.Messages {
			if !d.Next(&m) {
				t.Fatalf("datagram %d: %d messages, index has %d", i, j, len(want.Messages))
			}
			name, flag := typeName(&m)
			if name != strings.Replace(wm.Type, "EXP_UPD", "EXP_NEW", 1) || m.Sequence != wm.Seq || strings.Join(wm.Flags, " ") != flag {
				t.Fatalf("datagram %d message %d: %s %s %d, want %v", i, j, name, flag, m.Sequence, wm)
			}
			artefacts, _ := artefactsOf(wm.Type, wm.Attrs)
			got := strings.Join(rendered(&m, &d, v, artefacts), " ")
			if want := strings.Join(wm.Attrs, " "); got != want {
				t.Errorf("datagram %d message %d:\n got %s\nwant %s", i, j, got, want)
			}
		}
		if d.Next(&m) || d.Counters != (Counters{}) {
			t.Fatalf("datagram %d: more messages, or counters %+v", i, d.Counters)
		}
	})
	for key, tr := range trackers {
		if tr.Lost != 0 || tr.Before != 0 {
			t.Errorf("%s: %+v", key, *tr)
		}
	}
}

// TestCapturesRecode decodes every datagram and sends it again through Encoder
// and Packer: the same bytes come out.
func TestCapturesRecode(t *testing.T) {
	everyDatagram(t, func(t *testing.T, c *capture, i int, payload []byte) {
		want := c.Datagrams[i]
		v := c.sender(t, i)
		orders := ByteOrders{ReversedNAT: v.ReversesNAT()}
		d := Decoder{ByteOrders: orders}
		d.Reset(payload, nil)
		p := NewPacker(9000, NewSequencer(want.Messages[0].Seq))
		var m Message
		for j := 0; d.Next(&m); j++ {
			_, artefacts := artefactsOf(want.Messages[j].Type, want.Messages[j].Attrs)
			enc := NewEncoder(Settings{
				ByteOrders: orders, Peer: v, Timeout: true, WindowScale: true, Artefacts: artefacts,
			})
			var message []byte
			var err error
			switch m.Kind {
			case Flow:
				message, err = enc.AppendFlow(nil, &m.Event)
			case Asks:
				message = AppendResync(nil, m.Resync)
			case Alive:
				message = AppendAlive(nil)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !p.Append(message) {
				t.Fatalf("message of %d bytes does not fit", len(message))
			}
		}
		p.Flush()
		if p.Len() != 1 || !bytes.Equal(p.Datagram(0), payload) {
			t.Errorf("datagram %d:\n got %x\nwant %x", i, p.Datagram(0), payload)
		}
	})
}

// TestCapturesPacking sends what bulk updates sent and fills datagrams as
// conntrackd did.
func TestCapturesPacking(t *testing.T) {
	for _, tt := range []struct {
		file string
		room int
	}{
		{"bulk_100.pcap", Room(1500, false)},
		{"bulk_limit.pcap", Room(1500, false)},
		{"bulk_mtu9000.pcap", Room(9000, false)},
		{"bulk_mcast6.pcap", Room(1500, false)}, // conntrackd forgets that IPv6 headers are longer
	} {
		payloads := readCapture(t, tt.file)
		if p := payloads[0]; len(p) == headerSize && p[1] == flagAlive {
			payloads = payloads[1:] // it came by the clock
		}
		all := bytes.Join(payloads, nil)
		p := NewPacker(tt.room, NewSequencer(binary.BigEndian.Uint32(all[4:])))
		for at := 0; at < len(all); {
			size := int(binary.BigEndian.Uint16(all[at+2:]))
			p.Append(all[at : at+size])
			at += size
		}
		p.Flush()
		if p.Len() != len(payloads) {
			t.Errorf("%s: %d datagrams, conntrackd had %d", tt.file, p.Len(), len(payloads))
			continue
		}
		for i, want := range payloads {
			if !bytes.Equal(p.Datagram(i), want) {
				t.Errorf("%s: datagram %d has %d bytes, conntrackd's %d", tt.file, i, len(p.Datagram(i)), len(want))
			}
		}
	}
}
