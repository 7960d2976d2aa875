package notrack

import (
	"bytes"
	"errors"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

// newExpectation returns what the FTP helper expects when the client of a
// control connection says where it listens.
func newExpectation(src, dst string, x flow.Expectation) flow.Event {
	full := bytes.Repeat([]byte{255}, 16)
	e := flow.Event{Kind: flow.Expect, Flow: flow.Flow{
		Present: flow.HasReply | flow.HasTimeout, Protocol: flow.TCP, Timeout: 300,
		Original: tuple(dst, src, 0, 40007),
		Reply:    flow.Tuple{DestinationPort: 0xffff},
	}}
	m := flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: tuple(src, dst, 40302, 21)}
	n := 4
	if m.Tuple.Source[4]|m.Tuple.Source[15] != 0 {
		m.Family, n = flow.IPv6, 16
	}
	e.Family = m.Family
	copy(e.Reply.Source[:n], full)
	copy(e.Reply.Destination[:n], full)
	e.Tail = e.Tail.AppendMaster(&m).AppendExpectation(&x).Append(flow.AttrHelper, []byte("ftp"))
	return e
}

// expectations are what one message, with or without an extension, must carry.
func expectations() map[string]flow.Event {
	all := map[string]flow.Event{}
	add := func(name string, e flow.Event, change func(e *flow.Event)) {
		if change != nil {
			change(&e)
		}
		all[name] = e
	}
	v4 := func(x flow.Expectation) flow.Event { return newExpectation("10.0.0.1", "10.0.0.2", x) }
	v6 := func(x flow.Expectation) flow.Event { return newExpectation("2001:db8::1", "2001:db8::2", x) }
	translated := flow.Expectation{
		HasClass: true, HasNAT: true, NATDirection: flow.Reply, NATProtocol: flow.TCP, NAT: flow.Tuple{SourcePort: 40007},
	}
	function := func(e *flow.Event) { e.Tail = e.Tail.Append(flow.AttrFunction, []byte("nat-follow-master")) }
	master := func(protocol uint8, sport, dport uint16) func(e *flow.Event) {
		return func(e *flow.Event) {
			m := flow.Master{Family: e.Family, Protocol: protocol, Tuple: tuple("10.0.0.1", "10.0.0.2", sport, dport)}
			e.Tail = e.Tail.Without(flow.AttrMaster, nil).AppendMaster(&m)
		}
	}
	add("expectation", v4(flow.Expectation{Flags: flow.ExpectPermanent | flow.ExpectUserspace, Class: 2, HasClass: true}), nil)
	add("expectation that ended", v4(flow.Expectation{}), func(e *flow.Event) { e.Kind = flow.Unexpect })
	add("expectation IPv6", v6(flow.Expectation{HasClass: true}), nil)
	add("expectation with NAT", v4(translated), func(e *flow.Event) {
		x := translated
		x.NAT.Source, _ = flow.Bytes(addr("10.0.0.1"))
		e.Tail = e.Tail.Without(flow.AttrExpectation, nil).AppendExpectation(&x)
		function(e)
	})
	add("expectation with NAT IPv6, address unknown", v6(translated), function)
	add("expectation with NAT IPv6", v6(translated), func(e *flow.Event) {
		x := translated
		x.NAT.Source, _ = flow.Bytes(addr("2001:db8::1"))
		e.Tail = e.Tail.Without(flow.AttrExpectation, nil).AppendExpectation(&x)
	})
	add("expectation in a zone", v4(flow.Expectation{}), func(e *flow.Event) {
		e.Zone = 5
		m, _ := e.Tail.Master()
		m.Zone = 5
		e.Tail = e.Tail.Without(flow.AttrMaster, nil).AppendMaster(&m)
	})
	add("expectation, long helper and function", v4(flow.Expectation{}), func(e *flow.Event) {
		e.Tail = e.Tail.Without(flow.AttrHelper, nil).Append(flow.AttrHelper, []byte("netbios-ns-or-so")).
			Append(flow.AttrFunction, []byte("a-function-of-28-characters!"))
	})
	add("expectation of a flow without ports", v4(flow.Expectation{}), master(flow.ICMP, 7, 8<<8))
	add("expectation of GRE keys, PPTP's", v4(flow.Expectation{}), func(e *flow.Event) {
		e.Protocol = flow.GRE
		e.Original.SourcePort, e.Original.DestinationPort = 7, 8
	})
	add("expectation of GRE keys", v4(flow.Expectation{}), func(e *flow.Event) {
		e.Protocol = flow.GRE
		master(flow.UDPLite, 7, 8)(e)
	})
	add("expectation with unknown attributes", v4(flow.Expectation{}), func(e *flow.Event) {
		e.Tail = e.Tail.Append(900, []byte("kept")).Append(flow.AttrLabels, make([]byte, 16))
	})
	return all
}

func TestExpectationsNotSent(t *testing.T) {
	whole := expectations()["expectation"]
	for name, change := range map[string]func(e *flow.Event){
		"no master": func(e *flow.Event) { e.Tail = e.Tail.Without(flow.AttrMaster, nil) },
		"no mask":   func(e *flow.Event) { e.Present &^= flow.HasReply },
		"a master of another family": func(e *flow.Event) {
			m := flow.Master{Family: flow.IPv6, Protocol: flow.TCP, Tuple: tuple("2001:db8::1", "2001:db8::2", 9, 21)}
			e.Tail = e.Tail.Without(flow.AttrMaster, nil).AppendMaster(&m)
		},
	} {
		e := whole
		change(&e)
		if p, err := NewEncoder(Settings{}).AppendFlow(nil, &e); !errors.Is(err, ErrNoMaster) || len(p) > 0 {
			t.Errorf("%s: %v, %d bytes", name, err, len(p))
		}
	}
	zone := expectations()["expectation in a zone"]
	if _, err := NewEncoder(Settings{NoExtension: true}).AppendFlow(nil, &zone); !errors.Is(err, ErrZone) {
		t.Errorf("of a zone without an extension: %v", err)
	}
	p, _ := NewEncoder(Settings{NoExtension: true}).AppendFlow(nil, &whole)
	q, _ := NewEncoder(Settings{NoExtension: true, Timeout: true}).AppendFlow(nil, &whole)
	if len(q)-len(p) != 8 {
		t.Errorf("%d bytes without, %d with the timeout", len(p), len(q))
	}
}

// TestIncompleteExpectations refuses what the kernel can't know: a strict
// Decoder takes it, as conntrackd does, and neither falls over it.
func TestIncompleteExpectations(t *testing.T) {
	ipv4 := bytes.Repeat([]byte{10}, 8)
	ipv6 := bytes.Repeat([]byte{0xfd}, 32)
	type attr struct {
		number int
		value  []byte
	}
	whole := []attr{
		{0, ipv4}, {2, []byte{6}}, {3, []byte{1, 2, 3, 4}}, {4, ipv4}, {6, []byte{6}}, {7, []byte{0, 0, 3, 4}},
		{8, ipv4}, {10, []byte{6}}, {11, []byte{0, 0, 255, 255}}, {13, []byte{0, 0, 0, 0}}, {18, []byte{0, 0, 0, 1}},
	}
	for name, tt := range map[string]struct {
		without int
		with    *attr
		good    bool
	}{
		"whole":                              {without: -1, good: true},
		"no addresses of the master":         {without: 0},
		"no protocol of the master":          {without: 2},
		"no ports of the master":             {without: 3, good: true},
		"no expected addresses":              {without: 4},
		"no expected protocol":               {without: 6},
		"no expected ports":                  {without: 7},
		"no mask":                            {without: 8},
		"no protocol of the mask":            {without: 10, good: true},
		"no ports of the mask, so any":       {without: 11},
		"no flags":                           {without: 13, good: true},
		"a master of another family":         {without: 0, with: &attr{1, ipv6}},
		"expected addresses of another":      {without: 4, with: &attr{5, ipv6}},
		"a mask of another":                  {without: 8, with: &attr{9, ipv6}},
		"a master of both, the later counts": {without: -1, with: &attr{1, ipv6}},
		"a direction that there is not":      {without: 18, with: &attr{18, []byte{0, 0, 0, 2}}},
		"an IPv4 translation, of IPv4":       {without: 18, with: &attr{15, ipv4}, good: true},
		"a direction of more than a byte":    {without: 18, with: &attr{18, []byte{0, 0, 1, 0}}},
	} {
		p := []byte{0x13, 0, 0, 0, 0, 0, 0, 0}
		for _, a := range append(whole[:len(whole):len(whole)], attr{}) {
			if a.value == nil && tt.with != nil {
				a = *tt.with
			} else if a.value == nil || a.number == tt.without {
				continue
			}
			p = appendPadding(append(appendHeader(p, a.number, len(a.value)), a.value...), len(a.value))
		}
		p = endMessage(p, 0)
		for _, strict := range []bool{false, true} {
			d := Decoder{Strict: strict}
			want := Counters{}
			if !tt.good && !strict {
				want.Incomplete = 1
			}
			var m Message
			d.Reset(p, nil)
			if got := d.Next(&m); got != (tt.good || strict) || d.Counters != want {
				t.Errorf("%s, strict %v: taken %v, %+v", name, strict, got, d.Counters)
			}
		}
	}
}

// TestIPv4TranslationOfIPv6 ignores an address of another family.
func TestIPv4TranslationOfIPv6(t *testing.T) {
	e := expectations()["expectation with NAT IPv6, address unknown"]
	p, _ := NewEncoder(Settings{}).AppendFlow(nil, &e)
	p = append(p, 0, 12, 0, expNATIPv4, 10, 0, 0, 1, 10, 0, 0, 2)
	var d Decoder
	var m Message
	if d.Reset(endMessage(p, 0), nil); !d.Next(&m) {
		t.Fatalf("%+v", d.Counters)
	}
	if x, _ := m.Event.Tail.Expectation(); x.NAT.Source != [16]byte{} || x.NAT.SourcePort != 40007 {
		t.Errorf("%+v", x)
	}
}
