package interop

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/internal/testbed"
)

// newCollector writes the configuration of a statistics collector.
func newCollector(t *testing.T, fw *testbed.Firewall, program string) *daemon {
	t.Helper()
	d := &daemon{fw, program, t.TempDir()}
	text := fmt.Sprintf(`Stats { LogFile %s }
General {
	HashLimit 65535
	LogFile %s
	LockFile %s
	UNIX { Path %s }
	NetlinkBufferSize 2097152
	NetlinkBufferSizeMaxGrowth 8388608
	Filter { Address Ignore { IPv4_address 127.0.0.1 IPv6_address ::1 } }
}
`, d.path("stats"), d.path("log"), d.path("lock"), d.path("ctl"))
	if err := os.WriteFile(d.path("conntrackd.conf"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return d
}

var firstTuple = regexp.MustCompile(`src=\S+ dst=\S+( sport=\d+ dport=\d+| type=\d+ code=\d+ id=\d+)?`)

// logged returns the flows that a collector has logged, in order.
func (d *daemon) logged(t *testing.T) (flows []string) {
	t.Helper()
	for _, line := range strings.Split(string(must[[]byte](t)(os.ReadFile(d.path("stats")))), "\n") {
		if line != "" {
			flows = append(flows, firstTuple.FindString(line))
		}
	}
	slices.Sort(flows)
	return flows
}

// Two collectors on one kernel know, count and log the same flows.
func TestDropInCollects(t *testing.T) {
	s := newSite(t)
	theirs, ours := newCollector(t, s.FW1, genuine(t)), newCollector(t, s.FW1, dropIn(t))
	theirs.start(t)
	ours.start(t)
	s.traffic(t)
	for _, command := range [][]string{{"-i"}, {"-i", "-x"}} {
		testbed.Eventually(t, patience, sameDump(t, theirs, ours, command...))
	}
	for _, command := range []string{"-s", "-s ct", "-s cache", "-s runtime", "-s network", "-s link", "-s queue", "-s expect",
		"-e", "-c", "-f external", "-B", "-n", "-t", "-R"} {
		if diff := cmp.Diff(theirs.outcome(t, command), ours.outcome(t, command), cmp.AllowUnexported(outcome{})); diff != "" {
			t.Errorf("%s: %s", command, diff)
		}
	}
	for _, line := range []string{"current active connections:", "connections created:"} {
		if want, got := theirs.count(t, "cache stats", line), ours.count(t, "cache stats", line); got != want {
			t.Errorf("%s %d, conntrackd %d", line, got, want)
		}
	}
	ends := len(s.FW1.MustTable(t))
	if err := s.FW1.Flush(); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, func() error {
		a, b := theirs.logged(t), ours.logged(t)
		if len(a) < ends {
			return fmt.Errorf("conntrackd has logged %d of %d", len(a), ends)
		}
		if diff := cmp.Diff(a, b); diff != "" {
			return fmt.Errorf("%s", diff)
		}
		return nil
	})
}
