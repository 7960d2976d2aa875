package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// FTP sessions move to the other firewall between the announcement of a data
// connection and its opening: that firewall must expect it. An earlier data
// connection goes on, and later ones open too.
//
// Where one node is conntrackd, that is left out which it can't do: what it
// commits has no NAT, and it sends none of IPv6.
func TestFTPSurvivesTakeover(t *testing.T) {
	for _, pair := range []struct {
		name     string
		from, to func(*testing.T, *testbed.Firewall) *gateway
		able     func(ftpCase) bool
	}{
		{"sluice to sluice", expectingSluice, expectingSluice, func(ftpCase) bool { return true }},
		{"sluice to conntrackd", expectingSluice, expectingConntrackd, func(c ftpCase) bool { return !c.active || !c.snat }},
		{"conntrackd to sluice", expectingConntrackd, expectingSluice, func(c ftpCase) bool { return !c.active || !c.snat || !c.v6 }},
	} {
		for _, snat := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, snat %v", pair.name, snat), func(t *testing.T) {
				f := newFTPSite(t, snat)
				from, to := pair.from(t, f.FW1), pair.to(t, f.FW2)
				var sessions []*ftpSession
				for _, c := range []ftpCase{{}, {active: true}, {v6: true}, {v6: true, active: true}} {
					if c.snat = snat; pair.able(c) {
						sessions = append(sessions, f.begin(t, c))
					}
				}
				testbed.Eventually(t, patience, to.expects(len(sessions)))
				for _, s := range sessions {
					testbed.Eventually(t, patience, s.known(to.peers, from.sluice != nil))
				}
				if err := f.MoveTo(to.fw); err != nil {
					t.Fatal(err)
				}
				to.primary(t)
				for _, s := range sessions {
					testbed.Eventually(t, patience, s.known(to.fw.Table, from.sluice != nil)) // conntrackd answers before it is done
				}
				left := from.backup(t)
				for _, s := range sessions {
					t.Run(s.ftpCase.String(), func(t *testing.T) { s.goOn(t, to.fw) })
				}
				if err := <-left; err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// An ftpCase is a way to open data connections.
type ftpCase struct{ v6, active, snat bool }

func (c ftpCase) String() string {
	return fmt.Sprintf("%s %s", map[bool]string{false: "IPv4", true: "IPv6"}[c.v6], map[bool]string{false: "passive", true: "active"}[c.active])
}

// An ftpSession is a session with one data connection open and another
// announced.
type ftpSession struct {
	ftpCase
	*testbed.FTP
	data *testbed.Data
}

type ftpSite struct{ *testbed.Pair }

func newFTPSite(t *testing.T, snat bool) *ftpSite {
	t.Helper()
	testbed.Require(t, testbed.Conntrackd)
	testbed.MustLeaveNothing(t)
	f := &ftpSite{testbed.MustPair(t, testbed.FirewallConfig{SNAT: snat, Rules: testbed.FTPRules})}
	testbed.MustFTPServer(t, f.Server)
	if err := f.MoveTo(f.FW1); err != nil {
		t.Fatal(err)
	}
	return f
}

func expectingSluice(t *testing.T, fw *testbed.Firewall) *gateway {
	t.Helper()
	return &gateway{fw: fw, sluice: node.Must(t, binary, fw, fw.Name(), node.Pipelines(map[string]string{
		"netlink": "expectations = true",
		"kernel":  "commit_timeout = \"180s\"\n    purge_timeout = \"600s\"",
	}))}
}

func expectingConntrackd(t *testing.T, fw *testbed.Firewall) *gateway {
	t.Helper()
	return &gateway{fw: fw, conntrackd: testbed.MustDaemon(t, fw.Namespace, testbed.ConntrackdConfig{
		Address: fw.Sync.V4.Addr(), CommitTimeout: 180, PurgeTimeout: 600, ExpectationSync: true,
	})}
}

// expects is a condition: the daemon knows so many expectations from its peer.
func (g *gateway) expects(count int) func() error {
	return func() error {
		var out string
		var err error
		if g.sluice != nil {
			out, err = g.sluice.Sluice("dump", "--expectations", "peers")
		} else {
			out, err = g.conntrackd.Ctl("-e", "expect")
		}
		if n := strings.Count(out, "proto=6"); err == nil && n != count {
			err = fmt.Errorf("%d expectations, want %d:\n%s", n, count, out)
		}
		return err
	}
}

// begin logs in, opens one data connection and announces the next.
func (f *ftpSite) begin(t *testing.T, c ftpCase) *ftpSession {
	t.Helper()
	host := testbed.ServerAddr.V4
	if c.v6 {
		host = testbed.ServerAddr.V6
	}
	s := &ftpSession{ftpCase: c, FTP: f.Client.MustFTP(t, host.Addr())}
	s.announce(t)
	s.data = s.MustOpen(t)
	if err := s.data.Exchange(10_000); err != nil {
		t.Fatal(err)
	}
	s.announce(t)
	return s
}

func (s *ftpSession) announce(t *testing.T) {
	t.Helper()
	announce := s.Passive
	if s.active {
		announce = s.Active
	}
	if err := announce(); err != nil {
		t.Fatal(err)
	}
}

// known is a condition: a table has the control and the data connection. The
// helper moves the sequence numbers of a control connection if it writes another
// address of another length into it: it writes IPv6 ones at full length.
// conntrackd does not notice.
func (s *ftpSession) known(table func() (testbed.Table, error), noticed bool) func() error {
	moved := noticed && s.v6 && s.active && s.snat
	return func() error {
		flows, err := table()
		if err != nil {
			return err
		}
		control, err := flows.One(func(f testbed.Flow) bool {
			return netip.AddrPortFrom(f.Orig.Src, f.Orig.SrcPort) == s.Local() && f.TCP == testbed.Established
		})
		if err == nil && moved && control.SeqAdjust[0].After == control.SeqAdjust[0].Before {
			err = fmt.Errorf("no sequence numbers have moved: %v", control)
		}
		if err != nil {
			return err
		}
		_, err = s.related(flows, s.data)
		return err
	}
}

// related is the flow of a data connection, which the server opens if the
// session is active.
func (s *ftpSession) related(table testbed.Table, data *testbed.Data) (testbed.Flow, error) {
	opener := data.LocalAddr()
	if s.active {
		opener = data.RemoteAddr()
	}
	from := netip.MustParseAddrPort(opener.String())
	return table.One(func(f testbed.Flow) bool { return netip.AddrPortFrom(f.Orig.Src, f.Orig.SrcPort) == from })
}

// goOn checks that the session works at the other firewall: data connections
// that were open, announced, and not thought of before.
func (s *ftpSession) goOn(t *testing.T, fw *testbed.Firewall) {
	for i := range 2 {
		if i > 0 {
			s.announce(t)
		}
		data := s.MustOpen(t)
		if err := data.Exchange(10_000); err != nil {
			t.Fatal(err)
		}
		flow, err := s.related(must[testbed.Table](t)(fw.Table()), data)
		if err != nil {
			t.Fatal(err)
		}
		if netip.AddrPortFrom(flow.Master.Src, flow.Master.SrcPort) != s.Local() || flow.Status&testbed.StatusExpected == 0 {
			t.Errorf("data connection %d has no master: %v", i+1, flow)
		}
	}
	if err := s.data.Exchange(10_000); err != nil {
		t.Errorf("the earlier data connection: %v", err)
	}
	if err := s.Noop(); err != nil {
		t.Error(err)
	}
}
