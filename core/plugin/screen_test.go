package plugin

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A screen comes out of the control protocol as it went in.
func TestScreensTravel(t *testing.T) {
	var prefixes []netip.Prefix
	for _, text := range []string{"10.0.0.0/8", "::/0", "fe80::/10", "::ffff:10.0.0.0/110", "192.0.2.1/32"} {
		prefixes = append(prefixes, netip.MustParsePrefix(text))
	}
	screens := []flow.Screen{
		{},
		{Protocols: &flow.ProtocolList{Accept: true, Protocols: []uint8{0, 6, 255}}},
		{Protocols: &flow.ProtocolList{Protocols: []uint8{1}}, Addresses: &flow.AddressList{Prefixes: prefixes}},
	}
	var messages []*stagepb.Screen
	for i := range screens {
		messages = append(messages, traitsMessage(Traits{Screen: &screens[i]}).Screen)
	}
	got, err := screensOf(messages)
	if err != nil || !reflect.DeepEqual(got, screens) {
		t.Errorf("%+v became %+v, %v", screens, got, err)
	}
	if traitsMessage(Traits{}).Screen != nil {
		t.Error("a screen out of nothing")
	}
	if _, err := screensOf([]*stagepb.Screen{{Addresses: &stagepb.AddressList{Prefixes: []string{"nonsense"}}}}); err == nil {
		t.Error("nonsense is no prefix")
	}
}
