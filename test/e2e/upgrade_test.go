package e2e

import (
	"context"

	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// A site that runs conntrackd on both firewalls moves to Sluice, one firewall
// at a time, under traffic. What keepalived does is done by the test.
//
// It is done twice: with what `sluice import` makes of the configuration and with
// commands of its own, and with the drop-in, which takes the file and the
// script as they are. The next takeover comes after the purge, when the firewall
// that stepped back has forgotten its flows, or before, when it has them all,
// stale.
func TestUpgradeFromConntrackd(t *testing.T) {
	t.Run("import", func(t *testing.T) { upgrade(t, (*gateway).imported, 1) })
	t.Run("drop-in", func(t *testing.T) { upgrade(t, (*gateway).droppedIn, 600) })
}

func upgrade(t *testing.T, run func(*gateway, *testing.T) *node.Node, purge int) {
	u := newUpgrade(t, purge)
	u.traffic(t)

	// As it was: conntrackd on both.
	u.handOver(t, u.two)
	u.handOver(t, u.one)

	// The backup becomes Sluice, which is told everything when it asks.
	u.two.replace(t, run)
	if u.two.link == "" {
		t.Log(must[string](t)(u.two.sluice.Sluice("request-resync")))
	} else {
		u.two.tell(t, "-n")
	}
	testbed.Eventually(t, patience, u.knows(u.two, u.one))
	u.handOver(t, u.two)
	u.handOver(t, u.one)

	// So does the other, while it carries the traffic.
	u.one.replace(t, run)
	u.handOver(t, u.two)
	u.handOver(t, u.one)

	u.finish(t)
}

// An upgrade is a pair of firewalls, the first active, and what passes them.
type migration struct {
	*testbed.Pair
	one, two *gateway
	purge    int

	busy, quiet []*testbed.Conversation
	short       <-chan error
	stop        func() // ends the short connections
}

// A gateway is a firewall with the daemon that replicates its flows.
type gateway struct {
	fw         *testbed.Firewall
	dir        string // of everything that the daemon's configuration names
	conntrackd *testbed.Daemon
	sluice     *node.Node // nil until it takes conntrackd's place
	link       string     // to sluice, named conntrackd, if that is how it runs
	pids       map[string]int
}

// natRules lead a port of the gateway to the server.
const natRules = `
table ip nat {
	chain prerouting {
		iifname inside tcp dport 8080 dnat to 10.71.2.2:5001
	}
}
`

func newUpgrade(t *testing.T, purge int) *migration {
	t.Helper()
	testbed.Require(t, testbed.Conntrackd)
	testbed.MustLeaveNothing(t)
	u := &migration{Pair: testbed.MustPair(t, testbed.FirewallConfig{SNAT: true, Rules: natRules}), purge: purge}
	testbed.MustServer(t, u.Server, testbed.ServerPort)
	u.one, u.two = newGateway(t, u.FW1, purge), newGateway(t, u.FW2, purge)
	if err := u.MoveTo(u.FW1); err != nil {
		t.Fatal(err)
	}
	return u
}

func newGateway(t *testing.T, fw *testbed.Firewall, purge int) *gateway {
	t.Helper()
	g := &gateway{fw: fw, dir: t.TempDir()}
	text := must[[]byte](t)(os.ReadFile(filepath.Join("testdata", "conntrackd.conf")))
	filled := strings.NewReplacer("@DIR@", g.dir, "@ADDRESS@", fw.Sync.V4.Addr().String(), "@PURGE@", fmt.Sprint(purge)).
		Replace(string(text))
	if err := os.WriteFile(g.path("conntrackd.conf"), []byte(filled), 0o600); err != nil {
		t.Fatal(err)
	}
	g.conntrackd = testbed.MustDaemonOf(t, fw.Namespace, g.path("conntrackd.conf"))
	return g
}

func (g *gateway) path(name string) string { return filepath.Join(g.dir, name) }

// replace stops conntrackd and runs sluice instead.
func (g *gateway) replace(t *testing.T, run func(*gateway, *testing.T) *node.Node) {
	t.Helper()
	if err := g.conntrackd.Stop(); err != nil {
		t.Fatal(err)
	}
	g.sluice = run(g, t)
	g.pids = must[map[string]int](t)(g.sluice.PIDs())
}

// imported runs what `sluice import` makes of conntrackd's configuration.
func (g *gateway) imported(t *testing.T) *node.Node {
	t.Helper()
	text := must[string](t)(g.fw.Run(binary, "import", "--strict", g.path("conntrackd.conf")))
	if err := os.WriteFile(g.path("pair.hcl"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	must[string](t)(g.fw.Run(binary, "validate", "-f", g.path("pair.hcl")))
	return node.MustFile(t, binary, g.fw, g.path("pair.hcl"), g.path("conntrackd.ctl"))
}

// droppedIn runs sluice under conntrackd's name, with its configuration.
func (g *gateway) droppedIn(t *testing.T) *node.Node {
	t.Helper()
	g.link = g.path("conntrackd")
	if err := os.Symlink(must[string](t)(filepath.Abs(binary)), g.link); err != nil {
		t.Fatal(err)
	}
	process := g.fw.MustStart(t, g.link, "-C", g.path("conntrackd.conf"))
	return must[*node.Node](t)(node.Attach(binary, g.fw, process, g.path("conntrackd.ctl")))
}

// tell gives conntrackd, or what has its name, commands.
func (g *gateway) tell(t *testing.T, commands ...string) {
	t.Helper()
	for _, command := range commands {
		if g.sluice == nil {
			g.conntrackd.MustCtl(t, command)
		} else {
			must[string](t)(g.fw.Run(g.link, "-C", g.path("conntrackd.conf"), command))
		}
	}
}

// primary does what keepalived's script does on the firewall that has got the
// addresses.
func (g *gateway) primary(t *testing.T) {
	t.Helper()
	if g.sluice != nil && g.link == "" {
		must[string](t)(g.sluice.Sluice("role", "primary"))
		return
	}
	g.tell(t, "-c", "-f", "-R", "-B")
}

// backup is the same for the firewall that has lost them. It does not wait for
// what the peer answers.
func (g *gateway) backup(t *testing.T) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	if g.sluice != nil && g.link == "" {
		go func() { _, err := g.sluice.Sluice("role", "backup"); done <- err }()
		return done
	}
	g.tell(t, "-t", "-n")
	done <- nil
	return done
}

// peers is what the daemon knows from its peer.
func (g *gateway) peers() (testbed.Table, error) {
	if g.sluice != nil {
		return g.sluice.Table("peers")
	}
	return g.conntrackd.External()
}

func (g *gateway) String() string {
	if g.link != "" {
		return "drop-in"
	}
	if g.sluice != nil {
		return "sluice"
	}
	return "conntrackd"
}

// traffic begins what lasts: conversations with much data and with next to
// none, translated in every way; and short connections, fifty a second.
func (u *migration) traffic(t *testing.T) {
	t.Helper()
	to := []netip.AddrPort{server4(), server6(), netip.AddrPortFrom(testbed.InsideVIP.V4.Addr(), 8080)}
	for i := range 36 {
		config := testbed.ConversationConfig{To: to[i%len(to)], Rate: 1, Seed: uint64(i)}
		if i >= 6 {
			u.quiet = append(u.quiet, u.Client.MustConverse(t, config))
			continue
		}
		config.Rate = 1 << 20
		u.busy = append(u.busy, u.Client.MustConverse(t, config))
	}
	ctx, cancel := context.WithCancel(t.Context())
	u.short, u.stop = u.connect(ctx), cancel
	t.Cleanup(func() { cancel(); <-u.short })
	u.progress(t)
	testbed.Eventually(t, patience, u.knows(u.two, u.one))
}

// connect makes short connections until ctx ends, and then says whether one
// of them failed.
func (u *migration) connect(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	go func() {
		defer close(done)
		result, err := u.Client.Churn(ctx, testbed.Churn{
			To: server4(), Sources: testbed.ClientSources(false), Count: 1 << 20, Rate: 50, Concurrency: 64, Payload: 2000,
			Endings: func(i int) testbed.Ending { return []testbed.Ending{testbed.Orderly, testbed.Reset}[i%2] },
			Timeout: patience,
		})
		if err == nil {
			err = result.Check()
		}
		if err == nil && result.Done < 100 {
			err = fmt.Errorf("no more than %d short connections", result.Done)
		}
		done <- err
	}()
	return done
}

// progress waits until data came through each busy conversation.
func (u *migration) progress(t *testing.T) {
	t.Helper()
	var conditions []func() error
	for _, c := range u.busy {
		conditions = append(conditions, c.Progress(256<<10))
	}
	for _, condition := range conditions {
		testbed.Eventually(t, patience, condition)
	}
}

// lasting is what a table has of the conversations.
func (u *migration) lasting(table testbed.Table) testbed.Table {
	ports := map[netip.AddrPort]bool{}
	for _, c := range append(u.busy, u.quiet...) {
		ports[c.Local()] = true
	}
	return table.Where(func(f testbed.Flow) bool { return ports[netip.AddrPortFrom(f.Orig.Src, f.Orig.SrcPort)] })
}

// knows is a condition: the backup knows all conversations as the active
// firewall's kernel has them. (conntrackd shows no reply tuples.)
func (u *migration) knows(backup, active *gateway) func() error {
	comparison := testbed.Comparison{}
	if backup.sluice == nil {
		comparison = testbed.Printed
	}
	return func() error {
		want, err := active.fw.Table()
		if err != nil {
			return err
		}
		got, err := backup.peers()
		if err != nil {
			return err
		}
		if want = u.lasting(want); len(want) != len(u.busy)+len(u.quiet) {
			return fmt.Errorf("%d flows of %d conversations", len(want), len(u.busy)+len(u.quiet))
		}
		return comparison.Same(want, u.lasting(got))
	}
}

// handOver makes a firewall the active one: it gets the addresses, and then
// both are told, as keepalived does.
func (u *migration) handOver(t *testing.T, to *gateway) {
	t.Helper()
	from := u.one
	if to == u.one {
		from = u.two
	}
	testbed.Eventually(t, patience, u.knows(to, from))
	begin := time.Now()
	if err := u.MoveTo(to.fw); err != nil {
		t.Fatal(err)
	}
	moved := time.Since(begin)
	to.primary(t)
	told := time.Since(begin)
	left := from.backup(t)
	u.progress(t)
	t.Logf("%v to %v: addresses moved after %v, command done after %v, data flows after %v",
		from, to, moved, told, time.Since(begin))
	if err := <-left; err != nil {
		t.Error(err)
	}
	if u.purge == 1 {
		testbed.Eventually(t, patience, func() error {
			table, err := from.fw.Table()
			if n := len(u.lasting(table)); err == nil && n > 0 {
				err = fmt.Errorf("%d conversations are left in the kernel of the firewall that stepped back", n)
			}
			return err
		})
	}
}

// finish ends all traffic and checks that nothing was lost, that both agree,
// and that nothing was started again.
func (u *migration) finish(t *testing.T) {
	t.Helper()
	u.progress(t)
	u.stop()
	if err := <-u.short; err != nil {
		t.Error(err)
	}
	// At rest, with the short ones on their way out.
	testbed.Eventually(t, patience, replicated(u.one.fw, u.two.sluice, "peers"))
	testbed.Eventually(t, patience, replicated(u.one.fw, u.one.sluice, "local"))
	for _, c := range append(u.busy, u.quiet...) {
		if err := c.Finish(patience); err != nil {
			t.Error(err)
		}
	}
	testbed.Eventually(t, patience, replicated(u.one.fw, u.two.sluice, "peers"))
	for _, g := range []*gateway{u.one, u.two} {
		if pids := must[map[string]int](t)(g.sluice.PIDs()); !maps.Equal(pids, g.pids) {
			t.Errorf("processes were %v and are %v", g.pids, pids)
		}
		noneLost(t, g.sluice)
	}
}
