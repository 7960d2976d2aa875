package ctnl

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// sendRaw sends packets of an IP protocol from a namespace.
func sendRaw(t *testing.T, n *testbed.Namespace, protocol int, to netip.Addr, payloads ...[]byte) {
	t.Helper()
	in(t, n, func() error {
		family, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: [4]byte(to.AsSlice())})
		if to.Is6() {
			family, address = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.As16()}
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for _, p := range payloads {
			if err := unix.Sendto(fd, p, 0, address); err != nil {
				return err
			}
		}
		return nil
	})
}

// ports are the first four bytes of most transports, with a body.
func ports(source, destination uint16, body ...byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, source)
	return append(binary.BigEndian.AppendUint16(p, destination), body...)
}

// sctp is a packet with one chunk; no checksum is looked at.
func sctp(source, destination uint16, tag uint32, chunk byte, init uint32) []byte {
	p := binary.BigEndian.AppendUint32(ports(source, destination), tag)
	p = append(p, 0, 0, 0, 0, chunk, 0, 0, 20)
	p = binary.BigEndian.AppendUint32(p, init)
	return append(p, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1)
}

const (
	sctpInit, sctpInitAck, sctpCookieEcho, sctpCookieAck = 1, 2, 10, 11
	sctpEstablished                                      = 4 // SCTP_CONNTRACK_ESTABLISHED
)

// everyProtocol makes a flow of each protocol through a firewall with packets.
func everyProtocol(t *testing.T, bed *testbed.Single, server, client netip.Addr) {
	t.Helper()
	bed.Client.MustUDP(t, testbed.UDP{To: netip.AddrPortFrom(server, testbed.ServerPort), Count: 1, Exchanges: 2})
	bed.Client.MustChurn(t, testbed.Churn{To: netip.AddrPortFrom(server, testbed.ServerPort), Count: 1, Payload: 10, Ending: testbed.LeftOpen})
	bed.Client.MustPing(t, server)
	sendRaw(t, bed.Client, int(flow.UDPLite), server, ports(1000, 2000, 0, 0, 0xff, 0xff, 1, 2, 3, 4)) // a checksum must be there
	sendRaw(t, bed.Client, int(flow.SCTP), server, sctp(1001, 2001, 0, sctpInit, 0x11111111))
	sendRaw(t, bed.Server, int(flow.SCTP), client, sctp(2001, 1001, 0x11111111, sctpInitAck, 0x22222222))
	sendRaw(t, bed.Client, int(flow.SCTP), server, sctp(1001, 2001, 0x22222222, sctpCookieEcho, 0))
	sendRaw(t, bed.Server, int(flow.SCTP), client, sctp(2001, 1001, 0x11111111, sctpCookieAck, 0))
	// GRE of version 1 with a key: the length, and the call's id.
	sendRaw(t, bed.Client, int(flow.GRE), server, []byte{0x20, 0x01, 0x88, 0x0b, 0, 4, 0x12, 0x34, 1, 2, 3, 4})
	sendRaw(t, bed.Client, 50, server, []byte{0, 0, 0, 1, 0, 0, 0, 1}) // ESP: no ports
}

// Flows of every protocol that packets made come as events that tell as much as a
// dump, and a kernel that gets them has them.
func TestEveryProtocol(t *testing.T) {
	families(t, func(t *testing.T, server, snat netip.Addr) {
		for _, translated := range []bool{false, true} {
			bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: translated, Sysctls: map[string]string{"net.netfilter.nf_conntrack_checksum": "0"}})
			testbed.MustServer(t, bed.Server, testbed.ServerPort)
			events := mustEvents(t, bed.FW.Namespace, EventsConfig{Buffer: 4 << 20})
			client := testbed.ClientAddr.Of(server)
			if translated {
				client = snat
			}
			everyProtocol(t, bed, server, client)
			seen := merged(t, drain(t, events))
			dumped := dump(t, bed.FW.Namespace, Filter{})
			protocols := map[uint8]bool{}
			for i := range dumped {
				d := &dumped[i].Flow
				protocols[d.Protocol] = true
				mustTellTheSame(t, seen[d.Key()], d)
				if _, ok := d.SourceNAT(); ok != translated && flow.Address(d.Family, d.Original.Destination) == server {
					t.Errorf("translated %t: %v", ok, d)
				}
				tags, _ := d.Tail.Get(flow.AttrSCTPTags)
				if want := []byte{0x22, 0x22, 0x22, 0x22, 0x11, 0x11, 0x11, 0x11}; d.Protocol == flow.SCTP && (d.State != sctpEstablished || string(tags) != string(want)) {
					t.Errorf("SCTP state %d, tags %x", d.State, tags)
				}
				if d.Protocol == flow.GRE && server.Is4() && d.Original.DestinationPort != 0x1234 {
					t.Errorf("GRE without its key: %v", d)
				}
			}
			for _, want := range []uint8{flow.UDP, flow.TCP, flow.ICMP, flow.UDPLite, flow.SCTP, flow.GRE, 50} {
				if want == flow.ICMP && server.Is6() {
					want = flow.ICMPv6
				}
				if !protocols[want] {
					t.Errorf("no flow of protocol %d", want)
				}
			}
			mustMirror(t, bed.FW.Namespace, dumped)
		}
	})
}

// merged merges the events of each flow.
func merged(t *testing.T, messages [][]byte) map[flow.Key]*flow.Flow {
	t.Helper()
	flows := map[flow.Key]*flow.Flow{}
	for _, e := range decodeAll(t, messages) {
		f, ok := flows[e.Key()]
		switch {
		case e.Kind == flow.Destroy:
			delete(flows, e.Key())
		case ok && e.Kind == flow.Update:
			f.Merge(&e.Flow, nil)
		default:
			f := e.Flow
			flows[e.Key()] = &f
		}
	}
	return flows
}

// mustTellTheSame compares a flow of events with one of a dump, but for what only
// time changes: timeouts, and what packets without events changed of TCP.
func mustTellTheSame(t *testing.T, event, dumped *flow.Flow) {
	t.Helper()
	if event == nil {
		t.Errorf("no event told of %v", dumped)
		return
	}
	e, d := *event, *dumped
	e.Timeout, e.TCPFlags, d.Timeout, d.TCPFlags = 0, [2]uint8{}, 0, [2]uint8{}
	if got, want := format(&flow.Event{Flow: e}, 0), format(&flow.Event{Flow: d}, 0); got != want {
		t.Errorf("events told\n%snot\n%s", got, want)
	}
}

// mustMirror commits flows into a fresh kernel and compares the two tables by
// eyes that are not this codec's.
func mustMirror(t *testing.T, from *testbed.Namespace, flows []flow.Event) {
	t.Helper()
	to := testbed.MustNamespace(t, "mirror")
	if err := to.Rules(labelRule); err != nil {
		t.Fatal(err)
	}
	w := mustWriter(t, to, WriterConfig{})
	for i := range flows {
		if err := w.Commit(&flows[i].Flow); err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Created != uint64(len(flows)) || c.WithoutHelper+c.WithoutLabels+c.WithoutMaster+c.Failed() > 0 {
		t.Fatalf("%+v", c)
	}
	// Where NAT has hooks all flows have passed it.
	all := testbed.Comparison{Fields: testbed.Replicated | testbed.FieldTCPWindow, Status: ^uint32(testbed.StatusNATDone)}
	if diff := all.Diff(from.MustTable(t), to.MustTable(t)); diff != "" {
		t.Errorf("the mirror differs:\n%s", diff)
	}
}

func labels(bits ...int) []byte {
	v := make([]byte, labelsSize)
	for _, b := range bits {
		v[b/8] |= 1 << (b % 8)
	}
	return v
}

// attributes are flows of both families with all that a flow can have, and what
// each may become.
func attributes(family string) (cases []attributeCase) {
	address := map[string][2]string{"ipv4": {"10.0.0.%d", "192.0.2.%d"}, "ipv6": {"[fd00::%d]", "[fd01::%d]"}}[family]
	next := 0
	flowOf := func(make func(from, to string) *flow.Flow, port int) *flow.Flow {
		next++
		return make(fmt.Sprintf(address[0]+":%d", next, 1000+next), fmt.Sprintf(address[0]+":%d", 100, port))
	}
	translated := func(n int) string { return fmt.Sprintf(address[1]+":%d", n, 4000+n) }
	add := func(name string, f *flow.Flow, first, then func(*flow.Flow)) {
		if first != nil {
			first(f)
		}
		cases = append(cases, attributeCase{name, f, then})
	}
	tail := func(of flow.Attr, v []byte) func(*flow.Flow) {
		return func(f *flow.Flow) { f.Tail = f.Tail.Without(of, nil).Append(of, v) }
	}
	numbers := func(of flow.Attr, v ...uint32) func(*flow.Flow) {
		return func(f *flow.Flow) { f.Tail = appendUint32s(f.Tail.Without(of, nil), of, v) }
	}
	mark := func(m uint32) func(*flow.Flow) {
		return func(f *flow.Flow) { f.Mark, f.Present = m, f.Present|flow.HasMark }
	}
	dnat := func(f *flow.Flow, to string) *flow.Flow {
		a := netip.MustParseAddrPort(to)
		f.Reply.Source, _ = flow.Bytes(a.Addr())
		f.Reply.SourcePort = a.Port()
		return f
	}
	add("mark", flowOf(udp, 53), mark(0xffffffff), mark(7))
	add("mark taken off", flowOf(udp, 53), mark(5), mark(0))
	add("zone", flowOf(udp, 53), func(f *flow.Flow) { f.Zone = 5 }, mark(1))
	add("zone of the original direction", flowOf(udp, 53), func(f *flow.Flow) { f.ZoneOriginal = 6 }, mark(2))
	add("zone of the reply direction", flowOf(udp, 53), func(f *flow.Flow) { f.ZoneReply = 7 }, mark(3))
	add("labels", flowOf(udp, 53), tail(flow.AttrLabels, labels(0, 63, 127)), tail(flow.AttrLabels, labels(1)))
	add("labels cleared", flowOf(udp, 53), tail(flow.AttrLabels, labels(3)), tail(flow.AttrLabels, labels()))
	add("helper", flowOf(tcp, 21), tail(flow.AttrHelper, []byte("ftp")), mark(4))
	add("helper of UDP", flowOf(udp, 5060), tail(flow.AttrHelper, []byte("sip")), mark(5))
	add("sequence adjustment", flowOf(tcp, 80), numbers(flow.AttrSeqAdj, 100, 0, 5, 200, 5, 1<<32-3), numbers(flow.AttrSeqAdj, 101, 5, 6, 200, 5, 9))
	add("synproxy", flowOf(tcp, 80), numbers(flow.AttrSynproxy, 1, 2, 3), numbers(flow.AttrSynproxy, 4, 5, 6))
	add("window scale", flowOf(tcp, 80), func(f *flow.Flow) {
		f.Present |= flow.HasWindowScale | flow.HasTCPFlags
		f.WindowScale, f.TCPFlags = [2]uint8{7, 14}, [2]uint8{tcpWindowScale | tcpSACK, tcpWindowScale}
	}, func(f *flow.Flow) { f.WindowScale = [2]uint8{1, 2} })
	add("TCP state", flowOf(tcp, 80), nil, func(f *flow.Flow) { f.State = tcpTimeWait })
	add("SCTP", flowOf(udp, 80), func(f *flow.Flow) {
		f.Protocol, f.State, f.Present = flow.SCTP, 3, f.Present|flow.HasState
		numbers(flow.AttrSCTPTags, 0x11, 0xfffffff0)(f)
	}, func(f *flow.Flow) { f.State = sctpEstablished; numbers(flow.AttrSCTPTags, 0x12, 0xfffffff1)(f) })
	add("SCTP with a tag not seen", flowOf(udp, 80), func(f *flow.Flow) {
		f.Protocol, f.State, f.Present = flow.SCTP, 3, f.Present|flow.HasState
		numbers(flow.AttrSCTPTags, 0x21, 0x22)(f)
	}, func(f *flow.Flow) { f.State = sctpEstablished; numbers(flow.AttrSCTPTags, 0, 0x23)(f) })
	add("UDPlite", flowOf(udp, 80), func(f *flow.Flow) { f.Protocol = flow.UDPLite }, mark(6))
	add("GRE", flowOf(udp, 80), func(f *flow.Flow) { f.Protocol = flow.GRE }, mark(7))
	add("no ports", flowOf(udp, 0), func(f *flow.Flow) {
		f.Protocol, f.Original.SourcePort, f.Reply.DestinationPort = 89, 0, 0
	}, mark(8))
	add("source translated", snat(flowOf(udp, 53), translated(1)), nil, mark(9))
	add("source translated, TCP", snat(flowOf(tcp, 53), translated(2)), nil, mark(10))
	add("destination translated", dnat(flowOf(udp, 53), translated(3)), nil, mark(11))
	add("both translated", dnat(snat(flowOf(tcp, 53), translated(4)), translated(5)), nil, mark(12))
	port := flowOf(tcp, 53)
	port.Reply.DestinationPort = 40000
	add("source port translated", port, nil, mark(13))
	port = flowOf(udp, 53)
	port.Reply.SourcePort = 40001
	add("destination port translated", port, nil, mark(14))
	master := cases[7].flow
	add("related", flowOf(tcp, 2000), func(f *flow.Flow) {
		f.Tail = f.Tail.AppendMaster(&flow.Master{Family: f.Family, Protocol: master.Protocol, Tuple: master.Original})
	}, mark(15))
	return cases
}

type attributeCase struct {
	name   string
	flow   *flow.Flow
	change func(*flow.Flow)
}

// What is committed is in the kernel, attribute by attribute, when it is created
// and when it changes; the kernel's events tell of it, and another kernel that
// gets what they tell has it too.
func TestEveryAttribute(t *testing.T) {
	for _, family := range []string{"ipv4", "ipv6"} {
		t.Run(family, func(t *testing.T) {
			n := testbed.MustNamespace(t, "fw")
			if err := n.Rules(labelRule); err != nil {
				t.Fatal(err)
			}
			events := mustEvents(t, n, EventsConfig{Buffer: 4 << 20})
			w := mustWriter(t, n, WriterConfig{WindowTracking: true})
			cases := attributes(family)
			var messages [][]byte
			for _, round := range []string{"created", "changed"} {
				for _, c := range cases {
					if round == "changed" {
						c.change(c.flow)
					}
					if err := w.Commit(c.flow); err != nil {
						t.Fatal(err)
					}
				}
				if c := finish(t, w); c.Created+c.Updated != uint64(len(cases)) || len(c.Failures) > 0 || c.WithoutHelper+c.WithoutLabels+c.WithoutMaster > 0 {
					t.Fatalf("%s: %+v", round, c)
				}
				messages = append(messages, drain(t, events)...)
				seen := merged(t, messages)
				for _, c := range cases {
					e := mustFind(t, n, c.flow)
					mustHave(t, round+" "+c.name, &e.Flow, c.flow)
					if c.name != "labels cleared" { // no event tells of that
						mustTellTheSame(t, seen[e.Key()], &e.Flow)
					}
				}
				mustMirror(t, n, dump(t, n, Filter{}))
			}
		})
	}
}

// mustHave checks that an entry has all that the flow it was made from has.
func mustHave(t *testing.T, name string, e, f *flow.Flow) {
	t.Helper()
	if e.Reply != f.Reply || e.ZoneReply != f.ZoneReply || e.Key() != f.Key() {
		t.Errorf("%s: %v, not %v", name, e, f)
	}
	if f.Has(flow.HasMark) && e.Mark != f.Mark || f.Has(flow.HasState) && e.State != f.State ||
		f.Has(flow.HasWindowScale) && e.WindowScale != f.WindowScale || f.Has(flow.HasTCPFlags) && e.TCPFlags != f.TCPFlags ||
		e.Timeout > f.Timeout || e.Timeout < f.Timeout-20 || e.Status&(flow.SeenReply|flow.Assured) != f.Status&(flow.SeenReply|flow.Assured) {
		t.Errorf("%s: %s, not\n%s", name, format(&flow.Event{Flow: *e}, 0), format(&flow.Event{Flow: *f}, 0))
	}
	for of, want := range f.Tail.All() {
		got, _ := e.Tail.Get(of)
		switch {
		case of == flow.AttrLabels && string(want) == string(labels()):
			want = nil // the kernel does not mention them
		case of == flow.AttrSCTPTags && binary.LittleEndian.Uint32(want) == 0:
			want = append(binary.LittleEndian.AppendUint32(nil, 0x21), want[4:]...) // what it was is kept
		}
		if string(got) != string(want) {
			t.Errorf("%s: attribute %d is %x, not %x", name, of, got, want)
		}
	}
}

// DCCP has states and ports of its own only where the kernel tracks it.
func TestDCCP(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	f := newFlow(flow.DCCP, v4(1), v4(2))
	w := mustWriter(t, n, WriterConfig{})
	commitAll(t, w, f)
	if e, ok := find(t, n, f); ok && e.Original.SourcePort == f.Original.SourcePort {
		mustMirror(t, n, dump(t, n, Filter{}))
		return
	}
	t.Skip("this kernel does not track DCCP: its flows have no ports")
}
