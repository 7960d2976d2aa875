package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/sluice-project/sluice/internal/testbed"
)

// A rig is two firewalls joined by a sync link, and the generator's namespace
// with a cable to each side of the first:
//
//	generator ══ inside, outside ══ fw1 ── sync ── fw2
//
// The generator's ends have no addresses, so that no kernel answers there.
type rig struct {
	hosts      *testbed.Namespace
	fw1, fw2   *testbed.Firewall
	generator  *generator
	namespaces []*testbed.Namespace
}

const (
	clientLink = "client" // of the generator's namespace
	serverLink = "server"
)

var (
	insideNet  = netip.MustParsePrefix("10.79.1.1/24")
	insideHop  = netip.MustParseAddr("10.79.1.2") // where clients are
	outsideNet = netip.MustParsePrefix("10.79.2.1/24")
	serverAddr = netip.MustParseAddr("10.79.2.2")
	clients    = netip.MustParsePrefix("10.80.0.0/12")
	syncNets   = [2]netip.Prefix{netip.MustParsePrefix("10.71.3.1/24"), netip.MustParsePrefix("10.71.3.2/24")}
)

// rules make the kernel track what is forwarded, and not the sync link.
const rules = `
table inet bench {
	chain sync_in { type filter hook prerouting priority raw; iifname "sync" notrack; }
	chain sync_out { type filter hook output priority raw; oifname "sync" notrack; }
	chain forward { type filter hook forward priority filter; ct state invalid counter; }
}
table ip nat {
	chain postrouting { type nat hook postrouting priority srcnat; }
	chain prerouting { type nat hook prerouting priority dstnat; }
}
`

func newRig() (*rig, error) {
	r := &rig{}
	if err := r.build(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *rig) namespace(role string) (*testbed.Namespace, error) {
	n, err := testbed.NewNamespace(role)
	if err == nil {
		r.namespaces = append(r.namespaces, n)
	}
	return n, err
}

func (r *rig) build() error {
	var err error
	if r.hosts, err = r.namespace("hosts"); err != nil {
		return err
	}
	for i, fw := range []**testbed.Firewall{&r.fw1, &r.fw2} {
		n, err := r.namespace(fmt.Sprintf("fw%d", i+1))
		if err != nil {
			return err
		}
		*fw = &testbed.Firewall{Namespace: n, Sync: testbed.Dual{V4: syncNets[i]}}
	}
	if err := testbed.Cable(r.fw1.Namespace, testbed.SyncLink, r.fw2.Namespace, testbed.SyncLink); err != nil {
		return err
	}
	for i, fw := range []*testbed.Firewall{r.fw1, r.fw2} {
		if err := errors.Join(
			fw.AddAddr(testbed.SyncLink, syncNets[i]),
			fw.Sysctls(map[string]string{"net.ipv4.ip_forward": "1", "net.netfilter.nf_conntrack_events": "1"}),
			fw.Rules(rules),
		); err != nil {
			return err
		}
	}
	return r.cables()
}

// cables joins generator and fw1, which finds all clients behind one neighbour.
func (r *rig) cables() error {
	if err := errors.Join(
		testbed.Cable(r.hosts, clientLink, r.fw1.Namespace, testbed.InsideLink),
		testbed.Cable(r.hosts, serverLink, r.fw1.Namespace, testbed.OutsideLink),
		r.fw1.AddAddr(testbed.InsideLink, insideNet),
		r.fw1.AddAddr(testbed.OutsideLink, outsideNet),
	); err != nil {
		return err
	}
	inside, err := r.neighbour(testbed.InsideLink, insideHop, clientLink)
	if err != nil {
		return err
	}
	outside, err := r.neighbour(testbed.OutsideLink, serverAddr, serverLink)
	if err != nil {
		return err
	}
	if err := r.fw1.AddRoute(clients, insideHop, netip.Addr{}); err != nil {
		return err
	}
	r.generator = &generator{target: netip.AddrPortFrom(serverAddr, 5001)}
	return r.hosts.Do(func() error {
		var err error
		if r.generator.client, err = openPort(clientLink, inside); err != nil {
			return err
		}
		r.generator.server, err = openPort(serverLink, outside)
		return err
	})
}

// neighbour tells fw1 for good who has an address on a link, and returns the
// link's own hardware address.
func (r *rig) neighbour(link string, addr netip.Addr, at string) (net.HardwareAddr, error) {
	theirs, err := r.hosts.HardwareAddr(at)
	if err != nil {
		return nil, err
	}
	if _, err := r.fw1.Run("ip", "neigh", "replace", addr.String(), "lladdr", theirs.String(), "dev", link, "nud", "permanent"); err != nil {
		return nil, err
	}
	return r.fw1.HardwareAddr(link)
}

func (r *rig) Close() error {
	var errs []error
	if r.generator != nil {
		errs = append(errs, r.generator.Close())
	}
	for _, n := range slices.Backward(r.namespaces) {
		errs = append(errs, n.Close())
	}
	return errors.Join(errs...)
}
