package filterbasic

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// build makes a filter from a block as the runner hands it over.
func build(t testing.TB, block string) *Filter {
	t.Helper()
	c := Definition.Config()
	if d := plugin.Decode([]byte(block), c); len(d) > 0 {
		t.Fatal(d)
	}
	f, err := c.(plugin.Builder).Build()
	if err != nil {
		t.Fatal(err)
	}
	return f.(*Filter)
}

// event makes an update of a flow between two addresses.
func event(protocol uint8, source, destination string) flow.Event {
	e := flow.Event{Kind: flow.Update}
	e.Original.Source, e.Family = flow.Bytes(netip.MustParseAddr(source))
	e.Original.Destination, _ = flow.Bytes(netip.MustParseAddr(destination))
	e.Protocol = protocol
	e.Reply = e.Original.Inverted(protocol)
	e.Present = flow.HasReply
	return e
}

func tcp(kind flow.Kind, state uint8) flow.Event {
	e := event(flow.TCP, "10.0.0.1", "10.0.0.2")
	e.Kind, e.State, e.Present = kind, state, e.Present|flow.HasState
	return e
}

func translated(source, destination, replySource, replyDestination string) flow.Event {
	e := event(flow.UDP, source, destination)
	e.Reply.Source, _ = flow.Bytes(netip.MustParseAddr(replySource))
	e.Reply.Destination, _ = flow.Bytes(netip.MustParseAddr(replyDestination))
	return e
}

func without(e flow.Event, f flow.Field) flow.Event {
	e.Present &^= f
	if f == flow.HasReply {
		e.Reply = flow.Tuple{}
	}
	return e
}

func TestFilter(t *testing.T) {
	const (
		onlyTCP  = `{"protocol":{"accept":["tcp"]}}`
		noTCP    = `{"protocol":{"ignore":["TCP","58"]}}`
		ignore   = `{"address":{"ignore":["127.0.0.1","192.168.100.0/24","2001:db8:1::/48","::1"]}}`
		accept   = `{"address":{"accept":["10.1.0.0/16","2001:db8::7"]}}`
		states   = `{"state":{"accept":["ESTABLISHED","closed"]}}`
		noStates = `{"state":{"ignore":["SYN_SENT","LISTEN"]}}`
		all      = `{"protocol":{"accept":["tcp"]},"address":{"ignore":["10.0.0.9"]},"state":{"accept":["ESTABLISHED"]}}`
		any4     = `{"address":{"accept":["0.0.0.0/0"]}}`
		any6     = `{"address":{"accept":["::/0"]}}`
		hostBits = `{"address":{"accept":["10.1.2.3/8"]}}`
		mapped   = `{"address":{"accept":["::ffff:10.0.0.1","::ffff:10.9.0.0/112"]}}`
	)
	udp := func(s, d string) flow.Event { return event(flow.UDP, s, d) }
	// Expected of a master from 10.1.0.1 to 10.0.0.2 is a flow between others.
	expected := func(kind flow.Kind, protocol uint8) flow.Event {
		e, master := tcp(kind, flow.TCPSynSent), event(protocol, "10.1.0.1", "10.0.0.2")
		e.Tail = e.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: protocol, Tuple: master.Original})
		return e
	}
	cases := []struct {
		name, block string
		event       flow.Event
		pass        bool
	}{
		{"no sets", `{}`, udp("10.0.0.1", "10.0.0.2"), true},
		{"protocol accepted", onlyTCP, tcp(flow.New, 1), true},
		{"protocol not accepted", onlyTCP, udp("10.0.0.1", "10.0.0.2"), false},
		{"protocol of a destroy", onlyTCP, func() flow.Event { e := udp("::1", "::2"); e.Kind = flow.Destroy; return e }(), false},
		{"protocol ignored", noTCP, tcp(flow.New, 1), false},
		{"protocol ignored by number", noTCP, event(flow.ICMPv6, "::1", "::2"), false},
		{"protocol not ignored", noTCP, udp("10.0.0.1", "10.0.0.2"), true},

		{"source ignored", ignore, udp("127.0.0.1", "10.0.0.2"), false},
		{"destination ignored", ignore, udp("10.0.0.2", "127.0.0.1"), false},
		{"prefix ignored", ignore, udp("192.168.100.255", "10.0.0.2"), false},
		{"beside the prefix", ignore, udp("192.168.101.0", "192.168.99.255"), true},
		{"v6 prefix ignored", ignore, udp("2001:db8:1:ffff::1", "2001:db8::2"), false},
		{"v6 single ignored", ignore, udp("2001:db8::2", "::1"), false},
		{"beside the v6 prefix", ignore, udp("2001:db8:2::", "::2"), true},
		{"v4 bytes are no v6 address", `{"address":{"ignore":["7f00:1::"]}}`, udp("127.0.0.1", "10.0.0.1"), true},
		{"source accepted", accept, udp("10.1.255.1", "10.0.0.2"), true},
		{"destination accepted", accept, udp("10.0.0.2", "10.1.0.0"), true},
		{"neither accepted", accept, udp("10.2.0.0", "10.0.0.2"), false},
		{"v6 accepted", accept, udp("2001:db8::8", "2001:db8::7"), true},
		{"any v4", any4, udp("1.2.3.4", "0.0.0.0"), true},
		{"any v4 but v6", any4, udp("::1", "::2"), false},
		{"any v6", any6, udp("::1", "::2"), true},
		{"any v6 but v4", any6, udp("10.0.0.1", "10.0.0.2"), false},
		{"host bits", hostBits, udp("10.255.0.1", "11.0.0.1"), true},
		{"mapped address", mapped, udp("10.0.0.1", "11.0.0.1"), true},
		{"mapped prefix", mapped, udp("10.9.255.1", "11.0.0.1"), true},

		{"server behind NAT", accept, translated("10.0.0.1", "198.51.100.1", "10.1.0.1", "10.0.0.1"), true},
		{"public address is no end", accept, translated("10.0.0.1", "10.1.0.1", "10.3.0.1", "10.0.0.1"), false},
		{"translated source is no end", accept, translated("10.0.0.1", "10.3.0.1", "10.3.0.1", "10.1.0.1"), false},
		{"reply not known", accept, without(udp("10.0.0.1", "10.1.0.1"), flow.HasReply), true},

		{"state accepted", states, tcp(flow.Update, flow.TCPEstablished), true},
		{"state in lower case", states, tcp(flow.Update, flow.TCPClose), true},
		{"state not accepted", states, tcp(flow.Update, flow.TCPSynSent), false},
		{"new is judged too", states, tcp(flow.New, flow.TCPSynSent), false},
		{"state ignored", noStates, tcp(flow.Update, flow.TCPSynSent), false},
		{"state not ignored", noStates, tcp(flow.Update, flow.TCPTimeWait), true},
		{"destroy passes", states, tcp(flow.Destroy, flow.TCPSynSent), true},
		{"no state passes", states, without(tcp(flow.Update, 0), flow.HasState), true},
		{"udp passes states", states, udp("10.0.0.1", "10.0.0.2"), true},
		{"sctp passes states", states, func() flow.Event { e := tcp(flow.Update, 1); e.Protocol = flow.SCTP; return e }(), true},

		{"master accepted", accept, expected(flow.Expect, flow.TCP), true},
		{"so its end is", accept, expected(flow.Unexpect, flow.TCP), true},
		{"related flow by itself", accept, expected(flow.New, flow.TCP), false},
		{"master ignored", `{"address":{"ignore":["10.0.0.2"]}}`, expected(flow.Expect, flow.TCP), false},
		{"only the master counts", `{"address":{"ignore":["10.0.0.1"]}}`, expected(flow.Expect, flow.TCP), true},
		{"protocol of the master", onlyTCP, expected(flow.Expect, flow.TCP), true},
		{"protocol of the master fails", onlyTCP, expected(flow.Expect, flow.UDP), false},
		{"no state of an expectation", states, expected(flow.Expect, flow.TCP), true},
		{"without a master", accept, func() flow.Event { e := udp("10.1.0.1", "10.0.0.2"); e.Kind = flow.Expect; return e }(), true},

		{"all pass", all, tcp(flow.Update, flow.TCPEstablished), true},
		{"state fails", all, tcp(flow.Update, flow.TCPSynSent), false},
		{"address fails", all, func() flow.Event {
			e := tcp(flow.Update, flow.TCPEstablished)
			e.Original.Source[3], e.Reply.Destination[3] = 9, 9
			return e
		}(), false},
		{"protocol fails", all, udp("10.0.0.1", "10.0.0.2"), false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := build(t, c.block).Filter(&c.event); (got == plugin.Pass) != c.pass {
				t.Errorf("verdict %d on %v", got, &c.event)
			}
		})
	}
}

func TestDiagnostics(t *testing.T) {
	cases := []struct{ block, want string }{
		{`{"address":{"ignore":["10.0.0.1","10.0.0.256"]}}`, `[address ignore 1]: Bad address: "10.0.0.256" is no IP address: write one like "192.0.2.1" or "2001:db8::1".`},
		{`{"address":{"accept":["10.0.0.0/33"]}}`, `[address accept 0]: Bad address: "10.0.0.0/33" is no network prefix: write one like "192.0.2.0/24" or "2001:db8::/32".`},
		{`{"address":{"accept":["fe80::1%eth0"]}}`, `[address accept 0]: Bad address: "fe80::1%eth0" is an address with a zone, which flows don't have: leave out what follows the %.`},
		{`{"protocol":{"accept":["udp","udplit"]}}`, `[protocol accept 1]: Bad protocol: There is no protocol "udplit". Did you mean "udplite"?`},
		{`{"state":{"ignore":["ESTABLISHD"]}}`, `[state ignore 0]: Bad state: There is no TCP state "ESTABLISHD". Did you mean "ESTABLISHED"?`},
		{`{"state":{"ignore":["x"]}}`, `[state ignore 0]: Bad state: There is no TCP state "x". Known are NONE, SYN_SENT, SYN_RECV, ESTABLISHED, FIN_WAIT, CLOSE_WAIT, LAST_ACK, TIME_WAIT, CLOSE, SYN_SENT2, CLOSED, LISTEN.`},
		{`{"protocol":{"accept":["tcp"],"ignore":["udp"]}}`, `[protocol ignore]: Both accept and ignore: The protocol set has accept and ignore, but only one of them can be meant: an event that is in neither list would have no answer. Keep one; a second filter "basic" can have the other.`},
		{`{"state":{}}`, `[state]: Empty set: The state set names nothing. Write accept = [ … ] or ignore = [ … ], or leave the block out to let everything pass.`},
		{`{"state":{"accept":[]}}`, `[state]: Empty set: The state set names nothing. Write accept = [ … ] or ignore = [ … ], or leave the block out to let everything pass.`},
	}
	for _, c := range cases {
		if d := plugin.Decode([]byte(c.block), Definition.Config()); len(d) != 1 || d.Error() != c.want {
			t.Errorf("%s:\n%v, not\n%s", c.block, d, c.want)
		}
	}
	every := `{"address":{"ignore":["a","b"]},"protocol":{"accept":["c"]},"state":{}}`
	if d := plugin.Decode([]byte(every), Definition.Config()); len(d) != 4 {
		t.Errorf("not everything wrong is told at once: %v", d)
	}
	if _, err := (&Config{State: &Set{}}).Build(); err == nil {
		t.Error("a filter was built from a bad configuration")
	}
}

// What the filter tells of itself is what it does, but for states.
func TestScreenSaysWhatTheFilterDoes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	passed, total := 0, 0
	for range 300 {
		c := &Config{Protocol: randomSet(r, func() string { return fmt.Sprint(r.IntN(4)) }), Address: randomSet(r, func() string {
			p := netip.PrefixFrom(randomAddress(r), 0)
			return netip.PrefixFrom(p.Addr(), p.Addr().BitLen()-r.IntN(3)).String()
		})}
		f, d := c.compile()
		if len(d) > 0 {
			t.Fatal(d)
		}
		screen := c.Traits().Screen
		for range 100 {
			e := flow.Event{Kind: flow.Kind(1 + r.IntN(3))}
			e.Protocol, e.State, e.Present = uint8(r.IntN(4)), 3, flow.HasState
			e.Original.Source, e.Family = flow.Bytes(randomAddress(r))
			for _, address := range []*[16]byte{&e.Original.Destination, &e.Reply.Source} {
				for family := uint8(0); family != e.Family; {
					*address, family = flow.Bytes(randomAddress(r))
				}
			}
			if r.IntN(2) == 0 {
				e.Present |= flow.HasReply
			}
			want := f.Filter(&e) == plugin.Pass
			if got := screen.Passes(&e.Flow); got != want {
				t.Fatalf("screen passes %t, filter %t: %v by %+v", got, want, &e, screen)
			}
			if total++; want {
				passed++
			}
		}
	}
	if passed < total/10 || passed > total*9/10 {
		t.Fatalf("%d of %d passed: that proves little", passed, total)
	}
	if s := (&Config{State: &Set{Accept: []string{"ESTABLISHED"}}}).Traits().Screen; s == nil || s.Protocols != nil || s.Addresses != nil {
		t.Errorf("states are told: %+v", s)
	}
}

// randomSet is of some values, one of the lists, or not there.
func randomSet(r *rand.Rand, value func() string) *Set {
	var values []string
	for range 1 + r.IntN(5) {
		values = append(values, value())
	}
	switch r.IntN(5) {
	case 0:
		return nil
	case 1, 2:
		return &Set{Accept: values}
	}
	return &Set{Ignore: values}
}

// FuzzPrefixes compares the hashed sets with a walk over all prefixes.
func FuzzPrefixes(f *testing.F) {
	for seed := range uint64(50) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 1))
		var set prefixes
		var naive []netip.Prefix
		for range r.IntN(20) {
			p := netip.PrefixFrom(randomAddress(r), 0)
			p = netip.PrefixFrom(p.Addr(), r.IntN(p.Addr().BitLen()+1))
			if err := set.add(p.String()); err != nil {
				t.Fatal(err)
			}
			naive = append(naive, p.Masked())
		}
		for range 200 {
			a := randomAddress(r)
			want := false
			for _, p := range naive {
				want = want || p.Contains(a)
			}
			if b, family := flow.Bytes(a); set.contain(family, &b) != want {
				t.Fatalf("%v in %v: %v", a, naive, !want)
			}
		}
	})
}

// randomAddress returns one of few addresses that share prefixes of all lengths.
func randomAddress(r *rand.Rand) netip.Addr {
	var b [16]byte
	for range r.IntN(3) {
		bit := r.IntN(128)
		b[bit/8] |= 1 << (bit % 8)
	}
	if r.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte(b[:4]))
	}
	b[0] |= 0x20 // never IPv4-mapped
	return netip.AddrFrom16(b)
}

const benchmarked = `{"protocol":{"accept":["tcp"]},"address":{"ignore":["127.0.0.1","192.168.0.100","192.168.100.0/24"]},` +
	`"state":{"accept":["ESTABLISHED","CLOSED","TIME_WAIT","CLOSE_WAIT"]}}`

func TestNoAllocations(t *testing.T) {
	f, e := build(t, benchmarked), tcp(flow.Update, flow.TCPEstablished)
	v6 := event(flow.TCP, "2001:db8::1", "::1")
	if n := testing.AllocsPerRun(100, func() { f.Filter(&e); f.Filter(&v6) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

func BenchmarkFilter(b *testing.B) {
	for _, n := range []int{1, 10000} {
		b.Run(fmt.Sprintf("prefixes=%d", n), func(b *testing.B) {
			f, e := build(b, benchmarked), tcp(flow.Update, flow.TCPEstablished)
			for i := range n {
				if err := f.addresses.add(fmt.Sprintf("172.16.%d.%d", i/256, i%256)); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for range b.N {
				f.Filter(&e)
			}
		})
	}
}
