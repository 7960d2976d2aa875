package ctnl

import (
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

func TestGetterFindsWhatIsThereAndNothingElse(t *testing.T) {
	bed := testbed.MustSingle(t, testbed.FirewallConfig{SNAT: true})
	testbed.MustServer(t, bed.Server, testbed.ServerPort)
	for _, to := range testbed.ServerAddr.Prefixes() {
		bed.Client.MustChurn(t, testbed.Churn{To: testbed.At(to), Count: 3, Ending: testbed.LeftOpen})
	}
	flows := readDump(t, bed.FW.Namespace, func() (*Dump, error) { return OpenDump(Filter{}) })
	if len(flows) < 6 {
		t.Fatalf("%d flows", len(flows))
	}
	err := bed.FW.Do(func() error {
		g, err := OpenGetter()
		if err != nil {
			return err
		}
		defer g.Close()
		for _, want := range flows {
			asked := flow.Flow{Family: want.Family, Protocol: want.Protocol, Original: want.Original, Zone: want.Zone}
			got, err := g.Get(&asked)
			if err != nil {
				return err
			}
			if got == nil || got.ID != want.ID || got.Reply != want.Reply || got.Status != want.Status {
				t.Errorf("got %v, want %v", got, &want)
			}
			asked.Original.DestinationPort++
			if got, err := g.Get(&asked); got != nil || err != nil {
				t.Errorf("got %v, %v of a flow that is not there", got, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
