package ctnl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// captureRules give flows a mark, a label and a helper.
const captureRules = `
table inet capture {
	ct helper ftp { type "ftp" protocol tcp; }
	chain marks {
		type filter hook forward priority 10;
		udp dport 1001 ct mark set 0x1234
		udp dport 1002 ct label set 3
		tcp dport 21 ct helper set "ftp"
		ct state new accept
	}
}
`

// rich returns flows of what packets alone make hard to have.
func rich() []*flow.Flow {
	sctp := newFlow(flow.SCTP, netip.MustParseAddrPort("10.0.0.1:40"), netip.MustParseAddrPort("10.0.0.2:41"))
	sctp.State, sctp.Present = 4, sctp.Present|flow.HasState
	sctp.Tail = appendUint32s(nil, flow.AttrSCTPTags, []uint32{0x11223344, 0x55667788})
	gre := newFlow(flow.GRE, netip.MustParseAddrPort("10.0.0.1:1234"), netip.MustParseAddrPort("10.0.0.2:1234"))
	esp := newFlow(50, netip.MustParseAddrPort("10.0.0.1:0"), netip.MustParseAddrPort("10.0.0.2:0"))
	zoned := udp("10.0.0.1:50", "10.0.0.2:51")
	zoned.Zone = 9
	direction := udp("10.0.0.1:52", "10.0.0.2:53")
	direction.ZoneReply = 7
	master := tcp("10.0.0.1:60", "10.0.0.2:21")
	related := snat(tcp("[fd00::1]:61", "[fd00::2]:62"), "[fd00::9]:63")
	v4 := tcp("10.0.0.1:61", "10.0.0.2:62")
	v4.Tail = v4.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: master.Original})
	v4.Tail = appendUint32s(v4.Tail, flow.AttrSeqAdj, []uint32{100, 0, 5, 200, 5, 9})
	v4.Tail = appendUint32s(v4.Tail, flow.AttrSynproxy, []uint32{1, 2, 3})
	v4.Mark, v4.Present = 77, v4.Present|flow.HasMark
	return []*flow.Flow{sctp, gre, esp, zoned, direction, master, related, v4}
}

// TestCapture writes testdata/messages.txt: events and dumps of this kernel.
func TestCapture(t *testing.T) {
	bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true, Rules: captureRules, Sysctls: map[string]string{
		"net.netfilter.nf_conntrack_acct": "1", "net.netfilter.nf_conntrack_timestamp": "1",
	}})
	events := mustEvents(t, bed.FW.Namespace, EventsConfig{Buffer: 8 << 20})
	w := mustWriter(t, bed.FW.Namespace, WriterConfig{Port: 777777})
	for _, port := range []int{21, 80, 1001, 1002} {
		testbed.MustServer(t, bed.Server, port)
	}
	for _, to := range testbed.ServerAddr.Addrs() {
		for _, port := range []uint16{21, 80} {
			bed.Client.MustChurn(t, testbed.Churn{To: netip.AddrPortFrom(to, port), Count: 1, Ending: testbed.Orderly})
		}
		for _, port := range []uint16{1001, 1002} {
			bed.Client.MustUDP(t, testbed.UDP{To: netip.AddrPortFrom(to, port), Count: 1})
		}
		if err := bed.Client.Ping(testbed.Echo{To: to, ID: 4711}); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range rich() {
		if err := w.Commit(f); err != nil {
			t.Fatal(err)
		}
	}
	if c := finish(t, w); c.Failed() > 0 || c.WithoutMaster > 0 {
		t.Fatalf("%+v", c)
	}
	var messages []message
	for _, data := range rawDump(t, bed.FW.Namespace, typeGet) {
		messages = append(messages, message{"dump", data})
	}
	if err := bed.FW.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, data := range drain(t, events) {
		messages = append(messages, message{"event", data})
	}
	for _, m := range messages {
		mustAgree(t, m)
	}
	if t.Failed() || !*update {
		return
	}
	writeCapture(t, "testdata/messages.txt", messages)
}

// TestCaptureExpectations writes testdata/expectations.txt.
func TestCaptureExpectations(t *testing.T) {
	var messages []message
	for _, snat := range []bool{false, true} {
		bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: snat, Rules: testbed.FTPRules})
		events := mustEvents(t, bed.FW.Namespace, EventsConfig{Buffer: 8 << 20, Expectations: true})
		testbed.MustFTPServer(t, bed.Server)
		for _, to := range testbed.ServerAddr.Addrs() {
			session := bed.Client.MustFTP(t, to)
			for _, announce := range []func() error{session.Passive, session.Active} {
				if err := announce(); err != nil {
					t.Fatal(err)
				}
				for _, data := range rawDump(t, bed.FW.Namespace, typeExpectGet) {
					messages = append(messages, message{"dump", data})
				}
				session.MustOpen(t).Close()
			}
		}
		for _, data := range drain(t, events) {
			if subsystem := binary.NativeEndian.Uint16(data[4:]) &^ 0xff; subsystem == expectSubsystem {
				messages = append(messages, message{"event", data})
			}
		}
	}
	for _, m := range messages {
		mustAgree(t, m)
	}
	if len(messages) != 8+16 { // each once in a dump, with its beginning and its end
		t.Fatalf("%d messages", len(messages))
	}
	if *update && !t.Failed() {
		writeCapture(t, "testdata/expectations.txt", messages)
	}
}

// writeCapture keeps one message of each kind and shape.
func writeCapture(t *testing.T, name string, messages []message) {
	seen := map[string]bool{}
	var out bytes.Buffer
	for _, m := range messages {
		var e flow.Event
		if _, err := Decode(m.data, &e, nil); err != nil {
			t.Fatal(err)
		}
		shape := fmt.Sprint(m.name, e.Kind, e.Family, e.Protocol, e.State, e.Status, len(e.Tail), e.Zone, e.Mark)
		if !seen[shape] {
			fmt.Fprintf(&out, "%s %x\n", m.name, m.data)
		}
		seen[shape] = true
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// rawDump reads a namespace's table as messages.
func rawDump(t *testing.T, n *testbed.Namespace, typ uint16) (messages [][]byte) {
	t.Helper()
	in(t, n, func() error {
		s, err := dial(0, nil)
		if err != nil {
			return err
		}
		defer s.close()
		request, at := begin(nil, typ, unix.NLM_F_DUMP, 1, 0)
		if err := s.send(end(request, at)); err != nil {
			return err
		}
		buf := make([]byte, dumpBuffer)
		for {
			got, err := s.receiveWait(buf, dumpWait)
			if err != nil {
				return err
			}
			for rest := buf[:got]; len(rest) > 0; {
				var r reply
				if r, rest, err = nextReply(rest); err != nil {
					return err
				}
				if r.typ == unix.NLMSG_DONE {
					return nil
				}
				// A repeatable capture has no sequence and port of this run.
				binary.NativeEndian.PutUint32(r.message[8:], 1)
				binary.NativeEndian.PutUint32(r.message[12:], 1)
				messages = append(messages, append([]byte(nil), r.message...))
			}
		}
	})
	return messages
}
