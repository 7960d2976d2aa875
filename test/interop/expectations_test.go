package interop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/ti-mo/conntrack"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// ftpZone is the zone of FTP sessions from the client's port ftpZonePort.
const (
	ftpZone     = 9
	ftpZonePort = 2100
)

// ftpRules give FTP sessions a helper, some of them a zone, and refuse data
// connections that it did not expect.
const ftpRules = `
table inet testbed {
	chain prerouting {
		tcp sport 2100 tcp dport 21 ct zone set 9
		tcp sport 21 tcp dport 2100 ct zone set 9
	}
	chain helpers {
		type filter hook prerouting priority filter;
		tcp dport 21 ct helper set "ftp"
	}
	chain data {
		type filter hook forward priority filter + 1;
		tcp dport 30000-30999 ct state new counter reject with tcp reset
	}
}
`

// expected is an expectation as somebody knows it, but for its timeout.
type expected struct {
	proto, masterProto  uint8
	tuple, mask, master testbed.Tuple
	zone                uint16
	flags, class        uint32
	nat                 netip.AddrPort
	reply               bool // the translation's direction
	helper, function    string
}

func (x expected) String() string {
	text := func(t testbed.Tuple) string { return fmt.Sprintf("%v:%d>%v:%d", t.Src, t.SrcPort, t.Dst, t.DstPort) }
	return fmt.Sprintf("proto=%d %s mask=%s master=%d %s zone=%d flags=%d class=%d nat=%v reply=%v helper=%s function=%s",
		x.proto, text(x.tuple), text(x.mask), x.masterProto, text(x.master), x.zone, x.flags, x.class, x.nat, x.reply, x.helper, x.function)
}

// An expecting tells what expectations somebody knows.
type expecting func() ([]expected, error)

// inKernel are those of a kernel. It does not tell their zones, which are those
// of their masters.
func inKernel(fw *testbed.Firewall) expecting {
	return func() ([]expected, error) {
		conn, err := fw.Conntrack()
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		dump, err := conn.DumpExpect()
		if err != nil {
			return nil, err
		}
		table, err := fw.Table()
		if err != nil {
			return nil, err
		}
		all := make([]expected, len(dump))
		for i := range dump {
			all[i] = dumped(&dump[i])
			for _, f := range table {
				if master := all[i].master; f.Orig == master && f.Proto == all[i].masterProto && f.Helper != "" {
					all[i].zone = f.Zone
				}
			}
		}
		return all, nil
	}
}

func dumped(e *conntrack.Expect) expected {
	tuple := func(t conntrack.Tuple) testbed.Tuple {
		return testbed.Tuple{
			Src: t.IP.SourceAddress, Dst: t.IP.DestinationAddress,
			SrcPort: t.Proto.SourcePort, DstPort: t.Proto.DestinationPort,
		}
	}
	x := expected{
		proto: e.Tuple.Proto.Protocol, masterProto: e.TupleMaster.Proto.Protocol,
		tuple: tuple(e.Tuple), mask: tuple(e.Mask), master: tuple(e.TupleMaster),
		flags: e.Flags, class: e.Class, helper: strings.TrimRight(e.HelpName, "\x00"), function: strings.TrimRight(e.Function, "\x00"),
	}
	if nat := e.NAT.Tuple; nat.IP.SourceAddress.IsValid() {
		x.nat, x.reply = netip.AddrPortFrom(nat.IP.SourceAddress, nat.Proto.SourcePort), e.NAT.Direction
	}
	return x
}

// known are those that a pipeline's cache of sluice holds.
func expectedBy(n *node.Node, pipeline string) expecting {
	return func() (all []expected, err error) {
		out, err := n.Sluice("dump", pipeline, "--expectations", "-o", "json")
		if err != nil {
			return nil, err
		}
		for decoder := json.NewDecoder(strings.NewReader(out)); ; {
			var v flow.View
			if err := decoder.Decode(&v); errors.Is(err, io.EOF) {
				return all, nil
			} else if err != nil {
				return nil, err
			}
			x, err := viewed(&v)
			if err != nil {
				return nil, err
			}
			all = append(all, x)
		}
	}
}

func viewed(v *flow.View) (x expected, err error) {
	if v.Mask == nil || v.Master == nil || v.Expectation == nil {
		return x, fmt.Errorf("not a whole expectation: %+v", v)
	}
	tuple := func(t flow.TupleView) testbed.Tuple {
		return testbed.Tuple{Src: t.Source, Dst: t.Destination, SrcPort: *t.SourcePort, DstPort: *t.DestinationPort}
	}
	x = expected{
		proto: v.ProtocolNumber, tuple: tuple(v.Original), mask: tuple(*v.Mask), master: tuple(v.Master.TupleView),
		zone: v.Zone, helper: v.Helper, function: v.Function, reply: v.Expectation.Direction == "reply",
	}
	x.masterProto, err = flow.ParseProtocol(v.Master.Protocol)
	if class := v.Expectation.Class; class != nil {
		x.class = *class
	}
	if nat := v.Expectation.NAT; nat != nil {
		x.nat = netip.AddrPortFrom(nat.Address, nat.Port)
	}
	for i, name := range []string{"PERMANENT", "INACTIVE", "USERSPACE"} {
		if slices.Contains(v.Expectation.Flags, name) {
			x.flags |= 1 << i
		}
	}
	return x, err
}

// printedBy are those that conntrackd prints: without zone, translation and
// function.
func printedBy(d *testbed.Daemon, option string) expecting {
	return func() (all []expected, err error) {
		out, err := d.Ctl(option, "expect")
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if line = strings.TrimSpace(line); line == "" {
				continue
			}
			x, err := parseExpected(line)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			all = append(all, x)
		}
		return all, nil
	}
}

// parseExpected reads "proto=6 src=… dst=… sport=… dport=… mask-src=… mask-dst=…
// sport=… dport=… master-src=… master-dst=… sport=… dport=… [FLAG,…] class=…
// helper=…".
func parseExpected(line string) (x expected, err error) {
	tuple := &x.tuple
	for _, word := range strings.Fields(line) {
		name, value, _ := strings.Cut(word, "=")
		for prefix, t := range map[string]*testbed.Tuple{"mask-": &x.mask, "master-": &x.master} {
			if rest, found := strings.CutPrefix(name, prefix); found {
				name, tuple = rest, t
			}
		}
		switch name {
		case "src":
			tuple.Src, err = netip.ParseAddr(value)
		case "dst":
			tuple.Dst, err = netip.ParseAddr(value)
		case "proto":
			_, err = fmt.Sscan(value, &x.proto)
		case "sport":
			_, err = fmt.Sscan(value, &tuple.SrcPort)
		case "dport":
			_, err = fmt.Sscan(value, &tuple.DstPort)
		case "class":
			_, err = fmt.Sscan(value, &x.class)
		case "helper":
			x.helper = value
		default:
			for i, flag := range []string{"PERMANENT", "INACTIVE", "USERSPACE"} {
				if slices.Contains(strings.Split(word, ","), flag) {
					x.flags |= 1 << i
				}
			}
		}
		if err != nil {
			return x, err
		}
	}
	return x, nil
}

// A loss is something of expectations that conntrackd does not tell its peers,
// print or commit: see fault.
type loss struct {
	name  string
	spoil func(x *expected) bool
}

type losses []loss

var (
	notPrinted = losses{
		{"in zones none are taken from the kernel, nor told conntrackd", func(x *expected) bool { return x.zone == 0 }},
		{"protocols of masters are not printed", func(x *expected) bool { x.masterProto = 0; return true }},
		{"translations are not printed", func(x *expected) bool { x.nat, x.reply = netip.AddrPort{}, false; return true }},
		{"functions are not printed", func(x *expected) bool { x.function = ""; return true }},
	}
	notTold = losses{
		notPrinted[0],
		{"translated addresses of IPv6 are not sent", func(x *expected) bool {
			if x.nat.Addr().Is6() {
				x.nat = netip.AddrPortFrom(netip.IPv6Unspecified(), x.nat.Port())
			}
			return true
		}},
	}
	notCommitted = losses{
		notPrinted[0],
		{"classes are not committed", func(x *expected) bool { x.class = 0; return true }},
		{"translations are not committed", func(x *expected) bool { x.nat, x.reply = netip.AddrPort{}, false; return true }},
		{"functions are not committed", func(x *expected) bool { x.function = ""; return true }},
	}
)

// compare is faults.compare of expectations.
func (all losses) compare(t *testing.T, want, got expecting) {
	t.Helper()
	var w, g []expected
	testbed.Eventually(t, patience, func() (err error) {
		if w, err = want(); err != nil {
			return err
		}
		if g, err = got(); err != nil {
			return err
		}
		return sameLines(lines(all.spoil(w)), lines(g))
	})
	for i, l := range all {
		if sameLines(lines(slices.Delete(slices.Clone(all), i, i+1).spoil(w)), lines(g)) == nil {
			t.Errorf("not seen: %s", l.name)
		}
	}
}

func (all losses) spoil(whole []expected) (spoilt []expected) {
	for _, x := range whole {
		if !slices.ContainsFunc(all, func(l loss) bool { return !l.spoil(&x) }) {
			spoilt = append(spoilt, x)
		}
	}
	return spoilt
}

func lines(all []expected) (text []string) {
	for _, x := range all {
		text = append(text, x.String())
	}
	slices.Sort(text)
	return text
}

// sameLines is an error unless both have the same lines, which are sorted.
func sameLines(want, got []string) error {
	var diff []string
	for _, line := range want {
		if _, found := slices.BinarySearch(got, line); !found {
			diff = append(diff, "- "+line)
		}
	}
	for _, line := range got {
		if _, found := slices.BinarySearch(want, line); !found {
			diff = append(diff, "+ "+line)
		}
	}
	if len(diff) > 0 || len(want) != len(got) {
		return fmt.Errorf("%d lines, not %d:\n%s", len(got), len(want), strings.Join(diff, "\n"))
	}
	return nil
}

// An announcement is a data connection that was announced and not made.
type announcement struct {
	name    string
	session *testbed.FTP
}

// open makes the connection and uses it.
func (a *announcement) open(t *testing.T) {
	t.Helper()
	data, err := a.session.Open()
	if err == nil {
		defer data.Close()
		err = data.Exchange(10_000)
	}
	if err != nil {
		t.Errorf("%s: %v", a.name, err)
	}
}

// sessions makes FTP sessions, each with a data connection, and announces
// another: in both families and both ways, and one in a zone.
func (s *site) sessions(t *testing.T) (open []announcement) {
	t.Helper()
	testbed.MustFTPServer(t, s.Server)
	for _, f := range families {
		for _, active := range []bool{false, true} {
			session := s.Client.MustFTP(t, f.server)
			announce := session.Passive
			if active {
				announce = session.Active
			}
			if err := announce(); err != nil {
				t.Fatal(err)
			}
			if err := session.MustOpen(t).Exchange(10_000); err != nil {
				t.Fatal(err)
			}
			if err := announce(); err != nil {
				t.Fatal(err)
			}
			open = append(open, announcement{fmt.Sprintf("%s, active: %v", f.name, active), session})
		}
	}
	zoned := must[*testbed.FTP](t)(s.Client.DialFTP(
		netip.AddrPortFrom(families[0].client, ftpZonePort), netip.AddrPortFrom(families[0].server, testbed.FTPPort)))
	t.Cleanup(func() { zoned.Close() })
	if err := zoned.Active(); err != nil {
		t.Fatal(err)
	}
	return open // but the one in the zone, whose data connection no rule puts there
}

// injectedExpectations are some that no FTP session makes: of several classes,
// with flags, with a translated address of IPv6; and their masters.
func injectedExpectations() (masters, all []flow.Flow) {
	in := &injector{first: 200}
	for _, family := range []uint8{flow.IPv4, flow.IPv6} {
		for class := range uint32(3) {
			master := in.addOf(family, flow.UDP, 5060, 5060, func(f *flow.Flow) {
				f.Reply.Destination = in.host(family, 3)
				f.Tail = f.Tail.Append(flow.AttrHelper, []byte("sip"))
			})
			x := flow.Flow{ // what the callee's media would come from
				Family: family, Protocol: flow.UDP, Timeout: 100, Present: flow.HasReply | flow.HasTimeout,
				Original: flow.Tuple{
					Source: master.Original.Destination, Destination: master.Reply.Destination, DestinationPort: uint16(7000 + class),
				},
				Reply: flow.Tuple{DestinationPort: 0xffff},
			}
			width := 4
			if family == flow.IPv6 {
				width = 16
			}
			for i := range width {
				x.Reply.Source[i], x.Reply.Destination[i] = 0xff, 0xff
			}
			x.Tail = x.Tail.AppendMaster(&flow.Master{Family: family, Protocol: flow.UDP, Tuple: master.Original})
			x.Tail = x.Tail.AppendExpectation(&flow.Expectation{
				Flags: flow.ExpectFlags(class & 1), Class: class, HasClass: true,
				HasNAT: true, NATDirection: uint8(class & 1), NATProtocol: flow.UDP,
				NAT: flow.Tuple{Source: master.Original.Source, SourcePort: 0xa1b2},
			}).Append(flow.AttrHelper, []byte("sip")).Append(flow.AttrFunction, []byte("nat-follow-master"))
			all = append(all, x)
		}
	}
	return in.flows, all
}
