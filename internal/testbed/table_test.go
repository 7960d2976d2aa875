package testbed

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDiffNamesEachDifference(t *testing.T) {
	shape := Synthetic{Mark: 1}
	want, got := shape.Table(0, 4), shape.Table(1, 5)
	changed := shape.Flow(2)
	changed.Mark, changed.TCP, changed.Timeout = 2, TimeWait, 1
	got.Add(changed)
	lines := strings.Split(Diff(want, got), "\n")
	if len(lines) != 4 || lines[0][0] != '-' || lines[1][0] != '~' || lines[2][0] != '+' {
		t.Fatalf("difference is\n%s", strings.Join(lines, "\n"))
	}
	for _, words := range []string{"sport=1026", "state TIME_WAIT, not ESTABLISHED", "mark 2, not 1"} {
		if !strings.Contains(lines[1], words) {
			t.Errorf("%q does not say %q", lines[1], words)
		}
	}
	if strings.Contains(lines[1], "timeout") {
		t.Errorf("%q compares timeouts", lines[1])
	}
	if diff := Diff(want, shape.Table(0, 4)); diff != "" {
		t.Errorf("equal tables differ:\n%s", diff)
	}
	if short := (Comparison{Lines: 1}).Diff(want, got); !strings.Contains(short, "and 2 more") {
		t.Errorf("report is not bounded:\n%s", short)
	}
	if err := (Comparison{}).Same(want, got); err == nil {
		t.Error("Same says nothing")
	}
}

func TestTableOne(t *testing.T) {
	table := Synthetic{}.Table(0, 3)
	port := func(ports ...uint16) func(Flow) bool {
		return func(f Flow) bool {
			for _, p := range ports {
				if f.Orig.SrcPort == p {
					return true
				}
			}
			return false
		}
	}
	if f, err := table.One(port(1025)); err != nil || f.Orig.SrcPort != 1025 {
		t.Errorf("%s, %v", f, err)
	}
	for _, ports := range [][]uint16{{}, {1024, 1025}} {
		if f, err := table.One(port(ports...)); err == nil {
			t.Errorf("One of %v is %s", ports, f)
		}
	}
}

func TestParseFlowsReadsConntrack(t *testing.T) {
	s := MustSingle(t, FirewallConfig{SNAT: true, Rules: "add rule inet testbed forward ct mark set 7"})
	Require(t, Ctool)
	MustServer(t, s.Server, ServerPort)
	everyTraffic(t, s.Client)
	exact := Printed
	exact.Fields |= FieldReply
	for _, options := range [][]string{{"-L"}, {"-L", "-o", "extended"}} {
		var text string
		for _, family := range []string{"ipv4", "ipv6"} {
			out, err := s.FW.Run("conntrack", append(options, "-f", family)...)
			if err != nil {
				t.Fatal(err)
			}
			text += out
		}
		table, err := ParseFlows(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := exact.Diff(s.FW.MustTable(t), table); diff != "" {
			t.Errorf("%v:\n%s", options, diff)
		}
	}
}

func TestParseFlow(t *testing.T) {
	addr := netip.MustParseAddr
	for line, want := range map[string]Flow{
		"tcp      6 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=3 dport=4 [ASSURED] mark=5 zone=6 [active since 0s]": {
			Key: Key{Proto: unix.IPPROTO_TCP, Zone: 6,
				Orig: Tuple{Src: addr("10.0.0.1"), Dst: addr("10.0.0.2"), SrcPort: 3, DstPort: 4}},
			Status: StatusSeenReply | StatusAssured, Mark: 5, TCP: Established,
		},
		"icmpv6   58 29 src=fd00::1 dst=fd00::2 type=128 code=0 id=9 [UNREPLIED] src=fd00::2 dst=fd00::1 type=129 code=0 id=9 use=1": {
			Key: Key{Proto: unix.IPPROTO_ICMPV6,
				Orig: Tuple{Src: addr("fd00::1"), Dst: addr("fd00::2"), ICMPType: 128, ICMPID: 9}},
			Reply:   Tuple{Src: addr("fd00::2"), Dst: addr("fd00::1"), ICMPType: 129, ICMPID: 9},
			Timeout: 29, TCP: NoTCPState,
		},
	} {
		if got, err := parseFlow(line); err != nil || got != want {
			t.Errorf("%s\n got %#v, %v\nwant %#v", line, got, err, want)
		}
	}
	for _, line := range []string{"", "tcp", "tcp x src=1.2.3.4", "tcp 6 src=1.2.3.4", "tcp 6 src=bad dst=1.2.3.4", "tcp 6 src=1.2.3.4 dst=1.2.3.4 sport=70000"} {
		if f, err := parseFlow(line); err == nil {
			t.Errorf("%q parsed as %s", line, f)
		}
	}
}
