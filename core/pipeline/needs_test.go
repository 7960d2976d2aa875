package pipeline

import (
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

func TestGrantLacks(t *testing.T) {
	all := &stagepb.Needs{Capabilities: []string{"net_admin", "net_raw"}, Network: true, Read: []string{"/etc/acme/a", "/usr/share/x"}, Write: []string{"/var/lib/acme"}}
	for _, c := range []struct {
		grant Grant
		needs *stagepb.Needs
		want  string
	}{
		{DefaultGrant(), nil, ""},
		{DefaultGrant(), all, `capabilities = ["net_admin", "net_raw"]; network = true; paths = ["/var/lib/acme"]; read_paths = ["/etc/acme/a"]`},
		{Grant{Capabilities: []string{"net_raw"}, Network: true, Paths: []string{"/var/lib"}, ReadPaths: []string{"/etc/acme"}}, all, `capabilities = ["net_admin"]`},
		{Grant{Capabilities: []string{"net_raw", "net_admin"}, Network: true, Paths: []string{"/var/lib/acme/", "/etc"}}, all, ""},
		{Grant{Paths: []string{"/var/lib/acme/x", "/var/lib/acm"}}, &stagepb.Needs{Write: []string{"/var/lib/acme"}}, `paths = ["/var/lib/acme"]`},
		{DefaultGrant(), &stagepb.Needs{Write: []string{"/a\n\x1b[31m"}}, `paths = ["/a\n\x1b[31m"]`},
	} {
		if got := strings.Join(c.grant.lacks(c.needs), "; "); got != c.want {
			t.Errorf("%+v: %s\nwant %s", c.grant, got, c.want)
		}
	}
}
