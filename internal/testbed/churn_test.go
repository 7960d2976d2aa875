package testbed

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

func TestChurnEndsAsAsked(t *testing.T) {
	s := MustSingle(t, FirewallConfig{SNAT: true})
	server := MustServer(t, s.Server, ServerPort)
	result := s.Client.MustChurn(t, Churn{
		To:      At(ServerAddr.V4),
		Sources: ClientSources(false),
		Count:   300,
		Payload: 100,
		Endings: func(i int) Ending { return Ending(i % 3) },
	})
	if result.Done != 300 || result.Open.Len() != 100 || server.Accepted() != 300 {
		t.Fatalf("done %d, open %d, accepted %d", result.Done, result.Open.Len(), server.Accepted())
	}
	Eventually(t, shortWait, statesAre(s.FW, "map[CLOSE:100 ESTABLISHED:100 TIME_WAIT:100]"))
	result.Open.Close(Reset)
	Eventually(t, shortWait, statesAre(s.FW, "map[CLOSE:200 TIME_WAIT:100]"))
	Eventually(t, shortWait, Holds(func() bool { return server.Open() == 0 }))
}

// statesAre is the condition that the TCP flows of a firewall are in the states.
func statesAre(fw *Firewall, want string) func() error {
	return func() error {
		table, err := fw.Table()
		if err != nil {
			return err
		}
		states := map[string]int{}
		for _, f := range table {
			states[f.TCP.String()]++
		}
		return same(fmt.Sprint(states), want)
	}
}

func TestChurnReportsFailures(t *testing.T) {
	n := MustNamespace(t, "nobody")
	to := At(dual(insideNet, 1).V4)
	if _, err := n.Churn(context.Background(), Churn{To: to, Count: 3}); err == nil {
		t.Error("no error though nothing can be reached")
	}
	result := &ChurnResult{Done: 2, Failed: 1, Err: unix.ECONNREFUSED}
	if err := result.Check(); err == nil {
		t.Error("a failed connection passes the check")
	}
}

func TestChurnKeepsToItsContextAndRate(t *testing.T) {
	s := MustSingle(t, FirewallConfig{})
	MustServer(t, s.Server, ServerPort)
	ctx, cancel := context.WithCancel(t.Context())
	churn := Churn{To: At(ServerAddr.V6), Count: 1 << 30, Rate: 1000, Endings: func(i int) Ending {
		if i == 20 {
			cancel()
		}
		return Orderly
	}}
	result, err := s.Client.Churn(ctx, churn)
	if err != nil {
		t.Fatal(err)
	}
	if result.Done < 20 || result.Done > 1<<20 {
		t.Errorf("made %d connections", result.Done)
	}
}
