package testbed

import (
	"fmt"
	"net/netip"
	"testing"
)

// A data connection passes only because the helper expected it: its entry names
// the control connection as its master.
func TestFTP(t *testing.T) {
	for _, snat := range []bool{false, true} {
		t.Run(fmt.Sprintf("snat=%t", snat), func(t *testing.T) {
			bed := MustSingle(t, FirewallConfig{SNAT: snat, Rules: FTPRules})
			MustFTPServer(t, bed.Server)
			for _, host := range ServerAddr.Addrs() {
				session := bed.Client.MustFTP(t, host)
				for name, announce := range map[string]func() error{"passive": session.Passive, "active": session.Active} {
					if err := announce(); err != nil {
						t.Fatal(err)
					}
					data := session.MustOpen(t)
					if err := data.Exchange(100_000); err != nil {
						t.Fatal(err)
					}
					mustBeRelated(t, bed.FW.Namespace, data, session, name)
					data.Close()
				}
				if err := session.Noop(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func mustBeRelated(t *testing.T, n *Namespace, data *Data, session *FTP, name string) {
	t.Helper()
	local := addrPort(data.LocalAddr())
	e, err := n.MustTable(t).One(func(f Flow) bool {
		for _, end := range []netip.AddrPort{netip.AddrPortFrom(f.Orig.Src, f.Orig.SrcPort), netip.AddrPortFrom(f.Reply.Src, f.Reply.SrcPort)} {
			if end == local {
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	if e.Master.Src != session.Local().Addr() || e.Master.SrcPort != session.Local().Port() || e.Status&StatusExpected == 0 {
		t.Errorf("%s: %v has no master", name, e)
	}
}

// Without its helper the firewall lets no data connection through.
func TestFTPNeedsHelper(t *testing.T) {
	bed := MustSingle(t, FirewallConfig{Rules: FTPRules})
	if _, err := bed.FW.Run("nft", "flush", "chain", "inet", "testbed", "helpers"); err != nil {
		t.Fatal(err)
	}
	MustFTPServer(t, bed.Server)
	session := bed.Client.MustFTP(t, ServerAddr.V4.Addr())
	if err := session.Passive(); err != nil {
		t.Fatal(err)
	}
	if data, err := session.Open(); err == nil {
		data.Close()
		t.Fatal("a data connection passed that no helper expected")
	}
}
