package sinklog

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// TestEndToEnd: a firewall that keeps accounts logs the end of every flow, to
// a file as JSON and to another as text, with what passed and how long; and below
// a cache, whatever comes and goes within a batch.
func TestEndToEnd(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs sluice")
	}
	testbed.Require(t)
	testbed.MustLeaveNothing(t)
	if status := node.WithBinary(func(binary string) int { endToEnd(t, binary); return 0 }); status != 0 {
		t.Fatal("sluice was not built")
	}
}

func endToEnd(t *testing.T, binary string) {
	s := testbed.MustSingle(t, testbed.FirewallConfig{Sysctls: map[string]string{
		"net.netfilter.nf_conntrack_acct": "1", "net.netfilter.nf_conntrack_timestamp": "1",
	}})
	testbed.MustServer(t, s.Server, testbed.ServerPort)
	dir := t.TempDir()
	objects, text, cached := filepath.Join(dir, "json"), filepath.Join(dir, "text"), filepath.Join(dir, "cached")
	n := node.Must(t, binary, s.FW, "fw", fmt.Sprintf(`
pipeline "log" {
  source "netlink" {}
  sink "log" {
    path   = %q
    format = "json"
    events = ["new", "destroy"]
  }
  sink "log" {
    name = "text"
    path = %q
  }
}
pipeline "cached" {
  source "netlink" {
    coalesce = "1s"
  }
  cache "memory" {}
  sink "log" {
    path   = %q
    format = "json"
    events = ["new", "destroy"]
  }
}`, objects, text, cached))
	// A flow that the first dump finds, and whose NEW comes then, begins twice.
	testbed.Eventually(t, wait, func() error {
		status, err := n.Status()
		if err != nil {
			return err
		}
		for _, r := range status.Replays {
			if r.Stage == "cached.source.netlink" && r.State == "done" {
				return nil
			}
		}
		return errors.New("the first dump has not ended")
	})
	const each = 100
	to := testbed.At(testbed.ServerAddr.V4)
	if err := s.Client.MustChurn(t, testbed.Churn{To: to, Count: each, Payload: 1000}).Check(); err != nil {
		t.Fatal(err)
	}
	if err := s.Client.MustUDP(t, testbed.UDP{To: to, Count: each}).Check(); err != nil {
		t.Fatal(err)
	}
	if err := s.FW.Flush(); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, wait, func() error {
		for _, stage := range []string{"log.sink.log", "log.sink.text", "cached.sink.log"} {
			status, err := n.Stage(stage)
			if err != nil {
				return err
			}
			if status.QueueBytes > 0 || status.EventsIn < 4*each {
				return fmt.Errorf("%s has got %d events", stage, status.EventsIn)
			}
		}
		return n.Quiet()
	})
	rotate(t, n, objects)
	if _, err := n.Sluice("stop"); err != nil {
		t.Fatal(err)
	}
	all := checkObjects(t, slices.Concat(read(t, objects+".2"), read(t, objects+".1"), read(t, objects)), each)
	if below := checkObjects(t, read(t, cached), each); !maps.Equal(all, below) {
		t.Errorf("below the cache %v, without it %v", below, all)
	}
	ends := 0
	for _, line := range read(t, text) {
		if strings.Contains(line, " [DESTROY] ") && strings.Count(line, " bytes=") == 2 && strings.Contains(line, " duration=") {
			ends++
		}
	}
	if ends != all["tcp destroy"]+all["udp destroy"] {
		t.Errorf("%d ends in the text, %v in the objects", ends, all)
	}
}

// rotate moves a log away twice: the runner's command, and then its signal, has
// the sink open it anew.
func rotate(t *testing.T, n *node.Node, path string) {
	t.Helper()
	reopened := map[string]func() error{
		path + ".2": func() error { _, err := n.Sluice("reopen"); return err },
		path + ".1": func() error { return n.Signal(unix.SIGUSR1) },
	}
	for _, old := range []string{path + ".2", path + ".1"} {
		if err := os.Rename(path, old); err != nil {
			t.Fatal(err)
		}
		if err := reopened[old](); err != nil {
			t.Fatal(err)
		}
		// Without events to log, nothing but this opens the file.
		testbed.Eventually(t, wait, func() error { _, err := os.Stat(path); return err })
	}
}

// checkObjects wants each flows of TCP to begin and to end, and as many of UDP,
// but for a few whose port was given to two sockets. It returns how many did.
func checkObjects(t *testing.T, lines []string, each int) (seen map[string]int) {
	t.Helper()
	seen = map[string]int{}
	for _, line := range lines {
		var o object
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		seen[o.Protocol+" "+o.Kind]++
		if o.Kind != flow.Destroy.String() {
			continue
		}
		if o.Counters == nil || o.Duration == nil || o.Counters[flow.Original].Packets == 0 || o.Counters[flow.Reply].Bytes == 0 {
			t.Errorf("no accounts: %s", line)
		}
		if o.Protocol == "tcp" && o.Counters != nil && o.Counters[flow.Original].Bytes < 1000 {
			t.Errorf("too few bytes: %s", line)
		}
	}
	if seen["tcp new"] != each || seen["tcp destroy"] != each || seen["udp new"] != seen["udp destroy"] || seen["udp new"] < each-5 {
		t.Errorf("%v, not %d of each", seen, each)
	}
	return seen
}
