package interop

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
)

// notify has the script that keepalived calls tell a firewall its role. The
// script finds conntrackd by the search path.
func (d *daemon) notify(t *testing.T, role string) {
	t.Helper()
	script := must[string](t)(filepath.Abs(filepath.Join("testdata", "notify.sh")))
	cmd := d.fw.Command("sh", script, role, d.path("conntrackd.conf"), d.path("lock"), d.path("notify.log"))
	cmd.Env = append(cmd.Env, "PATH="+filepath.Dir(d.program)+":"+os.Getenv("PATH"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("notify %s: %v: %s", role, err, out)
	}
}

// content checks that no command has ever failed.
func (d *daemon) content(t *testing.T) {
	t.Helper()
	if log, err := os.ReadFile(d.path("notify.log")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v: %s", d.program, err, log)
	}
}

// external is what a daemon was told by its peers.
func (d *daemon) external(t *testing.T) source {
	return func() (testbed.Table, error) { return testbed.ParseFlows(d.do(t, "-e")) }
}

// The scripts of a site stay as they are: two drop-ins, and one beside a
// conntrackd, fail over to and fro under traffic.
func TestNotifyScript(t *testing.T) {
	for name, programs := range map[string][2]func(*testing.T) string{
		"two drop-ins":        {dropIn, dropIn},
		"conntrackd, drop-in": {genuine, dropIn},
		"drop-in, conntrackd": {dropIn, genuine},
	} {
		t.Run(name, func(t *testing.T) { failOver(t, programs) })
	}
}

func failOver(t *testing.T, programs [2]func(*testing.T) string) {
	s := newSite(t)
	one := newDaemon(t, s.FW1, programs[0](t), 3780, "CommitTimeout 180 PurgeTimeout 1")
	two := newDaemon(t, s.FW2, programs[1](t), 3780, "CommitTimeout 180 PurgeTimeout 1")
	one.start(t)
	two.start(t)
	one.notify(t, "primary")
	two.notify(t, "backup")

	talks := s.converse(t)
	for _, step := range []struct{ from, to *daemon }{{one, two}, {two, one}} {
		testbed.Eventually(t, patience, hears(step.to.external(t), talks))
		step.to.notify(t, "primary")
		if err := s.MoveTo(step.to.fw); err != nil {
			t.Fatal(err)
		}
		step.from.notify(t, "backup")
		goOn(t, talks)
		// What the one forgets and the other tells again.
		testbed.Eventually(t, patience, has(step.from.fw.Table, 0, func(f testbed.Flow) bool { return f.TCP == testbed.Established }))
		testbed.Eventually(t, patience, hears(step.from.external(t), talks))
	}
	two.notify(t, "fault")
	goOn(t, talks)
	for _, c := range talks {
		if err := c.Finish(patience); err != nil {
			t.Error(err)
		}
	}
	one.content(t)
	two.content(t)
}

// converse begins conversations: for each family one through source NAT, one
// through destination NAT, and one in a zone.
func (s *site) converse(t *testing.T) (talks []*testbed.Conversation) {
	t.Helper()
	for i, f := range families {
		for j, to := range []netip.AddrPort{
			netip.AddrPortFrom(f.server, testbed.ServerPort),
			netip.AddrPortFrom(f.insideVIP, dnatPort),
			netip.AddrPortFrom(f.server, zonePort),
		} {
			talks = append(talks, s.Client.MustConverse(t, testbed.ConversationConfig{To: to, Rate: 64 << 10, Seed: uint64(10*i + j)}))
		}
	}
	goOn(t, talks)
	return talks
}

// goOn waits until more has come through each conversation.
func goOn(t *testing.T, talks []*testbed.Conversation) {
	t.Helper()
	for _, c := range talks {
		testbed.Eventually(t, patience, c.Progress(8<<10))
	}
}

// hears is a condition: a source knows all these conversations.
func hears(s source, talks []*testbed.Conversation) func() error {
	var conditions []func() error
	for _, c := range talks {
		local := c.Local()
		conditions = append(conditions, has(s, 1, func(f testbed.Flow) bool {
			return f.Orig.Src == local.Addr() && f.Orig.SrcPort == local.Port() && f.TCP == testbed.Established
		}))
	}
	return all(conditions...)
}

// The script starts a daemon that has died, over the lock that it has left.
func TestNotifyScriptStartsDaemon(t *testing.T) {
	s := newSite(t)
	d := newDaemon(t, s.FW1, dropIn(t), 3780, "")
	if err := os.WriteFile(d.path("lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if o := d.run(t, "-d"); o.status != 1 {
		t.Errorf("it starts over a lock: %+v", o)
	}
	d.notify(t, "backup")
	t.Cleanup(func() { d.run(t, "-k") })
	d.do(t, "-s")
	if log := string(must[[]byte](t)(os.ReadFile(d.path("notify.log")))); log != "ERROR: failed to invoke conntrackd -s\n" {
		t.Errorf("the script says %q", log)
	}
	d.do(t, "-k")
	if err := d.gone(); err != nil {
		t.Errorf("after -k: %v", err)
	}
}
