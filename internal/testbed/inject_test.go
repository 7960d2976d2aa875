package testbed

import (
	"errors"
	"testing"

	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

func TestInjectedFlowsAreAsDescribed(t *testing.T) {
	s := MustSingle(t, FirewallConfig{})
	all := Comparison{Fields: Replicated | FieldTCPWindow}
	for name, shape := range map[string]Synthetic{
		"tcp":           {Mark: 5},
		"udp":           {UDP: true},
		"ipv6":          {IPv6: true, Zone: 3},
		"snat":          {SNAT: OutsideVIP.V4.Addr()},
		"snat ipv6 udp": {SNAT: OutsideVIP.V6.Addr(), IPv6: true, UDP: true, Mark: 1 << 31},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.FW.Flush(); err != nil {
				t.Fatal(err)
			}
			s.FW.MustInject(t, 200, shape)
			if diff := all.Diff(shape.Table(0, 200), s.FW.MustTable(t)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestInjectorSpansHostsAndReportsErrors(t *testing.T) {
	n := MustNamespace(t, "inject")
	if err := n.Track(); err != nil {
		t.Fatal(err)
	}
	shape := Synthetic{Mark: 9, Timeout: 100}
	j, err := NewInjector(n, shape)
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	const from, to = synthPerHost - 100, synthPerHost + 100
	if err := j.Create(from, to); err != nil {
		t.Fatal(err)
	}
	if err := j.Create(to-1, to+1); !errors.Is(err, unix.EEXIST) {
		t.Errorf("creating one again: %v", err)
	}
	if err := errors.Join(j.Touch(from, to), j.Delete(from+10, to+1)); err != nil {
		t.Error(err)
	}
	if diff := Diff(shape.Table(from, from+10), n.MustTable(t)); diff != "" {
		t.Error(diff)
	}
	if err := j.Delete(to, to+1); !errors.Is(err, unix.ENOENT) {
		t.Errorf("deleting what is not there: %v", err)
	}
	marked, err := n.Dump(conntrack.NewFilter().Mark(9))
	if err != nil || len(marked) != 10 {
		t.Errorf("%d flows with the mark, %v", len(marked), err)
	}
	if err := n.Flush(); err != nil {
		t.Error(err)
	}
	if table := n.MustTable(t); len(table) != 0 {
		t.Errorf("left after flush:\n%s", table)
	}
}

func BenchmarkInject(b *testing.B) {
	n := MustNamespace(b, "inject")
	j, err := NewInjector(n, Synthetic{})
	if err != nil {
		b.Fatal(err)
	}
	defer j.Close()
	for b.Loop() {
		if err := errors.Join(j.Create(0, 10000), j.Delete(0, 10000)); err != nil {
			b.Fatal(err)
		}
	}
}
