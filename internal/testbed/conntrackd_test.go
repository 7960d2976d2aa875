package testbed

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestConntrackdPairReplicatesAndTakesOver(t *testing.T) {
	p := MustPair(t, FirewallConfig{SNAT: true})
	MustServer(t, p.Server, ServerPort)
	d1 := MustDaemon(t, p.FW1.Namespace, ConntrackdConfig{Address: p.FW1.Sync.V4.Addr()})
	d2 := MustDaemon(t, p.FW2.Namespace, ConntrackdConfig{Address: p.FW2.Sync.V4.Addr()})
	transfer := p.Client.MustTransfer(t, TransferConfig{To: At(ServerAddr.V4), Size: 8 << 20, Rate: 8 << 20})
	Eventually(t, shortWait, transfer.Progress(1<<20))

	port := transfer.Local().Port()
	theFlow := func(f Flow) bool { return f.Orig.SrcPort == port }
	want := p.FW1.MustTable(t).Where(theFlow)
	Eventually(t, shortWait, func() error {
		internal, err := d1.Internal()
		if err != nil {
			return err
		}
		external, err := d2.External()
		if err != nil {
			return err
		}
		return errors.Join(Printed.Same(want, internal), Printed.Same(want, external))
	})

	if err := p.LinksDown(p.FW1); err != nil {
		t.Fatal(err)
	}
	d2.MustCtl(t, "-c")
	Eventually(t, shortWait, func() error {
		table, err := p.FW2.Table()
		if err != nil {
			return err
		}
		return Comparison{}.Same(want, table.Where(theFlow))
	})
	if err := p.MoveTo(p.FW2); err != nil {
		t.Fatal(err)
	}
	if err := transfer.Wait(); err != nil {
		t.Fatal(err)
	}
	if sent, err := d1.Counter("", "Bytes sent"); err != nil || sent == 0 {
		t.Errorf("fw1 sent %d bytes, %v", sent, err)
	}
	if bad, err := d2.Counter("network", "Malformed messages"); err != nil || bad != 0 {
		t.Errorf("fw2 saw %d malformed messages, %v", bad, err)
	}
	if err := errors.Join(d1.Stop(), d2.Stop()); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestConntrackdTakesEveryOption(t *testing.T) {
	p := MustPair(t, FirewallConfig{})
	for i, config := range []ConntrackdConfig{
		{
			CommitTimeout: 180, PurgeTimeout: 15, StartupResync: true, DisableExternalCache: true, DisableInternalCache: true,
			NoChecksum: true, TCPWindowTracking: true, ExpectationSync: true, HashLimit: 1000, Port: 4000, Normal: true,
			Protocols: []string{"TCP", "UDP", "ICMP", "IPv6-ICMP", "SCTP"}, Ignore: p.FW1.LocalAddrs(),
			States: []string{"ESTABLISHED", "CLOSED", "TIME_WAIT", "CLOSE_WAIT"},
		},
		{Address: p.FW1.Sync.V6.Addr()},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if !config.Address.IsValid() {
				config.Address = p.FW1.Sync.V4.Addr()
			}
			d := MustDaemon(t, p.FW1.Namespace, config)
			if _, err := d.Counter("network", "no such words"); err == nil {
				t.Error("a counter that is not there is read")
			}
			if err := d.Process.Stop(30 * time.Second); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestConntrackdReportsABadConfiguration(t *testing.T) {
	n := MustNamespace(t, "bad")
	Require(t, Conntrackd)
	d, err := NewDaemon(n, ConntrackdConfig{Address: ClientAddr.V4.Addr(), Link: "nowhere"})
	if err == nil {
		t.Fatal(d.Close(), "started on a link that does not exist")
	}
}
