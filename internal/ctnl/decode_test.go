package ctnl

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

var update = flag.Bool("update", false, "write testdata anew: the messages from this kernel, and what they decode to")

// A message of testdata is a line "name hexadecimal" of one of the files.
type message struct {
	name string
	data []byte
}

func goldenMessages(t testing.TB) []message {
	t.Helper()
	return append(messagesOf(t, "testdata/messages.txt"), messagesOf(t, "testdata/expectations.txt")...)
}

func messagesOf(t testing.TB, name string) (messages []message) {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		name, digits, _ := strings.Cut(s.Text(), " ")
		data, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		messages = append(messages, message{name, data})
	}
	return messages
}

// What the messages of this kernel decode to.
func TestDecodeGolden(t *testing.T) {
	var got bytes.Buffer
	for _, m := range goldenMessages(t) {
		var e flow.Event
		if _, err := Decode(m.data, &e, nil); err != nil {
			t.Fatalf("%s: %v", m.name, err)
		}
		fmt.Fprintf(&got, "%s %s", m.name, format(&e, Port(m.data)))
	}
	const golden = "testdata/messages.golden"
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

// format writes all of an event.
func format(e *flow.Event, port uint32) string {
	tuple := func(t *flow.Tuple) string {
		return fmt.Sprintf("%v:%d > %v:%d", flow.Address(e.Family, t.Source), t.SourcePort, flow.Address(e.Family, t.Destination), t.DestinationPort)
	}
	return fmt.Sprintf("kind %d by port %d\n  present %08b protocol %d state %d zones %d %d %d status %x timeout %d mark %#x id %#x\n"+
		"  scales %d flags %#x\n  original %s\n  reply    %s\n  tail %x\n",
		e.Kind, port, e.Present, e.Protocol, e.State, e.Zone, e.ZoneOriginal, e.ZoneReply, uint32(e.Status), e.Timeout, e.Mark, e.ID,
		e.WindowScale, e.TCPFlags, tuple(&e.Original), tuple(&e.Reply), []byte(e.Tail))
}

// oracle decodes a message with the library.
func oracle(data []byte) (*conntrack.Event, error) {
	m := netlink.Message{Data: data[nlHeader:]}
	m.Header.Length = binary.NativeEndian.Uint32(data)
	m.Header.Type = netlink.HeaderType(binary.NativeEndian.Uint16(data[4:]))
	m.Header.Flags = netlink.HeaderFlags(binary.NativeEndian.Uint16(data[6:]))
	var e conntrack.Event
	return &e, e.Unmarshal(m)
}

// asLibrary puts an event of ours into the library's form. It has no form for
// presence, so what is absent is zero.
func asLibrary(e *flow.Event) conntrack.Flow {
	f := conntrack.Flow{
		ID: e.ID, Timeout: e.Timeout, Zone: e.Zone, Mark: e.Mark, Status: conntrack.Status(e.Status),
		TupleOrig:  libraryTuple(e.Family, e.Protocol, &e.Original, e.ZoneOriginal),
		TupleReply: libraryTuple(e.Family, e.Protocol, &e.Reply, e.ZoneReply),
	}
	if e.Protocol == flow.TCP && e.Has(flow.HasState) {
		f.ProtoInfo.TCP = &conntrack.ProtoInfoTCP{
			State: e.State, OriginalWindowScale: e.WindowScale[0], ReplyWindowScale: e.WindowScale[1],
			OriginalFlags: uint16(e.TCPFlags[0]) << 8, ReplyFlags: uint16(e.TCPFlags[1]) << 8,
		}
	}
	if e.Protocol == flow.SCTP && e.Has(flow.HasState) { // a DESTROY has no tags
		f.ProtoInfo.SCTP = &conntrack.ProtoInfoSCTP{State: e.State}
	}
	if m, ok := e.Tail.Master(); ok {
		f.TupleMaster = libraryTuple(m.Family, m.Protocol, &m.Tuple, 0)
	}
	le := binary.LittleEndian
	for t, v := range e.Tail.All() {
		switch t {
		case flow.AttrLabels:
			f.Labels = v
		case flow.AttrHelper:
			f.Helper.Name = string(v)
		case flow.AttrSeqAdj:
			f.SeqAdjOrig = conntrack.SequenceAdjust{Position: le.Uint32(v), OffsetBefore: le.Uint32(v[4:]), OffsetAfter: le.Uint32(v[8:])}
			f.SeqAdjReply = conntrack.SequenceAdjust{Direction: true, Position: le.Uint32(v[12:]), OffsetBefore: le.Uint32(v[16:]), OffsetAfter: le.Uint32(v[20:])}
		case flow.AttrSynproxy:
			f.SynProxy = conntrack.SynProxy{ISN: le.Uint32(v), ITS: le.Uint32(v[4:]), TSOff: le.Uint32(v[8:])}
		case flow.AttrCounters:
			f.CountersOrig = conntrack.Counter{Packets: le.Uint64(v), Bytes: le.Uint64(v[8:])}
			f.CountersReply = conntrack.Counter{Direction: true, Packets: le.Uint64(v[16:]), Bytes: le.Uint64(v[24:])}
		case flow.AttrSCTPTags:
			f.ProtoInfo.SCTP.VTagOriginal, f.ProtoInfo.SCTP.VTagReply = le.Uint32(v), le.Uint32(v[4:])
		}
	}
	return f
}

func libraryTuple(family, protocol uint8, t *flow.Tuple, zone uint16) conntrack.Tuple {
	l := conntrack.Tuple{Zone: zone}
	l.IP.SourceAddress, l.IP.DestinationAddress = flow.Address(family, t.Source), flow.Address(family, t.Destination)
	l.Proto.Protocol = protocol
	if protocol == flow.ICMP || protocol == flow.ICMPv6 {
		l.Proto.ICMPv4, l.Proto.ICMPv6 = protocol == flow.ICMP, protocol == flow.ICMPv6
		l.Proto.ICMPID, l.Proto.ICMPType, l.Proto.ICMPCode = t.SourcePort, uint8(t.DestinationPort>>8), uint8(t.DestinationPort)
		return l
	}
	l.Proto.SourcePort, l.Proto.DestinationPort = t.SourcePort, t.DestinationPort
	return l
}

func expectationAsLibrary(e *flow.Event) *conntrack.Expect {
	x, _ := e.Tail.Expectation()
	m, _ := e.Tail.Master()
	helper, _ := e.Tail.Get(flow.AttrHelper)
	function, _ := e.Tail.Get(flow.AttrFunction)
	l := &conntrack.Expect{
		ID: e.ID, Timeout: e.Timeout, Zone: e.Zone, HelpName: string(helper), Function: string(function),
		Flags: uint32(x.Flags), Class: x.Class, TupleMaster: libraryTuple(m.Family, m.Protocol, &m.Tuple, 0),
		Tuple: libraryTuple(e.Family, e.Protocol, &e.Original, 0), Mask: libraryTuple(e.Family, e.Protocol, &e.Reply, 0),
	}
	if x.HasNAT {
		l.NAT = conntrack.ExpectNAT{Direction: x.NATDirection == flow.Reply, Tuple: libraryTuple(e.Family, x.NATProtocol, &x.NAT, 0)}
	}
	return l
}

// mustAgree compares what we and the library make of a message.
func mustAgree(t *testing.T, m message) {
	t.Helper()
	want, err := oracle(m.data)
	if err != nil {
		t.Fatalf("%s: library: %v", m.name, err)
	}
	var e flow.Event
	if _, err := Decode(m.data, &e, nil); err != nil {
		t.Fatalf("%s: %v", m.name, err)
	}
	if e.IsExpectation() {
		if diff := cmp.Diff(want.Expect, expectationAsLibrary(&e), cmp.Comparer(func(a, b conntrack.IPTuple) bool { return a == b })); diff != "" {
			t.Errorf("%s: library (-), ours (+):\n%s", m.name, diff)
		}
		return
	}
	w := *want.Flow
	// What a flow has no place for, or what is left out on purpose.
	w.Use, w.Timestamp, w.SecurityContext = 0, conntrack.Timestamp{}, ""
	w.Helper.Info, w.TupleMaster.Zone = nil, 0
	got := asLibrary(&e)
	if got.SeqAdjOrig == (conntrack.SequenceAdjust{}) { // the library sets Direction on sight
		w.SeqAdjReply.Direction = got.SeqAdjReply.Direction
	}
	if got.CountersOrig == (conntrack.Counter{}) {
		w.CountersReply.Direction = got.CountersReply.Direction
	}
	equalAddr := cmp.Comparer(func(a, b conntrack.IPTuple) bool { return a == b })
	if diff := cmp.Diff(w, got, equalAddr); diff != "" {
		t.Errorf("%s: library (-), ours (+):\n%s", m.name, diff)
	}
	kinds := map[flow.Kind]string{flow.New: "EventNew", flow.Update: "EventUpdate", flow.Destroy: "EventDestroy"}
	isEntry := binary.NativeEndian.Uint16(m.data[6:])&unix.NLM_F_MULTI != 0
	if k := kinds[e.Kind]; !isEntry && k != fmt.Sprint(want.Type) {
		t.Errorf("%s: kind %s, library says %v", m.name, k, want.Type)
	}
}

func TestDecodeAgreesWithLibrary(t *testing.T) {
	for _, m := range goldenMessages(t) {
		mustAgree(t, m)
	}
}

// build makes a message of attributes that are given as they are.
func build(typ, flags uint16, family uint8, attributes ...[]byte) []byte {
	p, at := begin(nil, typ, flags, 0, family)
	for _, a := range attributes {
		p = append(p, a...)
	}
	return end(p, at)
}

func TestUnknownAttributesAreSkipped(t *testing.T) {
	unknown := appendAttr(nil, 900, 1, 2, 3, 4, 5)
	var tuple flow.Tuple
	tuple.SourcePort, tuple.DestinationPort = 7, 8
	plain := appendTuple(nil, ctaTupleOrig, flow.IPv4, flow.UDP, &tuple, 0)
	// The same tuple with something unknown at every level.
	p, at := nest(nil, ctaTupleOrig)
	p = append(p, unknown...)
	p, inner := nest(p, ctaTupleProto)
	p = append(p, unknown...)
	p = appendAttr(p, ctaProtoNum, flow.UDP)
	p = appendU16(p, ctaProtoSrcPort, 7)
	p = appendU16(p, ctaProtoDstPort, 8)
	p = endNest(endNest(p, inner), at)
	nested, info := nest(nil, ctaProtoInfo)
	nested = append(nested, unknown...)
	nested = endNest(nested, info)

	var want, got flow.Event
	if _, err := Decode(build(typeNew, 0, flow.IPv4, plain), &want, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(build(typeNew, 0, flow.IPv4, unknown, p, nested, unknown), &got, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDecodeRefuses(t *testing.T) {
	tuple := appendTuple(nil, ctaTupleOrig, flow.IPv4, flow.UDP, &flow.Tuple{}, 0)
	long := build(typeNew, 0, flow.IPv4, tuple)
	binary.NativeEndian.PutUint32(long, uint32(len(long)+1))
	for name, p := range map[string][]byte{
		"empty":          nil,
		"half a header":  make([]byte, 10),
		"length beyond":  long,
		"another type":   build(subsystem|5, 0, flow.IPv4, tuple),
		"another family": build(typeNew, 0, 7, tuple),
		"no tuple":       build(typeNew, 0, flow.IPv4),
		"half attribute": build(typeNew, 0, flow.IPv4, tuple, []byte{8, 0}),
		"attribute of 0": build(typeNew, 0, flow.IPv4, tuple, []byte{0, 0, 0, 0}),
		"expectation without master": build(typeExpectNew, 0, flow.IPv4,
			appendTuple(nil, ctaExpectTuple, flow.IPv4, flow.UDP, &flow.Tuple{}, 0), appendTuple(nil, ctaExpectMask, flow.IPv4, flow.UDP, &flow.Tuple{}, 0)),
		"half an expectation's attribute": build(typeExpectDelete, 0, flow.IPv4, []byte{8, 0, 2, 0}),
		"attribute of 80":                 build(typeNew, 0, flow.IPv4, tuple, []byte{80, 0, 8, 0, 1, 2, 3, 4}),
	} {
		var e flow.Event
		if _, err := Decode(p, &e, nil); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	messages := goldenMessages(t)
	var e flow.Event
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() {
		for _, m := range messages {
			var err error
			if buf, err = Decode(m.data, &e, buf); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Whatever comes, an event that decodes makes a batch that decodes, and its
// create request is a message that decodes.
func FuzzDecode(f *testing.F) {
	for _, m := range goldenMessages(f) {
		f.Add(m.data)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		var e flow.Event
		if _, err := Decode(p, &e, nil); err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		var b flow.Builder
		b.Reset(flow.Header{})
		if !b.Append(&e) {
			t.Fatal("event fits in no batch")
		}
		if _, err := flow.DecodeBatch(b.Bytes()); err != nil {
			t.Fatal(err)
		}
		if e.IsExpectation() {
			mustComeBack(t, &e)
			return
		}
		var back flow.Event
		request := AppendCreate(nil, &e.Flow, true, 0, 1)
		if _, err := Decode(request, &back, nil); err != nil {
			t.Fatal(err)
		}
		known := hasPorts(e.Protocol) || e.Protocol == flow.ICMP || e.Protocol == flow.ICMPv6
		if known && back.Key() != e.Key() {
			t.Fatalf("key %+v became %+v", e.Key(), back.Key())
		}
	})
}

// mustComeBack checks that the request for an expectation decodes to the same.
func mustComeBack(t *testing.T, e *flow.Event) {
	t.Helper()
	var back flow.Event
	if _, err := Decode(AppendExpect(nil, &e.Flow, 1), &back, nil); err != nil {
		t.Fatal(err)
	}
	m, _ := e.Tail.Master()
	x, _ := e.Tail.Expectation()
	known := func(protocol uint8) bool {
		return hasPorts(protocol) || protocol == flow.ICMP || protocol == flow.ICMPv6
	}
	if !known(e.Protocol) || !known(m.Protocol) || x.HasNAT && !known(x.NATProtocol) {
		return
	}
	if back.ExpectationKey() != e.ExpectationKey() {
		t.Fatalf("key %+v became %+v", e.ExpectationKey(), back.ExpectationKey())
	}
	x.Flags &= flow.ExpectPermanent | flow.ExpectInactive
	if got, _ := back.Tail.Expectation(); got != x {
		t.Fatalf("%+v became %+v", x, got)
	}
}

func BenchmarkDecode(b *testing.B) {
	messages := goldenMessages(b)
	b.Run("ours", func(b *testing.B) {
		var e flow.Event
		buf := make([]byte, 0, 1024)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			buf, _ = Decode(messages[i%len(messages)].data, &e, buf)
		}
	})
	b.Run("library", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			if _, err := oracle(messages[i%len(messages)].data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkMerge merges what the kernel told of a flow, later and in part, into
// the flow as it told it first; ns/op is per message.
func BenchmarkMerge(b *testing.B) {
	var first, e flow.Event
	type told struct {
		known  flow.Flow
		update flow.Flow
	}
	var all []told
	for _, m := range goldenMessages(b) {
		if _, err := Decode(m.data, &e, nil); err != nil {
			continue
		}
		switch {
		case e.Kind == flow.New:
			first = e
		case e.Kind == flow.Update && e.Original == first.Original:
			all = append(all, told{first.Flow, e.Flow})
		}
	}
	if len(all) < 3 {
		b.Fatalf("%d updates follow their flow's first message", len(all))
	}
	buf := make([]byte, 0, 1024)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		m := &all[i%len(all)]
		f := m.known
		buf = f.Merge(&m.update, buf)
	}
}
