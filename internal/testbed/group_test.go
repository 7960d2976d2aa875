package testbed

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each gateway leads through its own firewall, and goes where it is moved.
func TestGroupForwardsByEachGateway(t *testing.T) {
	g := MustGroup(t, 3, FirewallConfig{})
	MustServer(t, g.Server, ServerPort)
	counts := func(want ...int) {
		t.Helper()
		for i, fw := range g.Firewalls {
			table := fw.MustTable(t).Where(func(f Flow) bool { return f.Proto == unix.IPPROTO_TCP })
			if len(table) != want[i] || len(table.Where(Flow.Translated)) != want[i] {
				t.Errorf("firewall %d has not %d translated flows but\n%s", i+1, want[i], table)
			}
		}
	}
	connect := func(i int) {
		t.Helper()
		for _, to := range g.Target(i).Prefixes() {
			g.Client.MustChurn(t, Churn{To: At(to), Count: i + 1, Payload: 10})
			g.Client.MustUDP(t, UDP{To: At(to), Count: 1})
		}
	}
	for i := range g.Firewalls {
		connect(i)
	}
	counts(2, 4, 6)
	if err := g.MoveTo(0, g.Firewalls[2]); err != nil {
		t.Fatal(err)
	}
	connect(0)
	counts(2, 4, 8)
}

func TestConversationNoticesWhatIsLost(t *testing.T) {
	s := MustSingle(t, FirewallConfig{SNAT: true})
	server := MustServer(t, s.Server, ServerPort)
	good := s.Client.MustConverse(t, ConversationConfig{To: At(ServerAddr.V4), Rate: 8 << 20})
	Eventually(t, shortWait, good.Progress(1<<20))
	if err := good.Finish(shortWait); err != nil {
		t.Error(err)
	}
	cut := s.Client.MustConverse(t, ConversationConfig{To: At(ServerAddr.V6), Rate: 1 << 20})
	Eventually(t, shortWait, cut.Progress(1<<10))
	server.Close()
	<-cut.done
	if err := cut.Finish(shortWait); err == nil {
		t.Error("a conversation that the server broke off finished well")
	}
	MustServer(t, s.Server, ServerPort)
	quiet := s.Client.MustConverse(t, ConversationConfig{To: At(ServerAddr.V4), Rate: 1})
	Eventually(t, shortWait, quiet.Progress(1))
	if err := s.FW.Rules("add rule inet testbed forward drop"); err != nil {
		t.Fatal(err)
	}
	if err := quiet.Finish(100 * time.Millisecond); err == nil {
		t.Error("a conversation without an answer finished well")
	}
}
