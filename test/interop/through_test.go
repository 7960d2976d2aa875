package interop

import (
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
)

// through is how an active-active pair is told what the kernel of the other
// needs at once.
var through = map[string]string{
	"netlink": "coalesce = \"0s\"", "source": "coalesce = \"0s\"",
	"peers": "hold = false", "kernel": "destroy_grace = \"1s\"",
}

// Without caches that hold, each puts into its kernel at once what the other
// tells, whoever is who.
func TestWriteThrough(t *testing.T) {
	for _, to := range []string{"conntrackd", "sluice"} {
		t.Run("to "+to, func(t *testing.T) {
			s := newSite(t)
			sends, receives := s.FW1, s.FW2
			config := testbed.ConntrackdConfig{DisableExternalCache: true}
			conntrackdAt, sluiceAt := sends, receives
			if to == "conntrackd" {
				conntrackdAt, sluiceAt = receives, sends
			}
			d := s.conntrackd(t, conntrackdAt, config)
			n := s.sluice(t, sluiceAt, through)
			s.traffic(t)
			testbed.Eventually(t, patience, same(committed, sends.Table, receives.Table))
			everyKind(t, receives.MustTable(t))
			s.changes(t, func(t *testing.T) {
				t.Helper()
				testbed.Eventually(t, patience, same(committed, sends.Table, receives.Table))
			}, receives.Table)
			undisturbed(t, d)
			unharmed(t, n)
		})
	}
}
