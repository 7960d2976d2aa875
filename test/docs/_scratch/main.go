package main

import (
	"context"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

func ck(err error) {
	if err != nil {
		fmt.Println("ERR", err)
		os.Exit(1)
	}
}
func sh(n *node.Node, name string, args ...string) {
	b := time.Now()
	out, err := n.Sluice(args...)
	fmt.Printf("### %s$ sluice %v  (%v)\n%s", name, args, time.Since(b), out)
	if err != nil {
		fmt.Println("error:", err)
	}
}

func main() {
	bin, _ := os.Getwd()
	bin += "/bin/sluice"
	pair, err := testbed.NewPair(testbed.FirewallConfig{SNAT: true})
	ck(err)
	defer pair.Close()
	srv, err := testbed.NewServer(pair.Server, testbed.ServerPort)
	ck(err)
	defer srv.Close()
	ck(pair.MoveTo(pair.FW1))
	more := map[string]string{"kernel": "commit_timeout = \"180s\"\n purge_timeout = \"2s\""}
	one, err := node.Start(bin, pair.FW1, "fw1", node.Pipelines(more))
	ck(err)
	defer one.Close()
	two, err := node.Start(bin, pair.FW2, "fw2", node.Pipelines(more))
	ck(err)
	defer two.Close()
	r, err := pair.Client.Churn(context.Background(), testbed.Churn{To: testbed.At(testbed.ServerAddr.V4), Sources: testbed.ClientSources(false), Count: 3000, Endings: func(i int) testbed.Ending {
		if i%6 == 0 {
			return testbed.LeftOpen
		}
		return testbed.Orderly
	}, Payload: 100})
	ck(err)
	defer r.Open.Close(testbed.Reset)
	ck(testbed.Await(node.Timeout, one.Quiet))
	ck(testbed.Await(node.Timeout, two.Quiet))
	time.Sleep(6 * time.Second)
	sh(one, "fw1", "status")
	sh(one, "fw1", "status", "-v")
	sh(two, "fw2", "status")
	sh(two, "fw2", "status", "-v")
	sh(two, "fw2", "dump", "peers", "state=ESTABLISHED")
	sh(one, "fw1", "bulk")
	sh(one, "fw1", "resync")
	sh(two, "fw2", "request-resync")
	sh(two, "fw2", "role", "primary")
	sh(one, "fw1", "role", "backup")
	sh(two, "fw2", "commit")
	sh(one, "fw1", "status")
	time.Sleep(4 * time.Second)
	sh(one, "fw1", "flush", "kernel")
	sh(two, "fw2", "purge")
	sh(one, "fw1", "flush", "peers")
	pids, _ := two.PIDs()
	syscall.Kill(pids["peers.cache.memory"], syscall.SIGKILL)
	time.Sleep(4 * time.Second)
	sh(two, "fw2", "status")
	syscall.Kill(one.Pid(), syscall.SIGHUP)
	sh(one, "fw1", "stop")
	time.Sleep(5 * time.Second)
	sh(two, "fw2", "status")
	fmt.Println("=== log one\n", one.Output())
	fmt.Println("=== log two\n", two.Output())
}
