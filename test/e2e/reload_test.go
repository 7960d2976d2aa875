package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// edits is how many edits the next test makes. What a release is tested with is
// go test ./test/e2e -run Reload -edits 200.
var edits = flag.Int("edits", 12, "how many times the configuration is edited and reloaded")

// An edited is a configuration of firewall 1 that edits change.
type edited struct {
	ignore, cache, extra, sendBuffer, timeout int
	kernelFilter, state, log, side, swapped   bool
	coalesce, level, comment, broken          string
	dir                                       string
}

// text writes it. The filters let through what those of node.Pipelines do.
func (e *edited) text(head string) string {
	local := fmt.Sprintf(`pipeline "local" {
  source "netlink" {
    coalesce      = %q
    kernel_filter = %v
  }
  filter "basic" {
    address {
      ignore = ["127.0.0.1", "::1", "10.71.3.0/24", "fd71:3::/64", "203.0.113.%d"]
    }
  }
  %s
  cache "memory" {
    limit = %d
  }
  %s
  sink "multicast" {
    group       = "225.0.0.50"
    port        = 3780
    interface   = "sync"
    send_buffer = %d
  }
  %s
}
`, e.coalesce, e.kernelFilter, e.ignore, e.filter("extra", e.extra > 0, e.extra), 500000+e.cache, e.filter("state", e.state, 0),
		1<<20+e.sendBuffer*4096, e.sink("log", e.log))
	peers := fmt.Sprintf(`pipeline "peers" {
  source "multicast" {
    group     = "225.0.0.50"
    port      = 3780
    interface = "sync"
  }
  cache "memory" {
    hold = true
  }
  sink "kernel" {
    scope          = "local"
    commit_timeout = "%ds"
  }
}
`, 180+e.timeout)
	if e.swapped {
		local, peers = peers, local
	}
	side := ""
	if e.side {
		side = "pipeline \"side\" {\n  source \"netlink\" {}\n" + e.sink("side", true) + "\n}\n"
	}
	return strings.Replace(head, "control {", e.level+"\n  control {", 1) + "# " + e.comment + "\n" + local + peers + side + e.broken
}

func (e *edited) filter(name string, there bool, n int) string {
	if !there {
		return ""
	}
	return fmt.Sprintf("filter \"basic\" {\n    name = %q\n    address {\n      ignore = [\"198.51.100.%d\"]\n    }\n  }", name, n)
}

func (e *edited) sink(name string, there bool) string {
	if !there {
		return ""
	}
	return fmt.Sprintf("sink \"log\" {\n    path = %q\n  }", filepath.Join(e.dir, name))
}

// edit changes something, and returns whether the result is valid.
func (e *edited) edit(n int, r *rand.Rand) bool {
	e.broken = ""
	for _, one := range []func(){
		func() { e.ignore = n % 250 }, func() { e.ignore = (n + 1) % 250 }, func() { e.cache = n }, func() { e.extra = 0 }, func() { e.extra = n%250 + 1 },
		func() { e.sendBuffer = n }, func() { e.timeout = n }, func() { e.kernelFilter = !e.kernelFilter }, func() { e.state = !e.state },
		func() { e.log = !e.log }, func() { e.side = !e.side }, func() { e.swapped = !e.swapped }, func() { e.coalesce = fmt.Sprint(1+n%5, "ms") },
		func() { e.comment = fmt.Sprint("edit ", n) },
		func() { e.level = "log { level = " + []string{`"info"`, `"warn"`, `"debug"`}[n%3] + " }" },
	} {
		if r.IntN(6) == 0 {
			one()
		}
	}
	if r.IntN(4) == 0 {
		e.broken = []string{
			"pipeline {", "nonsense = 1", `pipeline "x" { source "nothing" {} }`, `variable "x" {}`,
			fmt.Sprintf(`pipeline "x" {
  source "netlink" {}
  sink "log" { path = "%s/nowhere/x" }
}`, e.dir),
		}[r.IntN(5)]
	}
	return e.broken == ""
}

// A load makes events in a firewall's kernel, about as many a second as it says.
type load struct {
	events atomic.Uint64
	stop   chan struct{}
	ended  chan error
}

func startLoad(t *testing.T, fw *testbed.Firewall, rate int) *load {
	t.Helper()
	j := must[*testbed.Injector](t)(testbed.NewInjector(fw.Namespace, testbed.Synthetic{}))
	j.Rate = rate
	l := &load{stop: make(chan struct{}), ended: make(chan error, 1)}
	go func() {
		defer j.Close()
		l.ended <- l.run(j)
	}()
	return l
}

// run makes flows, changes them, and ends those made some rounds before, so that
// some are always there.
func (l *load) run(j *testbed.Injector) error {
	const round, live = 200, 20
	for n := 0; ; n++ {
		select {
		case <-l.stop:
			return nil
		default:
		}
		err := j.Create(n*round, (n+1)*round)
		if err == nil {
			err = j.Touch(n*round, (n+1)*round)
		}
		if err == nil && n >= live {
			err = j.Delete((n-live)*round, (n-live+1)*round)
		}
		if err != nil {
			return err
		}
		l.events.Add(3 * round)
	}
}

func (l *load) end(t *testing.T) {
	t.Helper()
	close(l.stop)
	if err := <-l.ended; err != nil {
		t.Errorf("load: %v", err)
	}
}

// reload puts a configuration in place and reloads. If a plan is asked for before,
// what it says must come true, stage by stage.
func reload(t *testing.T, n *node.Node, text string, valid, planned bool) {
	t.Helper()
	if err := os.WriteFile(n.Config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	before := must[map[string]int](t)(n.PIDs())
	var plan control.Plan
	if planned {
		text, err := n.Sluice("plan", "-o", "json")
		if err == nil {
			err = json.Unmarshal([]byte(text), &plan)
		}
		if err != nil && valid {
			t.Fatalf("plan: %v", err)
		}
	}
	out, err := n.Sluice("reload")
	if (err == nil) != valid {
		t.Fatalf("reload of a file of which valid is %v: %v\n%s\n%s", valid, err, out, text)
	}
	after := must[map[string]int](t)(n.PIDs())
	if !valid {
		if !maps.Equal(before, after) {
			t.Errorf("a reload that failed made %v of %v", after, before)
		}
		return
	}
	for _, s := range plan.Stages {
		was, is := before[s.Address], after[s.Address]
		kept := s.Action == control.Keep || s.Action == control.Rewire
		if kept != (was == is && is != 0) || (s.Action == control.Remove) != (is == 0) {
			t.Errorf("%s %s: process %d before, %d now", s.Action, s.Address, was, is)
		}
	}
}

func open(t *testing.T, pid int) int {
	t.Helper()
	return len(must[[]os.DirEntry](t)(os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))))
}

// The configuration is edited again and again, well and badly, under load and
// while commands run: at the end the peer's cache is the kernel's table, stages
// that no edit was about have the processes that they began with, and nothing is
// left over.
func TestReloadUnderLoad(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{}, nil)
	first := must[[]byte](t)(os.ReadFile(c.one.Config))
	head, _, _ := strings.Cut(string(first), "\npipeline")
	head += "\n"
	base := edited{coalesce: "2ms", dir: t.TempDir()}
	reload(t, c.one, base.text(head), true, true)
	testbed.Eventually(t, patience, c.one.Quiet)
	ones, twos := must[map[string]int](t)(c.one.PIDs()), must[map[string]int](t)(c.two.PIDs())
	files := open(t, c.one.Pid())

	seed := uint64(time.Now().UnixNano())
	random, config := rand.New(rand.NewPCG(seed, 1)), base
	l, started := startLoad(t, c.FW1, 10_000), time.Now()
	valid := 0
	for n := range *edits {
		good := config.edit(n+1, random)
		if good {
			valid++
		}
		command := make(chan error, 1)
		go func() { command <- beside(c.one, n) }()
		reload(t, c.one, config.text(head), good, n%5 == 0)
		if err := <-command; err != nil {
			t.Errorf("edit %d, seed %d: %v", n, seed, err)
		}
	}
	elapsed := time.Since(started)
	reload(t, c.one, base.text(head), true, true)
	l.end(t)
	t.Logf("%d edits, %d valid, %.0f events/s, %v an edit, seed %d", *edits, valid, float64(l.events.Load())/elapsed.Seconds(),
		elapsed/time.Duration(*edits), seed)

	testbed.Eventually(t, patience, replicated(c.FW1, c.two, "peers"))
	if table := must[testbed.Table](t)(c.two.Table("peers")); len(table) < 1000 {
		t.Errorf("only %d flows to compare", len(table))
	}
	if now := must[map[string]int](t)(c.two.PIDs()); !maps.Equal(now, twos) {
		t.Errorf("the peer's processes were %v and are %v", twos, now)
	}
	now := must[map[string]int](t)(c.one.PIDs())
	for _, address := range []string{"peers.source.multicast", "peers.cache.memory"} { // no edit is about them
		if now[address] != ones[address] {
			t.Errorf("%s was process %d and is %d", address, ones[address], now[address])
		}
	}
	status := must[*control.Status](t)(c.one.Status())
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			if s.Restarts > 0 {
				t.Errorf("%s was started again: %s", s.Address, s.LastError)
			}
		}
	}
	if r := status.Reload; r.Good != uint64(valid+2) || r.Bad != uint64(*edits-valid) {
		t.Errorf("status counts %d reloads that succeeded and %d that failed", r.Good, r.Bad)
	}
	testbed.Eventually(t, patience, func() error {
		children := testbed.Children(c.one.Pid())
		for _, pid := range now {
			children = slices.DeleteFunc(children, func(child int) bool { return child == pid })
		}
		if left := open(t, c.one.Pid()) - files; left > 0 || len(children) > 0 {
			return fmt.Errorf("%d descriptors and processes %v are left", left, children)
		}
		return nil
	})
}

// beside runs a command while a reload does.
func beside(n *node.Node, i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), node.Timeout)
	defer cancel()
	request := []control.Request{
		{Command: "resync"}, {Command: "role", Targets: []string{"primary"}}, {Command: "bulk", Targets: []string{"local"}}, {Command: "commit"},
	}[i%4]
	return n.Client().Do(ctx, request, nil)
}
