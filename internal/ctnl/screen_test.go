package ctnl

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// virtual runs a program outside the kernel.
func virtual(t testing.TB, ports []uint32, screens []flow.Screen, j judgement) func(message []byte) (passes bool) {
	t.Helper()
	raw, err := eventFilter(ports, screens, j)
	if err != nil {
		t.Fatal(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program does not disassemble")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return func(message []byte) bool {
		n, err := vm.Run(message)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
}

// randomAddress is one of few, at and beside the bounds of random prefixes.
func randomAddress(r *rand.Rand, family uint8) (a [16]byte) {
	n := 4
	if family == flow.IPv6 {
		n = 16
	}
	for i := range n {
		a[i] = []byte{0, 1, 0x7f, 0x80, 0xfe, 0xff}[r.IntN(6)]
	}
	if r.IntN(2) == 0 { // much in common
		copy(a[:n-1], []byte{10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}[:n-1])
	}
	return a
}

func randomFamily(r *rand.Rand) uint8 { return []uint8{flow.IPv4, flow.IPv6}[r.IntN(2)] }

func randomPrefixes(r *rand.Rand, n int) (prefixes []netip.Prefix) {
	for range n {
		family := randomFamily(r)
		a := flow.Address(family, randomAddress(r, family))
		bits := a.BitLen() - r.IntN(10)
		if r.IntN(3) == 0 {
			bits = r.IntN(a.BitLen() + 1)
		}
		p, _ := a.Prefix(bits)
		prefixes = append(prefixes, p)
	}
	return prefixes
}

var protocols = []uint8{0, flow.ICMP, flow.TCP, flow.UDP, 50, flow.GRE, flow.ICMPv6, flow.SCTP, flow.UDPLite, 255}

func randomScreens(r *rand.Rand) (screens []flow.Screen) {
	for range 1 + r.IntN(2) {
		var s flow.Screen
		if r.IntN(2) == 0 {
			s.Protocols = &flow.ProtocolList{Accept: r.IntN(2) == 0}
			for range 1 + r.IntN(4) {
				s.Protocols.Protocols = append(s.Protocols.Protocols, protocols[r.IntN(len(protocols))])
			}
		}
		if r.IntN(4) > 0 {
			s.Addresses = &flow.AddressList{Accept: r.IntN(2) == 0, Prefixes: randomPrefixes(r, 1+r.IntN(12))}
		}
		screens = append(screens, s)
	}
	return screens
}

// randomEvent is a message as the kernel lays it out: the tuples first, and then
// more or less else.
func randomEvent(r *rand.Rand) []byte {
	f := flow.Flow{Family: randomFamily(r), Protocol: protocols[r.IntN(len(protocols))]}
	f.Original = flow.Tuple{
		Source: randomAddress(r, f.Family), Destination: randomAddress(r, f.Family),
		SourcePort: uint16(r.Uint32()), DestinationPort: uint16(r.Uint32()),
	}
	f.Reply = f.Original.Inverted(f.Protocol)
	if r.IntN(2) == 0 { // translated
		f.Reply.Source = randomAddress(r, f.Family)
	}
	if r.IntN(4) == 0 { // zones of one direction lengthen a tuple
		f.ZoneOriginal, f.ZoneReply = uint16(r.IntN(3)), uint16(r.IntN(3))
	}
	p, at := begin(nil, []uint16{typeNew, typeDelete}[r.IntN(2)], uint16(r.Uint32()), 0, f.Family)
	binary.NativeEndian.PutUint32(p[12:], r.Uint32N(4))
	p = appendTuple(p, ctaTupleOrig, f.Family, f.Protocol, &f.Original, f.ZoneOriginal)
	p = appendTuple(p, ctaTupleReply, f.Family, f.Protocol, &f.Reply, f.ZoneReply)
	for range r.IntN(6) {
		p = appendU32(p, []uint16{ctaStatus, ctaTimeout, ctaMark, ctaID}[r.IntN(4)], r.Uint32())
	}
	return end(p, at)
}

func passesAll(screens []flow.Screen, f *flow.Flow) bool {
	for i := range screens {
		if !screens[i].Passes(f) {
			return false
		}
	}
	return true
}

// The program's verdict on an event is that of the screens, whatever they are;
// on a message that is laid out otherwise than the kernel does, it drops nothing
// that the screens would pass.
func TestEventFilterAgreesWithScreens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	dropped, rounds := 0, 400
	for range rounds {
		screens := randomScreens(r)
		var ports []uint32
		if r.IntN(2) == 0 {
			ports = []uint32{2, 3}
		}
		whole, noV6, none := virtual(t, ports, screens, judgements[0]), virtual(t, ports, screens, judgements[1]), virtual(t, ports, screens, judgements[2])
		for range 250 {
			message := randomEvent(r)
			own := len(ports) > 0 && Port(message) >= 2
			var e flow.Event
			if _, err := Decode(message, &e, nil); err != nil {
				t.Fatal(err)
			}
			passes := passesAll(screens, &e.Flow) && !own
			if got := whole(message); got != passes {
				t.Fatalf("passes %t, not %t: %v\n%s", got, passes, &e, describe(screens))
			}
			if got := noV6(message); got != passes && (e.Family == flow.IPv4 || !got || !naming6(screens)) {
				t.Fatalf("without IPv6 addresses: passes %t, not %t: %v\n%s", got, passes, &e, describe(screens))
			}
			if passes && !none(message) {
				t.Fatalf("without addresses: drops %v\n%s", &e, describe(screens))
			}
			if !passes {
				dropped++
			}
			mangle(r, message)
			if _, err := Decode(message, &e, nil); err == nil && !whole(message) && (e.IsExpectation() || passesAll(screens, &e.Flow)) &&
				(len(ports) == 0 || Port(message) < 2) {
				t.Fatalf("drops what is laid out otherwise: %x\n%s", message, describe(screens))
			}
		}
	}
	if total := rounds * 250; dropped < total/10 || dropped > total*9/10 {
		t.Fatalf("%d of %d events dropped: that proves little", dropped, total)
	}
}

func naming6(screens []flow.Screen) bool {
	for _, s := range screens {
		if len(ofFamily(s.Addresses, flow.IPv6)) > 0 {
			return true
		}
	}
	return false
}

// mangle changes a byte or two of a message behind its length.
func mangle(r *rand.Rand, message []byte) {
	for range 1 + r.IntN(2) {
		message[4+r.IntN(len(message)-4)] = byte(r.IntN(256))
	}
}

func describe(screens []flow.Screen) (text string) {
	for _, s := range screens {
		text += fmt.Sprintf("protocols %+v addresses %+v\n", s.Protocols, s.Addresses)
	}
	return text
}

// What kernels really sent is laid out as the program expects, and no
// expectation is judged.
func TestEventFilterKnowsRealMessages(t *testing.T) {
	nothing := []flow.Screen{{Protocols: &flow.ProtocolList{Accept: true}}}
	nowhere := []flow.Screen{{Addresses: &flow.AddressList{Accept: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}}}
	for _, screens := range [][]flow.Screen{nothing, nowhere} {
		passes := virtual(t, nil, screens, judgements[0])
		for _, m := range goldenMessages(t) {
			var e flow.Event
			if _, err := Decode(m.data, &e, nil); err != nil {
				t.Fatal(err)
			}
			if got := passes(m.data); got != e.IsExpectation() {
				t.Fatalf("passes %t: %v", got, &e)
			}
		}
		// The master's tuple has the number of a flow's original one.
		f := expectation(tcp("10.0.0.1:1", "10.0.0.2:21"), 80)
		m, _ := f.Tail.Master()
		masterFirst := build(typeExpectNew, 0, flow.IPv4, appendTuple(nil, ctaExpectMaster, flow.IPv4, flow.TCP, &m.Tuple, 0),
			appendTuple(nil, ctaExpectTuple, flow.IPv4, flow.TCP, &f.Original, 0))
		if !passes(masterFirst) {
			t.Fatal("judged an expectation by its master")
		}
	}
}

// Long lists are judged as far as the kernel takes them.
func TestEventFilterOfLongLists(t *testing.T) {
	var v4, v6 []netip.Prefix
	for i := range 5000 {
		v4 = append(v4, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 2}), 32))
		v6 = append(v6, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, byte(i >> 8), byte(i)}), 128))
	}
	n := testbed.MustNamespace(t, "fw")
	for _, c := range []struct {
		prefixes []netip.Prefix
		unjudged string
	}{
		{v4[:1], ""}, {append(v4[:200:200], v6[:50]...), ""}, {append(v4[:200:200], v6...), "IPv6 addresses"}, {v4, "addresses"},
	} {
		s := mustEvents(t, n, EventsConfig{Screens: []flow.Screen{{Addresses: &flow.AddressList{Prefixes: c.prefixes}}}})
		if s.Unjudged() != c.unjudged {
			t.Errorf("%d prefixes: unjudged %q, not %q", len(c.prefixes), s.Unjudged(), c.unjudged)
		}
	}
}

// The real kernel judges real events as the screens do.
func TestKernelFiltersEvents(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	r := rand.New(rand.NewPCG(3, 4))
	w := mustWriter(t, n, WriterConfig{})
	type listener struct {
		screens []flow.Screen
		events  *Events
		got     map[flow.Key]int // how many events
		flows   map[flow.Key]flow.Flow
	}
	listeners := []*listener{{events: mustEvents(t, n, EventsConfig{Buffer: 16 << 20})}}
	for range 20 {
		screens := randomScreens(r)
		listeners = append(listeners, &listener{screens: screens, events: mustEvents(t, n, EventsConfig{Buffer: 16 << 20, Screens: screens})})
	}
	for range 800 {
		message := randomEvent(r)
		var e flow.Event
		if _, err := Decode(message, &e, nil); err != nil {
			t.Fatal(err)
		}
		e.Present, e.Timeout, e.Protocol = flow.HasReply|flow.HasTimeout, 100, []uint8{flow.UDP, flow.TCP, flow.UDPLite, flow.GRE, 50}[r.IntN(5)]
		e.Zone, e.ZoneOriginal, e.ZoneReply = uint16(r.IntN(2)), 0, 0
		for _, err := range []error{w.Commit(&e.Flow), w.Delete(&e.Flow)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	finish(t, w) // some are refused, for all they are random
	for i, l := range listeners {
		l.got, l.flows = map[flow.Key]int{}, map[flow.Key]flow.Flow{}
		for _, e := range decodeAll(t, drain(t, l.events)) {
			l.got[e.Key()]++
			l.flows[e.Key()] = e.Flow
			if i > 0 && !passesAll(l.screens, &e.Flow) {
				t.Errorf("passed %v\n%s", &e, describe(l.screens))
			}
		}
	}
	all := listeners[0]
	if len(all.got) < 400 {
		t.Fatalf("only %d flows had events", len(all.got))
	}
	for _, l := range listeners[1:] {
		for key, n := range all.got {
			if f := all.flows[key]; passesAll(l.screens, &f) && l.got[key] != n {
				t.Errorf("%d of %d events of %v passed\n%s", l.got[key], n, &f, describe(l.screens))
			}
		}
	}
}

// What the kernel drops takes no room in the buffer.
func TestScreenedEventsTakeNoRoom(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	screens := []flow.Screen{{Addresses: &flow.AddressList{Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}}
	s := mustEvents(t, n, EventsConfig{Buffer: 64 << 10, Screens: screens})
	w := mustWriter(t, n, WriterConfig{})
	for i := range 10000 { // the buffer holds 51
		if err := w.Commit(newFlow(flow.UDP, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 5), v4(1))); err != nil {
			t.Fatal(err)
		}
	}
	last := udp("192.0.2.1:1", "192.0.2.2:2")
	if err := w.Commit(last); err != nil {
		t.Fatal(err)
	}
	mustCount(t, "created", finish(t, w).Created, 10001)
	events := decodeAll(t, drain(t, s))
	if len(events) != 1 || events[0].Key() != last.Key() {
		t.Fatalf("%d events", len(events))
	}
	in(t, n, func() error {
		drops, err := s.Drops()
		if drops > 0 {
			return fmt.Errorf("%d drops", drops)
		}
		return err
	})
}
