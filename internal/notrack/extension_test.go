package notrack

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-project/sluice/core/flow"
)

var addrs = cmpopts.EquateComparable(netip.Addr{})

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func tuple(src, dst string, sport, dport uint16) (t flow.Tuple) {
	t.Source, _ = flow.Bytes(netip.MustParseAddr(src))
	t.Destination, _ = flow.Bytes(netip.MustParseAddr(dst))
	t.SourcePort, t.DestinationPort = sport, dport
	return t
}

// newFlow returns an IPv4 flow that is not translated.
func newFlow(protocol uint8, sport, dport uint16) flow.Event {
	e := flow.Event{Kind: flow.Update, Flow: flow.Flow{
		Present: flow.HasReply | flow.HasStatus, Family: flow.IPv4, Protocol: protocol,
		Status:   flow.Confirmed | flow.SeenReply,
		Original: tuple("10.0.0.1", "10.0.0.2", sport, dport),
	}}
	e.Reply = e.Original.Inverted(protocol)
	return e
}

// flows are what one message, with or without an extension, must carry.
func flows() map[string]flow.Event {
	all := expectations()
	add := func(name string, e flow.Event, change func(e *flow.Event)) {
		if change != nil {
			change(&e)
		}
		all[name] = e
	}
	add("tcp", newFlow(flow.TCP, 40000, 443), func(e *flow.Event) {
		e.Present |= flow.HasState | flow.HasMark | flow.HasTimeout | flow.HasWindowScale
		e.State, e.Mark, e.Timeout, e.WindowScale = 3, 0, 86400, [2]uint8{7, 9}
	})
	add("icmp", newFlow(flow.ICMP, 4660, 8<<8), nil)
	add("icmp with another id behind the firewall", newFlow(flow.ICMP, 4660, 8<<8), func(e *flow.Event) {
		e.Status |= flow.SrcNAT | flow.SrcNATDone | flow.DstNATDone
		e.Reply.Destination, _ = flow.Bytes(netip.MustParseAddr("192.0.2.1"))
		e.Reply.SourcePort = 4661
	})
	add("gre keys", newFlow(flow.GRE, 7, 8), nil)
	add("gre keys, call id translated", newFlow(flow.GRE, 7, 8), func(e *flow.Event) {
		e.Status |= flow.SrcNATDone
		e.Reply.DestinationPort = 9
	})
	add("udplite", newFlow(flow.UDPLite, 1000, 2000), func(e *flow.Event) {
		e.Status |= flow.SrcNATDone
		e.Reply.Destination, _ = flow.Bytes(netip.MustParseAddr("192.0.2.1"))
		e.Reply.DestinationPort = 1001
	})
	add("directional zones", newFlow(flow.UDP, 1, 2), func(e *flow.Event) { e.ZoneOriginal, e.ZoneReply = 6, 7 })
	add("zone", newFlow(flow.UDP, 1, 2), func(e *flow.Event) { e.Zone = 5 })
	add("translated, but without the status", newFlow(flow.UDP, 1, 2), func(e *flow.Event) { e.Reply.DestinationPort = 3 })
	add("cleared labels", newFlow(flow.UDP, 1, 2), func(e *flow.Event) {
		e.Tail = e.Tail.Append(flow.AttrLabels, make([]byte, 16))
	})
	add("short labels", newFlow(flow.UDP, 1, 2), func(e *flow.Event) {
		e.Tail = e.Tail.Append(flow.AttrLabels, []byte{1, 2, 3, 4})
	})
	add("long helper", newFlow(flow.TCP, 1, 2), func(e *flow.Event) {
		e.Tail = e.Tail.Append(flow.AttrHelper, []byte("netbios-ns-or-longer"))
	})
	add("unknown attributes", newFlow(flow.TCP, 1, 2), func(e *flow.Event) {
		e.Tail = e.Tail.Append(900, []byte("kept")).Append(901, nil).Append(flow.AttrHelper, []byte("ftp"))
	})
	add("dccp", newFlow(flow.DCCP, 1, 2), func(e *flow.Event) {
		e.Tail = e.Tail.Append(flow.AttrDCCP, []byte{3, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0})
	})
	add("sctp", newFlow(flow.SCTP, 1, 2), func(e *flow.Event) {
		e.Present |= flow.HasState
		e.State = 4
		e.Tail = e.Tail.Append(flow.AttrSCTPTags, []byte{1, 2, 3, 4, 5, 6, 7, 8})
	})
	add("everything", newFlow(flow.TCP, 1, 2), func(e *flow.Event) {
		e.Family = flow.IPv6
		e.Original = tuple("2001:db8::1", "2001:db8::2", 1, 2)
		e.Reply = tuple("2001:db8::3", "2001:db8::4", 3, 4)
		e.Status |= flow.SrcNATDone | flow.DstNATDone
		e.Zone, e.ZoneOriginal = 1, 2
		m := flow.Master{Family: flow.IPv6, Protocol: flow.TCP, Zone: 1, Tuple: tuple("2001:db8::1", "2001:db8::2", 9, 21)}
		e.Tail = e.Tail.Append(77, []byte("opaque")).AppendMaster(&m).
			Append(flow.AttrSeqAdj, bytes.Repeat([]byte{1, 2, 3}, 8)).
			Append(flow.AttrSynproxy, bytes.Repeat([]byte{4, 5, 6}, 4)).
			Append(flow.AttrHelper, []byte("sip")).
			Append(flow.AttrLabels, bytes.Repeat([]byte{0, 1}, 8))
	})
	add("master with gre keys", newFlow(flow.TCP, 1, 2), func(e *flow.Event) {
		m := flow.Master{Family: flow.IPv4, Protocol: flow.GRE, Tuple: tuple("10.0.0.1", "10.0.0.2", 9, 21)}
		e.Tail = e.Tail.AppendMaster(&m)
	})
	return all
}

// needsNone are the flows that every conntrackd can be told of in full.
var needsNone = []string{
	"tcp", "icmp", "zone", "sctp",
	"expectation", "expectation that ended", "expectation of GRE keys, PPTP's", "expectation IPv6", "expectation with NAT", "expectation with NAT IPv6, address unknown",
}

func TestFlowsArriveWhole(t *testing.T) {
	for name, e := range flows() {
		t.Run(name, func(t *testing.T) {
			enc := NewEncoder(Settings{Timeout: true, WindowScale: true})
			group, err := enc.AppendFlow(nil, &e)
			if err != nil {
				t.Fatal(err)
			}
			extended := int(group[2])<<8|int(group[3]) < len(group) || group[0] == 0x1a
			if extended == slices.Contains(needsNone, name) {
				t.Errorf("extension: %v", extended)
			}
			p := NewPacker(1472, NewSequencer(7))
			if !p.Append(group) || !p.Append(AppendAlive(nil)) {
				t.Fatal("does not fit")
			}
			p.Flush()
			var d Decoder
			var tr Tracker
			var m Message
			d.Reset(p.Datagram(0), &tr)
			if !d.Next(&m) || m.Kind != Flow {
				t.Fatalf("no flow: %+v", d.Counters)
			}
			want := e
			want.Tail = slices.Clone(e.Tail)
			if diff := cmp.Diff(sorted(want.Tail), sorted(m.Event.Tail)); diff != "" {
				t.Errorf("tail (-sent +received):\n%s", diff)
			}
			want.Tail, m.Event.Tail = nil, nil
			if diff := cmp.Diff(want, m.Event, addrs); diff != "" {
				t.Errorf("flow (-sent +received):\n%s", diff)
			}
			if !d.Next(&m) || m.Kind != Alive || tr.Lost != 0 || d.Counters != (Counters{}) {
				t.Errorf("after it: kind %d, lost %d, %+v", m.Kind, tr.Lost, d.Counters)
			}
		})
	}
}

func sorted(a flow.Attributes) map[flow.Attr][]byte {
	m := map[flow.Attr][]byte{}
	for typ, v := range a.All() {
		m[typ] = append([]byte{}, v...)
	}
	return m
}

// TestConntrackdReadsPastExtensions decodes the same datagrams as conntrackd
// does: extensions are signs of life to it, and no flow is refused.
func TestConntrackdReadsPastExtensions(t *testing.T) {
	seq := NewSequencer(1)
	p := NewPacker(1472, seq)
	p.SetReplay(5)
	enc := NewEncoder(Settings{})
	var sent, hidden int
	for _, e := range flows() {
		if e.IsExpectation() && e.Zone != 0 {
			hidden++
		}
		group, err := enc.AppendFlow(nil, &e)
		if err != nil || !p.Append(group) {
			t.Fatal(err)
		}
		sent++
	}
	p.Append(AppendHello(nil, &Hello{Name: []byte("fw1")}))
	p.Append(AppendSync(nil, 5, flow.SyncEnd, flow.Sync{Count: uint64(sent)}))
	p.Append(AppendResync(nil, Resync{Asks: netip.MustParseAddr("192.0.2.1")}))
	p.Flush()
	d := Decoder{Strict: true}
	var tr Tracker
	received := 0
	for i := range p.Len() {
		d.Reset(p.Datagram(i), &tr)
		for m := (Message{}); d.Next(&m); {
			if m.Kind == Flow {
				received++
			}
		}
	}
	if received != sent-hidden || hidden == 0 || d.Counters != (Counters{}) || tr.Lost != 0 {
		t.Errorf("%d of %d flows, %d hidden, %+v, %+v", received, sent, hidden, d.Counters, tr)
	}
}

func TestLeftOutForOlderPeers(t *testing.T) {
	everything := flows()["everything"]
	zone := flows()["zone"]
	enc := NewEncoder(Settings{Peer: 6})
	if _, err := enc.AppendFlow(nil, &zone); !errors.Is(err, ErrZone) {
		t.Errorf("a flow of a zone to 1.4.6: %v", err)
	}
	everything.Zone = 0
	for v, highest := range map[Version]uint16{2: 28, 3: 28, 4: 30, 5: 31, 6: 31, 7: 31, 9: 31, 0: 31} {
		enc := NewEncoder(Settings{Peer: v, NoExtension: true})
		p, err := enc.AppendFlow(nil, &everything)
		if err != nil {
			t.Fatal(err)
		}
		got := uint16(0)
		for a := p[headerSize:]; len(a) > 0; a = a[padded(int(a[0])<<8|int(a[1])):] {
			got = max(got, uint16(a[2])<<8|uint16(a[3]))
		}
		if got != highest {
			t.Errorf("1.4.%d: highest attribute %d, want %d", v, got, highest)
		}
	}
}

// TestPeerVersions compares what goes to each release with what goes to the
// newest: less what it does not know, and nothing else. What it does not know, a
// Sluice node still gets.
func TestPeerVersions(t *testing.T) {
	all := flows()
	everything := all["everything"]
	everything.Zone = 0
	snat := newFlow(flow.UDP, 1, 2)
	snat.Status |= flow.SrcNATDone | flow.DstNATDone
	snat.Reply = tuple("192.0.2.1", "192.0.2.2", 3, 4)
	stateless := newFlow(flow.TCP, 1, 2)
	for _, tt := range []struct {
		versions []Version
		lacks    []int
		reversed bool
	}{
		{[]Version{2, 3}, []int{attrSourceIPv6, attrDestIPv6, attrSynproxy, attrZone}, true},
		{[]Version{4}, []int{attrSynproxy, attrZone}, true},
		{[]Version{5, 6}, []int{attrZone}, true},
		{[]Version{7, 8, 9, 0}, nil, false},
	} {
		for _, v := range tt.versions {
			settings := Settings{Peer: v, Timeout: true, WindowScale: true}
			settings.ReversedNAT = v.ReversesNAT()
			enc := NewEncoder(settings)
			for name, e := range map[string]flow.Event{
				"everything": everything, "snat": snat, "stateless": stateless, "zone": all["zone"], "icmp": all["icmp"],
				"expectation": all["expectation with NAT"], "expectation of a zone": all["expectation in a zone"],
			} {
				p, err := enc.AppendFlow(nil, &e)
				if e.Zone != 0 && !e.IsExpectation() && slices.Contains(tt.lacks, attrZone) {
					if !errors.Is(err, ErrZone) {
						t.Errorf("1.4.%d: %s: %v", v, name, err)
					}
					continue
				}
				newest, _ := NewEncoder(Settings{Timeout: true, WindowScale: true}).AppendFlow(nil, &e)
				want := attributes(newest)
				if !e.IsExpectation() {
					for _, number := range tt.lacks {
						delete(want, number)
					}
					for _, number := range []int{attrSourceIPv4, attrDestIPv4} {
						if tt.reversed && want[number] != nil {
							slices.Reverse(want[number])
						}
					}
				}
				if diff := cmp.Diff(want, attributes(p)); err != nil || diff != "" {
					t.Errorf("1.4.%d: %s: %v (-want +got):\n%s", v, name, err, diff)
				}
				d := Decoder{ByteOrders: settings.ByteOrders}
				var m Message
				if d.Reset(p, nil); !d.Next(&m) || m.Event.Reply != e.Reply {
					t.Errorf("1.4.%d: %s: reply tuple %v, sent %v", v, name, m.Event.Reply, e.Reply)
				}
				if diff := cmp.Diff(sorted(withoutUnsent(e.Tail)), sorted(withoutUnsent(m.Event.Tail))); diff != "" {
					t.Errorf("1.4.%d: %s: a Sluice node gets (-sent +got):\n%s", v, name, diff)
				}
			}
		}
	}
}

// attributes are those of the first message, by number.
func attributes(p []byte) map[int][]byte {
	all := map[int][]byte{}
	if p[0]&0xf == typeControl { // it is enclosed in an extension
		p = p[extensionHeader+attrHeader:]
	}
	for p = p[headerSize : int(p[2])<<8|int(p[3])]; len(p) > 0; {
		size := int(p[0])<<8 | int(p[1])
		all[int(p[2])<<8|int(p[3])] = bytes.Clone(p[attrHeader:size])
		p = p[padded(size):]
	}
	return all
}

// TestOlderPeersAreUnderstood reads what releases send otherwise than the newest:
// 0.0.0.0 for translated IPv6 addresses (1.4.2, 1.4.3), addresses reversed (up to
// 1.4.6), no ports where the state is not known (1.4.3 to 1.4.6), updates of
// expectations (all).
func TestOlderPeersAreUnderstood(t *testing.T) {
	decode := func(v Version, p []byte) (Message, Counters) {
		d := Decoder{ByteOrders: ByteOrders{ReversedNAT: v.ReversesNAT()}}
		var m Message
		d.Reset(p, nil)
		d.Next(&m)
		return m, d.Counters
	}
	v6 := newFlow(flow.TCP, 1, 2)
	v6.Family, v6.Original = flow.IPv6, tuple("2001:db8::1", "2001:db8::2", 1, 2)
	v6.Reply = v6.Original.Inverted(flow.TCP)
	v6.Status |= flow.SrcNAT | flow.SrcNATDone
	p, _ := NewEncoder(Settings{Peer: 2, Artefacts: IPv6NATAsIPv4}).AppendFlow(nil, &v6)
	if m, _ := decode(2, p); m.Event.Reply != v6.Reply || attributes(p)[attrSourceIPv4] == nil {
		t.Errorf("1.4.2: reply tuple %v", m.Event.Reply)
	}
	stateless := newFlow(flow.TCP, 1, 2)
	p, _ = NewEncoder(Settings{}).AppendFlow(nil, &stateless)
	at := bytes.Index(p, []byte{0, 8, 0, attrPort})
	if m, c := decode(6, endMessage(slices.Delete(bytes.Clone(p), at, at+8), 0)); c.Incomplete != 1 || m.Event.Kind != 0 && m.Event.Family != 0 {
		t.Errorf("1.4.6, no ports: %+v, %+v", c, m.Event)
	}
	ping := newFlow(flow.ICMP, 7, 8<<8)
	p, _ = NewEncoder(Settings{}).AppendFlow(nil, &ping)
	at = bytes.Index(p, []byte{0, 5, 0, attrICMPType})
	if _, c := decode(6, endMessage(slices.Delete(bytes.Clone(p), at, at+8), 0)); c.Incomplete != 1 {
		t.Errorf("ICMP without a type: %+v", c)
	}
	expected := expectations()["expectation"]
	p, _ = NewEncoder(Settings{Artefacts: ExpectationUpdates}).AppendFlow(nil, &expected)
	if m, _ := decode(7, p); p[0] != 0x14 || m.Event.Kind != flow.Expect || m.Event.ExpectationKey() != expected.ExpectationKey() {
		t.Errorf("1.4.7, EXP_UPD: %+v", m.Event)
	}
}

func TestNotSent(t *testing.T) {
	mark := flow.Event{Kind: flow.SyncBegin}
	if _, err := NewEncoder(Settings{}).AppendFlow(nil, &mark); !errors.Is(err, ErrNoFlow) {
		t.Error(err)
	}
	e := newFlow(flow.TCP, 1, 2)
	e.Status |= flow.Dying
	e.Present |= flow.HasTimeout | flow.HasWindowScale | flow.HasState | flow.HasID | flow.HasTCPFlags
	e.Tail = e.Tail.Append(flow.AttrSynproxy, make([]byte, 12)).Append(flow.AttrCounters, make([]byte, 32))
	p, _ := NewEncoder(Settings{}).AppendFlow(nil, &e)
	if len(p) != 52 {
		t.Errorf("%d bytes, want 52: %x", len(p), p)
	}
}

func TestControl(t *testing.T) {
	me, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	p := AppendHello(nil, &Hello{Capabilities: 5, Name: []byte("node")})
	p = AppendSync(p, 9, flow.SyncBegin, flow.Sync{Flags: flow.SyncClaim})
	p = AppendReplay(p, 9)
	e := newFlow(flow.UDP, 1, 2)
	p, _ = NewEncoder(Settings{}).AppendFlow(p, &e)
	p = AppendSync(p, 9, flow.SyncEnd, flow.Sync{Flags: flow.SyncClaim, Count: 1 << 40})
	p = AppendResync(p, Resync{Asks: me, Asked: other})
	p = AppendResync(p, Resync{})
	p = AppendAlive(p)
	want := []Message{
		{Kind: Greeting, Hello: Hello{Version: 1, Capabilities: 5, Name: []byte("node")}},
		{Kind: Mark, Replay: 9, Event: flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncClaim}}},
		{Kind: Flow, Replay: 9, Event: e},
		{Kind: Mark, Replay: 9, Event: flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: flow.SyncClaim, Count: 1 << 40}}},
		{Kind: Asks, Resync: Resync{Asks: me, Asked: other}},
		{Kind: Asks},
		{Kind: Alive},
	}
	var d Decoder
	var got []Message
	d.Reset(p, nil)
	for m := (Message{}); d.Next(&m); {
		m.Event.Tail = nil
		got = append(got, m)
	}
	if diff := cmp.Diff(want, got, addrs); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	d.Reset(AppendAlive(nil), nil) // another datagram is not of the replay
	if d.replay != 0 {
		t.Error("the replay outlives its datagram")
	}
}

func TestBadExtensions(t *testing.T) {
	e := newFlow(flow.UDP, 1, 2)
	data, _ := NewEncoder(Settings{}).AppendFlow(nil, &e)
	ext := func(scope byte, elements ...byte) []byte {
		p, at := appendExtension(nil, scope)
		return endMessage(append(p, elements...), at)
	}
	refused := bytes.Clone(data)
	refused[9] = 11 // length of the addresses
	newer := ext(scopePrevious)
	newer[10] = 9
	for _, tt := range []struct {
		name     string
		datagram []byte
		flows    int
		want     Counters
	}{
		{"unknown element", slices.Concat(data, ext(scopePrevious, 0, 4, 1, 0)), 1, Counters{UnknownElements: 1}},
		{"unknown element alone", slices.Concat(ext(scopeAlone, 0, 4, 1, 0), data), 1, Counters{UnknownElements: 1}},
		{"element too long", slices.Concat(data, ext(scopePrevious, 0, 9, 0, 17)), 1, Counters{UnknownElements: 1}},
		{"element too short", slices.Concat(data, ext(scopePrevious, 0, 3, 0, 17)), 1, Counters{UnknownElements: 1}},
		{"half an element", slices.Concat(data, ext(scopeAlone, 0, 8)), 1, Counters{UnknownElements: 1}},
		{"value too short", slices.Concat(data, ext(scopePrevious, 0, 4, 0, 17)), 1, Counters{UnknownElements: 1}},
		{"stray", slices.Concat(ext(scopePrevious, 0, 4, 0, 20), data), 1, Counters{StrayExtensions: 1}},
		{"of a refused message", slices.Concat(refused, ext(scopePrevious, 0, 4, 0, 20), data), 1,
			Counters{StrayExtensions: 1, Malformed: 1, MalformedPayload: 1}},
		{"newer version", slices.Concat(data, newer), 1, Counters{UnknownElements: 1}},
		{"enclosed nothing", slices.Concat(ext(scopeAlone, 0, 4, 0, 5), data), 1, Counters{UnknownElements: 1}},
		{"enclosed half", slices.Concat(ext(scopeAlone, slices.Concat([]byte{0, 20, 0, 5}, data[:16])...), data), 1,
			Counters{UnknownElements: 1}},
		{"enclosed sign of life", slices.Concat(ext(scopeAlone, slices.Concat([]byte{0, 12, 0, 5}, AppendAlive(nil))...), data), 1,
			Counters{UnknownElements: 1}},
		{"enclosed message", ext(scopeAlone, slices.Concat([]byte{0, byte(4 + len(data)), 0, 5}, data)...), 1, Counters{}},
		{"enclosed bad message", ext(scopeAlone, slices.Concat([]byte{0, byte(4 + len(data)), 0, 5}, refused, []byte{0, 4, 0, 20})...), 0,
			Counters{StrayExtensions: 1, Malformed: 1, MalformedPayload: 1}},
		{"mark without id", AppendSync(nil, 0, flow.SyncBegin, flow.Sync{}), 0, Counters{UnknownElements: 1}},
		{"cut short", slices.Concat(data, ext(scopePrevious, 0, 8, 0, 17, 0, 1, 0, 2)[:16]), 1,
			Counters{Malformed: 1, BadSize: 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d Decoder
			got := 0
			d.Reset(tt.datagram, nil)
			for m := (Message{}); d.Next(&m); {
				if m.Kind == Flow {
					got++
				}
			}
			if got != tt.flows {
				t.Errorf("%d flows, want %d", got, tt.flows)
			}
			if newerTwice := tt.name == "newer version"; newerTwice {
				tt.want.UnknownElements = d.Counters.UnknownElements // looked at twice
			}
			if d.Counters != tt.want {
				t.Errorf("counters %+v, want %+v", d.Counters, tt.want)
			}
		})
	}
}

// TestOversizeAttribute leaves out what would never fit, and keeps the rest.
// Stages search a tail from its start, so a flow with thousands of attributes
// would hold them up.
func TestAttributesAreBounded(t *testing.T) {
	e := newFlow(flow.UDP, 1, 2)
	p, _ := NewEncoder(Settings{}).AppendFlow(nil, &e)
	p, at := appendExtension(p, scopePrevious)
	for typ := range uint16(8000) {
		p = appendElement(p, elementAttribute, 4)
		p = append(p, byte(typ>>8), byte(typ), 0, 0)
	}
	p = endMessage(p, at)
	var d Decoder
	var m Message
	if d.Reset(p, nil); !d.Next(&m) || m.Kind != Flow {
		t.Fatalf("no flow: %+v", d.Counters)
	}
	n := 0
	for range m.Event.Tail.All() {
		n++
	}
	if n != maxAttributes || d.Counters.UnknownElements != 8000-maxAttributes {
		t.Errorf("%d attributes, %d skipped", n, d.Counters.UnknownElements)
	}
}

func TestOversizeAttribute(t *testing.T) {
	e := newFlow(flow.UDPLite, 1, 2)
	e.Tail = e.Tail.Append(900, make([]byte, 1400)).Append(901, make([]byte, 40))
	p := NewPacker(1472, NewSequencer(0))
	p.SetReplay(1)
	group, err := NewEncoder(Settings{}).AppendFlow(nil, &e)
	if err != nil || !p.Append(group) {
		t.Fatalf("%d bytes: %v", len(group), err)
	}
	var d Decoder
	var m Message
	if d.Reset(group, nil); !d.Next(&m) || m.Event.Original != e.Original || m.Event.Tail.Has(900) || !m.Event.Tail.Has(901) {
		t.Errorf("%+v", m.Event)
	}
}
