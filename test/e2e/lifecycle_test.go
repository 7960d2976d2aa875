package e2e

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// A runner that is killed takes its stages along; the next one starts where it
// was, its socket file and all, and both nodes agree again.
func TestKilledRunnerStartsAgain(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{}, nil)
	result := c.Client.MustChurn(t, testbed.Churn{To: server4(), Count: 50, Ending: testbed.LeftOpen})
	testbed.Eventually(t, patience, replicated(c.FW1, c.two, "peers"))
	for i, n := range []*node.Node{c.one, c.two} {
		pids := must[map[string]int](t)(n.PIDs())
		n.Kill()
		testbed.Eventually(t, patience, func() error {
			for address, pid := range pids {
				if testbed.Alive(pid) {
					return fmt.Errorf("%s lives on as %d", address, pid)
				}
			}
			return nil
		})
		if i == 0 { // flows that end while nobody watches
			result.Open.Close(testbed.Reset)
		}
		if err := n.Run(); err != nil {
			t.Fatal(err)
		}
		testbed.Eventually(t, patience, replicated(c.FW1, c.two, "peers"))
	}
}

func TestTermDrainsAndLeavesNothing(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{}, nil)
	c.Client.MustChurn(t, testbed.Churn{To: server4(), Count: 200, Ending: testbed.Orderly})
	pids := must[map[string]int](t)(c.one.PIDs())
	if err := c.one.Stop(patience); err != nil {
		t.Fatalf("%v\n%s", err, c.one.Output())
	}
	for address, pid := range pids {
		if testbed.Alive(pid) {
			t.Errorf("%s lives on", address)
		}
	}
	if _, err := os.Stat(c.one.Socket); !os.IsNotExist(err) {
		t.Errorf("the socket's file is left: %v", err)
	}
	// What was in the pipeline has reached the peer.
	testbed.Eventually(t, patience, replicated(c.FW1, c.two, "peers"))
	_, err := c.one.Sluice("status")
	if err == nil || !strings.Contains(err.Error(), "no runner at") {
		t.Errorf("status of no runner: %v", err)
	}
}

// One runner in a namespace of its own serves two others.
func TestOneRunnerServesManyNamespaces(t *testing.T) {
	testbed.Require(t)
	testbed.MustLeaveNothing(t)
	pair := testbed.MustPair(t, testbed.FirewallConfig{SNAT: true})
	testbed.MustServer(t, pair.Server, testbed.ServerPort)
	if err := pair.MoveTo(pair.FW1); err != nil {
		t.Fatal(err)
	}
	one, two := fmt.Sprintf("netns = %q", pair.FW1.Path()), fmt.Sprintf("netns = %q", pair.FW2.Path())
	pipelines := strings.ReplaceAll(node.Pipelines(map[string]string{
		"netlink": one, "sink": one, "source": two + "\n    request_resync = false", "kernel": two,
	}), `scope = "local"`, "")
	n := node.Must(t, binary, &testbed.Firewall{Namespace: testbed.MustNamespace(t, "runner")}, "both", pipelines)
	result := pair.Client.MustChurn(t, testbed.Churn{To: server4(), Count: 20, Ending: testbed.LeftOpen})
	t.Cleanup(func() { result.Open.Close(testbed.Reset) })
	testbed.Eventually(t, patience, replicated(pair.FW1, n, "peers"))
	must[string](t)(n.Sluice("commit"))
	want := must[testbed.Table](t)(pair.FW1.Table())
	got := must[testbed.Table](t)(pair.FW2.Table())
	comparison := testbed.Comparison{Fields: testbed.FieldReply | testbed.FieldTCP | testbed.FieldMark}
	if diff := comparison.Diff(want.Where(scope), got.Where(scope)); diff != "" {
		t.Error(diff)
	}
}

// Without a cache events go straight to the peers, and replays are dumps of
// the kernel's table: what conntrackd calls DisableInternalCache.
func TestPipelineWithoutCache(t *testing.T) {
	testbed.Require(t)
	testbed.MustLeaveNothing(t)
	pair := testbed.MustPair(t, testbed.FirewallConfig{SNAT: true})
	testbed.MustServer(t, pair.Server, testbed.ServerPort)
	if err := pair.MoveTo(pair.FW1); err != nil {
		t.Fatal(err)
	}
	straight := strings.Replace(node.Pipelines(nil), "  cache \"memory\" {\n    \n  }\n", "", 1)
	if strings.Count(straight, "cache") != 1 {
		t.Fatalf("the local pipeline still has its cache:\n%s", straight)
	}
	two := node.Must(t, binary, pair.FW2, "fw2", node.Pipelines(nil))
	one := node.Must(t, binary, pair.FW1, "fw1", straight)
	result := pair.Client.MustChurn(t, testbed.Churn{To: server4(), Count: 100, Ending: testbed.LeftOpen})
	t.Cleanup(func() { result.Open.Close(testbed.Reset) })
	testbed.Eventually(t, patience, replicated(pair.FW1, two, "peers"))
	must[string](t)(two.Sluice("flush", "peers"))
	t.Log(must[string](t)(two.Sluice("request-resync")))
	testbed.Eventually(t, patience, replicated(pair.FW1, two, "peers"))
	must[string](t)(two.Sluice("flush", "peers"))
	must[string](t)(one.Sluice("bulk"))
	testbed.Eventually(t, patience, replicated(pair.FW1, two, "peers"))
}

// While a stage hangs every command answers, or says what is wrong, and the
// runner ends when it is told to.
func TestHangingStageHangsNobody(t *testing.T) {
	testbed.Require(t)
	c := newCluster(t, testbed.FirewallConfig{}, nil)
	pid := must[map[string]int](t)(c.two.PIDs())["peers.cache.memory"]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"status"}, {"dump", "peers"}, {"flush", "--all"}, {"role", "primary"}, {"bulk"}} {
		out, err := c.two.Sluice(args...) // has a deadline
		t.Logf("%v: %v\n%s", args, err, out)
	}
	if err := c.two.Stop(patience); err != nil {
		t.Errorf("stop: %v", err)
	}
}
