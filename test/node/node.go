// Package node runs sluice on a firewall of the testbed, for the end-to-end
// tests and the demo: the real binary, its own processes, its own socket.
package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/internal/testbed"
)

// Timeout bounds every wait of this package.
const Timeout = 30 * time.Second

// A Node is a runner on a firewall.
type Node struct {
	*testbed.Process
	FW     *testbed.Firewall
	Socket string
	Config string // the file's path

	binary string
	dir    string
}

// Pipelines returns the usual two pipelines of a primary-backup pair for a
// firewall of a testbed.Pair, with more attributes for single stages: keys are
// "netlink", "local", "peers" (the caches), "kernel", "sink" and "source".
func Pipelines(more map[string]string) string {
	return fmt.Sprintf(`
pipeline "local" {
  source "netlink" {
    %s
  }
  filter "basic" {
    address {
      ignore = ["127.0.0.1", "::1", "10.71.3.0/24", "fd71:3::/64"]
    }
  }
  cache "memory" {
    %s
  }
  sink "multicast" {
    group     = "225.0.0.50"
    port      = 3780
    interface = "sync"
    %s
  }
}

pipeline "peers" {
  source "multicast" {
    group     = "225.0.0.50"
    port      = 3780
    interface = "sync"
    %s
  }
  cache "memory" {
    %s
  }
  sink "kernel" {
    scope = "local"
    %s
  }
}
`, more["netlink"], more["local"], more["sink"], more["source"], or(more["peers"], "hold = true"), or(more["kernel"], `commit_timeout = "180s"`))
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Start runs sluice with the given pipelines on a firewall and waits until all
// stages run; runner is more of the block of this name. Close ends it.
func Start(binary string, fw *testbed.Firewall, name, pipelines string, runner ...string) (*Node, error) {
	dir, err := os.MkdirTemp("", "sluice-node-")
	if err != nil {
		return nil, err
	}
	n := &Node{FW: fw, dir: dir, binary: binary, Socket: filepath.Join(dir, "control.sock"), Config: filepath.Join(dir, name+".hcl")}
	text := fmt.Sprintf("runner {\n  name      = %q\n  lock_file = %q\n  control {\n    path = %q\n  }\n%s}\n%s",
		name, filepath.Join(dir, "lock"), n.Socket, strings.Join(runner, ""), pipelines)
	if err := os.WriteFile(n.Config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if err := n.Run(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return n, nil
}

// StartFile runs sluice on a firewall with a configuration file of the
// caller's, which names this socket, and waits until all stages run.
func StartFile(binary string, fw *testbed.Firewall, config, socket string) (*Node, error) {
	n := &Node{FW: fw, binary: binary, Socket: socket, Config: config}
	return n, n.Run()
}

// Attach makes a Node of a process that was started otherwise, with a socket of
// its own, and waits until all stages run.
func Attach(binary string, fw *testbed.Firewall, process *testbed.Process, socket string) (*Node, error) {
	n := &Node{Process: process, FW: fw, binary: binary, Socket: socket}
	return n, n.AwaitOutput(Timeout, "all stages run")
}

// Run starts the runner, again after it ended, and waits until all stages run.
func (n *Node) Run() (err error) {
	cmd := exec.Command(n.binary, "run", "-f", n.Config)
	if n.Process, err = n.FW.Start(cmd); err != nil {
		return err
	}
	if err := n.AwaitOutput(Timeout, "all stages run"); err != nil {
		n.Process.Close()
		return err
	}
	return nil
}

// Must is Start for tests.
func Must(t testbed.TB, binary string, fw *testbed.Firewall, name, pipelines string) *Node {
	t.Helper()
	n, err := Start(binary, fw, name, pipelines)
	return owned(t, n, name, err)
}

// MustFile is StartFile for tests.
func MustFile(t testbed.TB, binary string, fw *testbed.Firewall, config, socket string) *Node {
	t.Helper()
	n, err := StartFile(binary, fw, config, socket)
	return owned(t, n, fw.Name(), err)
}

func owned(t testbed.TB, n *Node, name string, err error) *Node {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			log := n.Output()
			t.Logf("%s wrote:\n%s", name, log[max(0, len(log)-16<<10):])
		}
		n.Close()
	})
	return n
}

// Close kills the runner, if it still runs, and removes its files.
func (n *Node) Close() error {
	err := n.Process.Close()
	if n.dir != "" {
		os.RemoveAll(n.dir)
	}
	return err
}

// Client returns a client of the runner's socket.
func (n *Node) Client() *control.Client { return control.NewClient(n.Socket) }

// Sluice runs a command against the runner and returns what it printed.
func (n *Node) Sluice(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 4*Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.binary, append(args, "--socket", n.Socket)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("sluice %s: %w: %s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Status asks the runner how it is.
func (n *Node) Status() (*control.Status, error) {
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	return n.Client().Status(ctx)
}

// Stage returns the state of one stage.
func (n *Node) Stage(address string) (control.StageStatus, error) {
	status, err := n.Status()
	if err != nil {
		return control.StageStatus{}, err
	}
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			if s.Address == address {
				return s, nil
			}
		}
	}
	return control.StageStatus{}, fmt.Errorf("no stage %s", address)
}

// PIDs returns the process ids of the node's stages by address.
func (n *Node) PIDs() (map[string]int, error) {
	status, err := n.Status()
	if err != nil {
		return nil, err
	}
	pids := map[string]int{}
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			pids[s.Address] = s.PID
		}
	}
	return pids, nil
}

// Quiet is a condition for Await: no stage has anything to do, none is being
// started, and no replay runs.
func (n *Node) Quiet() error {
	status, err := n.Status()
	if err != nil {
		return err
	}
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			if s.State != "running" || s.QueueBytes > 0 {
				return fmt.Errorf("%s is %s with %d bytes waiting", s.Address, s.State, s.QueueBytes)
			}
		}
	}
	for _, r := range status.Replays {
		if r.State == "running" {
			return fmt.Errorf("%s replays (%s)", r.Stage, r.Reason)
		}
	}
	return nil
}
