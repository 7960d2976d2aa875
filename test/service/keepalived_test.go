package service

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// binary is the sluice under test.
var binary string

func TestMain(m *testing.M) {
	os.Exit(node.WithBinary(func(path string) int {
		binary = path
		return m.Run()
	}))
}

// A router is a firewall with sluice and keepalived.
type router struct {
	t        *testing.T
	fw       *testbed.Firewall
	dir      string
	priority int
	node     *node.Node
	vrrp     *testbed.Process
}

// newRouter writes the configurations of a firewall: of keepalived the example
// that is installed, with this network's names and faster.
func newRouter(t *testing.T, fw *testbed.Firewall, priority int) *router {
	t.Helper()
	r := &router{t: t, fw: fw, dir: t.TempDir(), priority: priority}
	text, err := os.ReadFile("../../packaging/keepalived.conf")
	if err != nil {
		t.Fatal(err)
	}
	pairs := []string{
		"/usr/sbin/sluice role", binary + " --socket " + r.dir + "/control.sock role", "/run/sluice/track", r.dir + "/track",
		"interface eth0", "interface " + testbed.InsideLink, "interface eth1", "interface " + testbed.OutsideLink,
		"192.168.0.100/24", testbed.InsideVIP.V4.String(), "192.168.1.100/24", testbed.OutsideVIP.V4.String(),
		"priority 110", fmt.Sprint("priority ", priority), "advert_int 1", "advert_int 0.1",
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(string(text), pairs[i]) {
			t.Fatalf("keepalived.conf has no %q", pairs[i])
		}
	}
	r.write("keepalived.conf", strings.NewReplacer(pairs...).Replace(string(text)))
	r.write("pair.hcl", fmt.Sprintf("runner {\n  name       = %q\n  lock_file  = \"%[2]s/lock\"\n  track_file = \"%[2]s/track\"\n  control {\n    path = \"%[2]s/control.sock\"\n  }\n}\n%[3]s",
		fw.Name(), r.dir, node.Pipelines(nil)))
	return r
}

func (r *router) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
}

func (r *router) startSluice() {
	r.t.Helper()
	r.node = node.MustFile(r.t, binary, r.fw, r.dir+"/pair.hcl", r.dir+"/control.sock")
}

func (r *router) startKeepalived() {
	r.t.Helper()
	r.vrrp = r.fw.MustStart(r.t, "keepalived", "-n", "-l", "-D", "-P", "-f", r.dir+"/keepalived.conf", "-p", r.dir+"/pid", "-r", r.dir+"/vrrp.pid")
}

// die kills all that runs on the firewall, and cuts it off before anybody notices
// there: no script is called any more.
func (r *router) die(p *testbed.Pair) {
	r.t.Helper()
	pids := append(testbed.Tree(r.vrrp.Pid()), testbed.Tree(r.node.Process.Pid())...)
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	if err := p.LinksDown(r.fw); err != nil {
		r.t.Fatal(err)
	}
	testbed.Eventually(r.t, patience, func() error {
		if i := slices.IndexFunc(pids, testbed.Alive); i >= 0 {
			return fmt.Errorf("process %d lives", pids[i])
		}
		return nil
	})
}

// revive brings the firewall back as after a reboot: without addresses, without
// flows. keepalived is there before sluice.
func (r *router) revive(p *testbed.Pair) {
	r.t.Helper()
	for link, vip := range map[string]testbed.Dual{testbed.InsideLink: testbed.InsideVIP, testbed.OutsideLink: testbed.OutsideVIP} {
		if err := r.fw.DelAddr(link, vip.V4); err != nil {
			r.t.Fatal(err)
		}
	}
	if err := r.fw.Flush(); err != nil {
		r.t.Fatal(err)
	}
	for _, name := range []string{"track", "control.sock.role", "pid", "vrrp.pid"} { // as everything in /run
		if err := os.Remove(filepath.Join(r.dir, name)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.write("track", "1\n") // what the first start of sluice writes, before keepalived's
	if err := p.LinksUp(r.fw); err != nil {
		r.t.Fatal(err)
	}
	r.startKeepalived()
}

// is is a condition: the node has a role and keepalived gave it the addresses, or
// took them.
func (r *router) is(role string) func() error {
	return func() error {
		status, err := r.node.Status()
		if err != nil {
			return err
		}
		out, err := r.fw.Run("ip", "-o", "address", "show", "dev", testbed.InsideLink)
		if has := strings.Contains(out, " "+testbed.InsideVIP.V4.String()+" "); err == nil && (status.Role != role || has != (role == "primary")) {
			err = fmt.Errorf("role %q, with the address: %v; not %s", status.Role, has, role)
		}
		return err
	}
}

func (r *router) track() string {
	text, _ := os.ReadFile(r.dir + "/track")
	return strings.TrimSpace(string(text))
}

// A pair under the real keepalived, by the example that is installed: the primary
// is killed, and a download goes on. The primary comes back, is not elected
// before it knows the flows, takes over again, and the download goes on.
func TestKeepalived(t *testing.T) {
	testbed.Require(t)
	if _, err := exec.LookPath("keepalived"); err != nil {
		t.Skip("this machine lacks keepalived")
	}
	testbed.MustLeaveNothing(t)
	p := testbed.MustPair(t, testbed.FirewallConfig{SNAT: true})
	if err := p.Leave(p.FW1); err != nil {
		t.Fatal(err)
	}
	testbed.MustServer(t, p.Server, testbed.ServerPort)
	one, two := newRouter(t, p.FW1, 110), newRouter(t, p.FW2, 100)
	for _, r := range []*router{one, two} {
		r.startSluice()
		r.startKeepalived()
	}
	testbed.Eventually(t, patience, one.is("primary"))
	testbed.Eventually(t, patience, two.is("backup"))

	download := p.Client.MustTransfer(t, testbed.TransferConfig{
		To: netip.AddrPortFrom(testbed.ServerAddr.V4.Addr(), testbed.ServerPort), Size: 1 << 30, Rate: 8 << 20,
	})
	testbed.Eventually(t, patience, knows(two.node, download))
	one.die(p)
	testbed.Eventually(t, patience, two.is("primary"))
	testbed.Eventually(t, patience, download.Progress(4<<20))

	one.revive(p)
	if err := one.vrrp.AwaitOutput(patience, "Entering BACKUP STATE"); err != nil {
		t.Fatal(err)
	}
	one.startSluice()
	testbed.Eventually(t, patience, one.is("primary"))
	if got := one.track(); got != "0" {
		t.Errorf("the new primary's file says %q", got)
	}
	testbed.Eventually(t, patience, two.is("backup"))
	testbed.Eventually(t, patience, download.Progress(4<<20))
}

// knows is a condition: the node holds a transfer's connection for its peer.
func knows(n *node.Node, transfer *testbed.Transfer) func() error {
	return func() error {
		table, err := n.Table("peers")
		if err == nil {
			_, err = table.One(func(f testbed.Flow) bool {
				return f.Orig.SrcPort == transfer.Local().Port() && f.TCP == testbed.Established
			})
		}
		return err
	}
}
