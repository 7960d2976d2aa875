package flow

import (
	"encoding/json"
	"errors"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

func TestMergePolicy(t *testing.T) {
	known := func() Flow {
		f := tcpFlow()
		f.Tail = f.Tail.AppendMaster(&Master{Family: IPv4, Protocol: TCP})
		return f
	}
	partial := Flow{Family: IPv4, Protocol: TCP, Zone: 5, Original: tcpFlow().Original}
	with := func(change func(u *Flow)) Flow { u := partial; change(&u); return u }
	cases := []struct {
		name   string
		update Flow
		want   func(f *Flow)
	}{
		{"1: absent stays", partial, func(f *Flow) {}},
		{"1: zero replaces", with(func(u *Flow) { u.Present = HasMark }), func(f *Flow) { f.Mark = 0 }},
		{"1: status", with(func(u *Flow) { u.Present, u.Status = HasStatus, Confirmed }), func(f *Flow) { f.Status = Confirmed }},
		{"1: timeout", with(func(u *Flow) { u.Present, u.Timeout = HasTimeout, 9 }), func(f *Flow) { f.Timeout = 9 }},
		{"1: id", with(func(u *Flow) { u.Present, u.ID = HasID, 9 }), func(f *Flow) { f.ID = 9 }},
		{"1: state", with(func(u *Flow) { u.Present, u.State = HasState, TCPClose }), func(f *Flow) { f.State = TCPClose }},
		{
			"1: window scale", with(func(u *Flow) { u.Present, u.WindowScale = HasWindowScale, [2]uint8{1, 2} }),
			func(f *Flow) { f.WindowScale = [2]uint8{1, 2} },
		},
		{
			"1: flags", with(func(u *Flow) { u.Present, u.TCPFlags = HasTCPFlags, [2]uint8{1, 2} }),
			func(f *Flow) { f.TCPFlags = [2]uint8{1, 2} },
		},
		{
			"2: reply with its zone", with(func(u *Flow) { u.Present, u.ZoneReply = HasReply, 3 }),
			func(f *Flow) { f.Reply, f.ZoneReply = Tuple{}, 3 },
		},
		{
			"3: attributes by type", with(func(u *Flow) { u.Tail = u.Tail.Append(AttrHelper, []byte("tftp")).Append(777, []byte{1}) }),
			func(f *Flow) {
				old := f.Tail
				f.Tail = Attributes(nil).Append(AttrHelper, []byte("tftp")).Append(777, []byte{1})
				f.Tail = append(f.Tail, old.Without(AttrHelper, nil)...)
			},
		},
		{
			"4: tail too long", with(func(u *Flow) { u.Tail = u.Tail.Append(778, make([]byte, MaxTail-40)) }),
			func(f *Flow) { f.Tail = Attributes(nil).Append(778, make([]byte, MaxTail-40)) },
		},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, want := known(), known()
			got.Merge(&c.update, nil)
			c.want(&want)
			if a, b := (Event{Kind: New, Flow: got}), (Event{Kind: New, Flow: want}); !sameEvent(&a, &b) {
				t.Errorf("\n%v\n%v", &a, &b)
			}
		})
	}
	f := Flow{}
	f.Merge(&Flow{Present: HasMark, Mark: 3}, nil)
	if !f.Has(HasMark) || f.Mark != 3 {
		t.Error("1: what was absent is not present after the update")
	}
}

func TestAttributes(t *testing.T) {
	var a Attributes
	a = a.Append(700, []byte{1, 2, 3, 4, 5}).Append(AttrHelper, nil).Append(701, []byte{6})
	if v, ok := a.Get(701); !ok || string(v) != "\x06" {
		t.Errorf("701: % x, %v", v, ok)
	}
	if v, ok := a.Get(AttrHelper); !ok || len(v) != 0 {
		t.Error("an empty attribute is lost")
	}
	if a.Has(702) {
		t.Error("702")
	}
	if rest := a.Without(700, nil); rest.Has(700) || !rest.Has(701) || rest.check(0) != nil {
		t.Errorf("% x", rest)
	}
	m := Master{IPv6, UDP, 7, tuple("::1", "::2", 3, 4)}
	if got, ok := a.AppendMaster(&m).Master(); !ok || got != m {
		t.Error(got)
	}
	if _, ok := a.Append(AttrMaster, []byte{1}).Master(); ok {
		t.Error("a master of one byte")
	}
}

func TestKey(t *testing.T) {
	base := tcpFlow()
	same := []func(f *Flow){
		func(f *Flow) { f.Reply, f.ZoneReply = Tuple{}, 9 },
		func(f *Flow) { f.State, f.Mark, f.ID, f.Timeout, f.Status, f.Present = 0, 0, 0, 0, 0, 0 },
		func(f *Flow) { f.Tail = nil },
	}
	for i, change := range same {
		if f := base; func() bool { change(&f); return f.Key() != base.Key() }() {
			t.Errorf("same %d: another key", i)
		}
	}
	other := []func(f *Flow){
		func(f *Flow) { f.Original.Source[15]++ },
		func(f *Flow) { f.Original.Destination[0]++ },
		func(f *Flow) { f.Original.SourcePort++ },
		func(f *Flow) { f.Original.DestinationPort++ },
		func(f *Flow) { f.Zone++ },
		func(f *Flow) { f.ZoneOriginal++ },
		func(f *Flow) { f.Family = IPv6 },
		func(f *Flow) { f.Protocol = UDP },
	}
	for i, change := range other {
		if f := base; func() bool { change(&f); return f.Key() == base.Key() }() {
			t.Errorf("other %d: the same key", i)
		}
	}
}

func TestInverted(t *testing.T) {
	cases := []struct {
		name     string
		protocol uint8
		in, want Tuple
	}{
		{"tcp", TCP, tuple("10.0.0.1", "10.0.0.2", 1, 2), tuple("10.0.0.2", "10.0.0.1", 2, 1)},
		{"gre", GRE, tuple("10.0.0.1", "10.0.0.2", 1, 2), tuple("10.0.0.2", "10.0.0.1", 2, 1)},
		{"echo", ICMP, tuple("10.0.0.1", "10.0.0.2", 99, 8<<8), tuple("10.0.0.2", "10.0.0.1", 99, 0)},
		{"echo reply", ICMP, tuple("10.0.0.1", "10.0.0.2", 99, 0), tuple("10.0.0.2", "10.0.0.1", 99, 8<<8)},
		{"timestamp", ICMP, tuple("10.0.0.1", "10.0.0.2", 9, 13<<8|1), tuple("10.0.0.2", "10.0.0.1", 9, 14<<8|1)},
		{"mask", ICMP, tuple("10.0.0.1", "10.0.0.2", 9, 17<<8), tuple("10.0.0.2", "10.0.0.1", 9, 18<<8)},
		{"unreachable", ICMP, tuple("10.0.0.1", "10.0.0.2", 9, 3<<8|3), tuple("10.0.0.2", "10.0.0.1", 9, 3<<8|3)},
		{"echo6", ICMPv6, tuple("::1", "::2", 9, 128<<8), tuple("::2", "::1", 9, 129<<8)},
		{"node information", ICMPv6, tuple("::1", "::2", 9, 139<<8), tuple("::2", "::1", 9, 140<<8)},
	}
	for _, c := range cases {
		if got := c.in.Inverted(c.protocol); got != c.want {
			t.Errorf("%s: %v, not %v", c.name, got, c.want)
		}
		if got := c.in.Inverted(c.protocol).Inverted(c.protocol); got != c.in {
			t.Errorf("%s: inverted twice: %v", c.name, got)
		}
	}
}

func TestNAT(t *testing.T) {
	udp := plain(UDP, tuple("10.0.0.1", "192.0.2.1", 1000, 53))
	icmp := plain(ICMP, tuple("10.0.0.1", "192.0.2.1", 99, 8<<8))
	v6 := plain(UDP, tuple("2001:db8::1", "2001:db8::2", 1000, 53))
	cases := []struct {
		name                string
		flow                Flow
		change              func(r *Tuple)
		source, destination string
	}{
		{"none", udp, func(r *Tuple) {}, "", ""},
		{"masquerade", udp, func(r *Tuple) { r.Destination = address("198.51.100.7") }, "198.51.100.7:1000", ""},
		{"port alone", udp, func(r *Tuple) { r.DestinationPort = 7 }, "10.0.0.1:7", ""},
		{"redirect", udp, func(r *Tuple) { r.Source, r.SourcePort = address("10.9.9.9"), 5353 }, "", "10.9.9.9:5353"},
		{
			"both", udp, func(r *Tuple) { r.Source, r.Destination = address("10.9.9.9"), address("198.51.100.7") },
			"198.51.100.7:1000", "10.9.9.9:53",
		},
		{"icmp none", icmp, func(r *Tuple) {}, "", ""},
		{"icmp id", icmp, func(r *Tuple) { r.Destination, r.SourcePort = address("198.51.100.7"), 7 }, "198.51.100.7:7", ""},
		{"icmp destination", icmp, func(r *Tuple) { r.Source = address("10.9.9.9") }, "", "10.9.9.9:0"},
		{"v6", v6, func(r *Tuple) { r.Destination = address("2001:db8::99") }, "[2001:db8::99]:1000", ""},
	}
	for _, c := range cases {
		f := c.flow
		c.change(&f.Reply)
		text := func(tr Translation, ok bool) string {
			if !ok {
				return ""
			}
			return netip.AddrPortFrom(Address(f.Family, tr.Address), tr.Port).String()
		}
		if s, d := text(f.SourceNAT()), text(f.DestinationNAT()); s != c.source || d != c.destination {
			t.Errorf("%s: %q and %q, not %q and %q", c.name, s, d, c.source, c.destination)
		}
		f.Present &^= HasReply
		if s, d := text(f.SourceNAT()), text(f.DestinationNAT()); s != "" || d != "" {
			t.Errorf("%s: translated without a reply tuple", c.name)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, s := range []string{"10.0.0.1", "0.0.0.0", "2001:db8::1", "::"} {
		a := netip.MustParseAddr(s)
		if b, family := Bytes(a); Address(family, b) != a {
			t.Errorf("%s comes back as %s", a, Address(family, b))
		}
	}
	if b, family := Bytes(netip.MustParseAddr("::ffff:10.0.0.1")); family != IPv4 || b != address("10.0.0.1") {
		t.Error("a mapped address is not IPv4")
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]uint8{"tcp": TCP, "UDP": UDP, "icmpv6": ICMPv6, "ipv6-icmp": ICMPv6, "esp": 50, "47": GRE, "255": 255} {
		if got, err := ParseProtocol(name); err != nil || got != want {
			t.Errorf("protocol %s: %d, %v", name, got, err)
		}
	}
	for name, want := range map[string]uint8{"established": TCPEstablished, "CLOSED": TCPClose, "CLOSE": TCPClose, "LISTEN": TCPSynSent2} {
		if got, err := ParseTCPState(name); err != nil || got != want {
			t.Errorf("state %s: %d, %v", name, got, err)
		}
	}
	if got, err := ParseSCTPState("SHUTDOWN_RECD"); err != nil || got != SCTPShutdownRecd {
		t.Errorf("%d, %v", got, err)
	}
	for i := range 16 {
		bit := Status(1) << i
		if got, err := ParseStatus(strings.ToLower(bit.String())); err != nil || got != bit {
			t.Errorf("status %v: %v, %v", bit, got, err)
		}
	}
	if s := (Assured | 1<<20).String(); s != "ASSURED|0x100000" {
		t.Error(s)
	}
}

func TestNameErrors(t *testing.T) {
	state := func(s string) error { _, err := ParseTCPState(s); return err }
	protocol := func(s string) error { _, err := ParseProtocol(s); return err }
	cases := []struct {
		err  error
		want string
	}{
		{state("ESTABLISHD"), `unknown TCP state "ESTABLISHD": did you mean "ESTABLISHED"?`},
		{state("closewait"), `unknown TCP state "closewait": did you mean "CLOSE_WAIT"?`},
		{state("frobnicate"), `unknown TCP state "frobnicate": known are NONE, SYN_SENT, `},
		{protocol("tpc"), `unknown protocol "tpc": known are icmp, `},
		{protocol("udplit"), `unknown protocol "udplit": did you mean "udplite"?`},
		{protocol("256"), `unknown protocol "256"`},
		{protocol(""), `unknown protocol ""`},
	}
	for _, c := range cases {
		var known *NameError
		if !errors.As(c.err, &known) || len(known.Known) == 0 || !strings.HasPrefix(c.err.Error(), c.want) {
			t.Errorf("%v, not %s", c.err, c.want)
		}
	}
}

func TestEventText(t *testing.T) {
	f := plain(UDP, tuple("10.0.0.1", "10.0.0.2", 1, 2))
	for _, c := range []struct {
		event      Event
		text, json string
	}{
		{Event{Kind: New, Flow: f}, "    [NEW] udp      17 30 src=", `{"kind":"new","family":"ipv4"`},
		{Event{Kind: Destroy, Flow: f}, "[DESTROY] udp      17 30 src=", `{"kind":"destroy"`},
		{Event{Kind: SyncEnd, Sync: Sync{SyncClaim, 17}}, "sync-end flags=2 count=17", `{"kind":"sync-end","flags":2,"count":17}`},
	} {
		if got := c.event.String(); !strings.HasPrefix(got, c.text) {
			t.Errorf("%q, not %q", got, c.text)
		}
		if got, err := json.Marshal(c.event); err != nil || !strings.HasPrefix(string(got), c.json) {
			t.Errorf("%s, %v, not %s", got, err, c.json)
		}
	}
}

// TestHostileHelper checks that a peer's bytes can't play with a terminal.
func TestHostileHelper(t *testing.T) {
	f := plain(UDP, tuple("10.0.0.1", "10.0.0.2", 1, 2))
	f.Tail = f.Tail.Append(AttrHelper, []byte("a\x1b[2J"))
	if s := f.String(); strings.Contains(s, "\x1b") || !strings.Contains(s, "helper=0x611b5b324a") {
		t.Error(s)
	}
}

// TestTextAsConntrackPrints compares our text with conntrack(8)'s for the same
// flows, which it creates in a network namespace of its own.
func TestTextAsConntrackPrints(t *testing.T) {
	for _, tool := range []string{"conntrack", "unshare"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	if exec.Command("unshare", "-n", "conntrack", "-C").Run() != nil {
		t.Skip("no network namespace with connection tracking can be made here")
	}
	script := `set -e
		conntrack -I -t 1000 -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 1 --dport 2 --state CLOSE -u SEEN_REPLY,ASSURED -m 7 --zone 5
		conntrack -I -t 1000 -p tcp -s 10.0.0.1 -d 10.0.0.2 --sport 10 --dport 2 --orig-zone 4 --state SYN_SENT
		conntrack -I -t 1000 -p icmp -s 10.0.0.1 -d 10.0.0.2 --icmp-type 8 --icmp-code 0 --icmp-id 99
		conntrack -I -t 1000 -p gre -s 10.0.0.1 -d 10.0.0.2 --srckey 31 --dstkey 42
		conntrack -I -t 1000 -p esp -s 10.0.0.1 -d 10.0.0.2
		conntrack -I -t 1000 -p udp -s 2001:db8::1 -d 2001:db8::2 --sport 1 --dport 2
		conntrack -L; conntrack -L -f ipv6`
	out, err := exec.Command("unshare", "-n", "sh", "-c", script).Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	zone := plain(TCP, tuple("10.0.0.1", "10.0.0.2", 10, 2))
	zone.ZoneOriginal, zone.State, zone.Present = 4, TCPSynSent, zone.Present|HasState
	closed := plain(TCP, tuple("10.0.0.1", "10.0.0.2", 1, 2))
	closed.State, closed.Present, closed.Status = TCPClose, closed.Present|HasState, SeenReply|Assured
	closed.Mark, closed.Zone = 7, 5
	all := flows()
	timeout := regexp.MustCompile(`(?m)^(\w+ +\d+) \d+ `) // goes down while we look
	printed := timeout.ReplaceAllString(string(out), "$1 T ")
	for _, f := range []Flow{
		closed, zone, all["icmp"], all["gre"], all["esp"], plain(UDP, tuple("2001:db8::1", "2001:db8::2", 1, 2)),
	} {
		f.Present |= HasMark
		if want := timeout.ReplaceAllString(f.String(), "$1 T ") + " use=1\n"; !strings.Contains(printed, want) {
			t.Errorf("not printed by conntrack: %s\n%s", want, printed)
		}
	}
}

// TestExpectation holds that an expectation survives the binary form whole, and
// that its identity is the tuple, the mask and the master.
func TestExpectation(t *testing.T) {
	want := expectation()
	var b Builder
	b.Reset(Header{Origin: Kernel})
	b.Append(&want)
	batch, err := DecodeBatch(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	var got Event
	if c := batch.Cursor(); !c.Next(&got) || !got.IsExpectation() || !sameEvent(&got, &want) {
		t.Fatalf("%v came back as %v", want, got)
	}
	x, ok := got.Tail.Expectation()
	if !ok || !x.HasClass || x.Class != 1 || !x.HasNAT || x.NATDirection != Reply || x.NAT != tuple("192.168.1.7", "0.0.0.0", 38000, 0) {
		t.Errorf("attribute came back as %+v", x)
	}
	changes := map[string]func(*Flow){
		"tuple": func(f *Flow) { f.Original.DestinationPort++ },
		"mask":  func(f *Flow) { f.Reply.SourcePort = 0xffff },
		"zone":  func(f *Flow) { f.Zone++ },
		"master": func(f *Flow) {
			f.Tail = Attributes{}.AppendMaster(&Master{IPv4, TCP, 5, tuple("10.0.0.1", "10.0.0.2", 40001, 21)})
		},
	}
	for name, change := range changes {
		other := expectation()
		change(&other.Flow)
		if other.ExpectationKey() == want.ExpectationKey() {
			t.Errorf("another %s is the same key", name)
		}
	}
	later := expectation()
	later.Timeout, later.ID = 5, 9
	if later.ExpectationKey() != want.ExpectationKey() {
		t.Error("timeout or id are part of the key")
	}
}
