package interop

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// An injector makes flows that no packet made, each between two hosts of its own.
type injector struct {
	flows []flow.Flow
	first int // number of the first one's hosts
}

// add adds a flow of each family.
func (in *injector) add(protocol uint8, sport, dport uint16, change func(f *flow.Flow)) {
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		in.addOf(family, protocol, sport, dport, change)
	}
}

func (in *injector) addOf(family, protocol uint8, sport, dport uint16, change func(f *flow.Flow)) *flow.Flow {
	f := flow.Flow{
		Family: family, Protocol: protocol, Timeout: 600,
		Present:  flow.HasReply | flow.HasStatus | flow.HasTimeout | flow.HasMark,
		Status:   flow.Confirmed | flow.SeenReply | flow.Assured,
		Original: flow.Tuple{Source: in.host(family, 1), Destination: in.host(family, 2), SourcePort: sport, DestinationPort: dport},
	}
	if protocol == flow.TCP {
		f.Present |= flow.HasState
		f.State = 3
	}
	f.Reply = f.Original.Inverted(protocol)
	if change != nil {
		change(&f)
	}
	in.flows = append(in.flows, f)
	return &in.flows[len(in.flows)-1]
}

// host is an address that belongs to the next flow.
func (in *injector) host(family, n uint8) (b [16]byte) {
	address := "10.99.0.0"
	if family == flow.IPv6 {
		address = "fd99::"
	}
	b, _ = flow.Bytes(netip.MustParseAddr(address))
	last := 3
	if family == flow.IPv6 {
		last = 15
	}
	b[last-1], b[last] = uint8(in.first+len(in.flows)), n
	return b
}

// injected are flows of all protocols with all attributes that take more than a
// few packets to make.
func injected() []flow.Flow {
	in := &injector{}
	in.protocols()
	in.translations()
	in.attributes()
	return in.flows
}

func (in *injector) protocols() {
	for state := uint8(1); state <= 9; state++ {
		in.add(flow.TCP, 1000, 80, func(f *flow.Flow) {
			f.State, f.Present = state, f.Present|flow.HasWindowScale
			f.WindowScale = [2]uint8{7, state}
		})
	}
	for state := uint8(1); state <= 8; state++ {
		in.add(flow.SCTP, 1000, 80, func(f *flow.Flow) {
			f.State, f.Present = state, f.Present|flow.HasState
			f.Tail = f.Tail.Append(flow.AttrSCTPTags, []byte{0x44, 0x33, 0x22, 0x11, state, 0x77, 0x66, 0x55})
		})
	}
	in.add(flow.UDPLite, 1000, 2000, nil)
	in.add(flow.GRE, 7, 8, nil)
	in.add(flow.GRE, 0, 0, nil)
	in.add(flow.UDP, 1000, 53, func(f *flow.Flow) { f.Status &^= flow.Assured })
	in.add(flow.UDP, 1001, 53, func(f *flow.Flow) { f.Status &^= flow.Assured | flow.SeenReply })
	in.add(unix.IPPROTO_ESP, 0, 0, nil)
	in.add(89, 0, 0, nil) // OSPF
	for _, request := range []uint16{8, 13, 17} {
		in.addOf(flow.IPv4, flow.ICMP, 4660, request<<8, nil)
	}
	in.addOf(flow.IPv6, flow.ICMPv6, 4660, 128<<8, nil)
}

// translations translate each part of either end by itself, and both.
func (in *injector) translations() {
	for _, protocol := range []uint8{flow.TCP, flow.UDP, flow.SCTP, flow.UDPLite, flow.GRE} {
		for part := range 5 {
			if protocol == flow.GRE && part != 0 && part != 2 {
				continue // the kernel translates no keys but PPTP's
			}
			in.add(protocol, 1000, 2000, func(f *flow.Flow) {
				if part == 0 || part == 4 {
					f.Reply.Destination = in.host(f.Family, 3)
				}
				if part == 1 || part == 4 {
					f.Reply.DestinationPort = 0xc3cb
				}
				if part == 2 || part == 4 {
					f.Reply.Source = in.host(f.Family, 4)
				}
				if part == 3 || part == 4 {
					f.Reply.SourcePort = 0xd4dc
				}
				if protocol == flow.SCTP {
					f.State, f.Present = 4, f.Present|flow.HasState
					f.Tail = f.Tail.Append(flow.AttrSCTPTags, []byte{1, 2, 3, 4, 5, 6, 7, 8})
				}
			})
		}
	}
	in.addOf(flow.IPv4, flow.ICMP, 4660, 8<<8, func(f *flow.Flow) { f.Reply.Destination = in.host(f.Family, 3) })
	in.addOf(flow.IPv4, flow.ICMP, 4660, 8<<8, func(f *flow.Flow) {
		f.Reply.Destination, f.Reply.SourcePort = in.host(f.Family, 3), 4661
	})
	in.addOf(flow.IPv6, flow.ICMPv6, 4660, 128<<8, func(f *flow.Flow) { f.Reply.Source = in.host(f.Family, 4) })
}

func (in *injector) attributes() {
	for _, mark := range []uint32{1, 0xffffffff} {
		in.add(flow.UDP, 1000, 53, func(f *flow.Flow) { f.Mark = mark })
	}
	for _, zone := range []uint16{1, 0xffff} {
		in.add(flow.TCP, 1000, 80, func(f *flow.Flow) { f.Zone = zone })
	}
	in.add(flow.UDP, 1000, 53, func(f *flow.Flow) { f.ZoneOriginal = 6 })
	in.add(flow.UDP, 1000, 53, func(f *flow.Flow) { f.ZoneReply = 7 })
	for _, labels := range []string{"\x01", "\x00\x80\x00\x00\x10\x20\x00\x00\x01\x00\x00\x00\x00\x00\x00\x80"} {
		in.add(flow.UDP, 1000, 53, func(f *flow.Flow) {
			f.Tail = f.Tail.Append(flow.AttrLabels, append([]byte(labels), make([]byte, 16)...)[:16])
		})
	}
	in.add(flow.TCP, 1000, 80, func(f *flow.Flow) {
		f.Tail = f.Tail.Append(flow.AttrSynproxy, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	})
	in.add(flow.TCP, 1000, 21, func(f *flow.Flow) {
		f.Tail = f.Tail.Append(flow.AttrSeqAdj, []byte{
			1, 2, 3, 4, 5, 0, 0, 0, 7, 0, 0, 0, 9, 10, 11, 12, 0xfb, 0xff, 0xff, 0xff, 0xf9, 0xff, 0xff, 0xff,
		}).Append(flow.AttrHelper, []byte("ftp"))
	})
	in.add(flow.UDP, 1000, 53, func(f *flow.Flow) { f.Status |= flow.FixedTimeout })
}

// everySort checks that a table has what injected is to make.
func everySort(t *testing.T, table testbed.Table) {
	t.Helper()
	protocols := []uint8{1, 6, 17, 47, 50, 58, 89, 132, 136}
	for _, protocol := range protocols {
		if len(table.Where(func(f testbed.Flow) bool { return f.Proto == protocol })) == 0 {
			t.Errorf("no flow of protocol %d", protocol)
		}
	}
	for name, match := range map[string]func(testbed.Flow) bool{
		"ports of UDP-Lite":   func(f testbed.Flow) bool { return f.Proto == 136 && f.Orig.SrcPort != 0 },
		"keys of GRE":         func(f testbed.Flow) bool { return f.Proto == 47 && f.Orig.SrcPort != 0 },
		"a zone of requests":  func(f testbed.Flow) bool { return f.Orig.Zone != 0 },
		"a zone of answers":   func(f testbed.Flow) bool { return f.Reply.Zone != 0 },
		"a SYN proxy":         func(f testbed.Flow) bool { return f.SynProxy != [3]uint32{} },
		"sequence adjustment": func(f testbed.Flow) bool { return f.SeqAdjust != [2]testbed.SeqAdjust{} },
		"window scales":       func(f testbed.Flow) bool { return f.TCPWindow == [2]uint8{7, 3} },
		"SCTP's tags":         func(f testbed.Flow) bool { return f.SCTPTags[1] != 0 },
		"a fixed timeout":     func(f testbed.Flow) bool { return f.Status&uint32(flow.FixedTimeout) != 0 },
		"a port translated alone": func(f testbed.Flow) bool {
			return f.Orig.Src == f.Reply.Dst && f.Orig.SrcPort != f.Reply.DstPort && f.Proto != 1 && f.Proto != 58
		},
	} {
		if len(table.Where(match)) == 0 {
			t.Errorf("no flow with %s", name)
		}
	}
	if len(table.Where(func(f testbed.Flow) bool { return f.Proto == 1 && f.Orig.ICMPID != f.Reply.ICMPID })) == 0 {
		t.Error("no ICMP flow whose id is translated")
	}
}

// changes are what becomes of the flows: half of them change, in all that can
// change; some of the others end.
func changes(made []flow.Flow) (changed, gone []flow.Flow) {
	for i, f := range made {
		switch i % 4 {
		case 0, 1:
			f.Mark ^= 0x10
			f.Timeout = 700
			f.Status |= flow.SeenReply | flow.Assured
			if f.Protocol == flow.TCP {
				f.State = 7
			}
			if f.Protocol == flow.SCTP && f.State < 8 {
				f.State++
			}
			if v, ok := f.Tail.Get(flow.AttrLabels); ok {
				v = append([]byte{}, v...)
				v[0], v[3] = v[0]^2, 0x55
				f.Tail = f.Tail.Without(flow.AttrLabels, nil).Append(flow.AttrLabels, v)
			}
			changed = append(changed, f)
		case 2:
			gone = append(gone, f)
		}
	}
	return changed, gone
}
