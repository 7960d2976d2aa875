package sinkkernel

import (
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/plugin"
)

func TestConfig(t *testing.T) {
	c := Definition.Config().(*Config)
	if d := plugin.Decode([]byte(`{"scope": "local", "commit_timeout": "180s", "netns": "/run/netns/a"}`), c); len(d) > 0 {
		t.Fatal(d)
	}
	want := plugin.Traits{Scope: "local", NetNS: "/run/netns/a", Kernel: true, PurgeAfter: int64(15 * time.Second)}
	got := c.Traits()
	if got.Scope != want.Scope || got.NetNS != want.NetNS || !got.Kernel || got.PurgeAfter != want.PurgeAfter {
		t.Fatalf("%+v, want %+v", got, want)
	}
	d := plugin.Decode([]byte(`{"destroy_grace": "0s"}`), Definition.Config())
	if len(d) != 1 || d[0].Path[0] != "destroy_grace" {
		t.Fatal(d)
	}
}

func TestSecondsRoundUp(t *testing.T) {
	for d, want := range map[time.Duration]uint32{0: 0, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2} {
		if got := seconds(plugin.Duration(d)); got != want {
			t.Errorf("%v: %d", d, got)
		}
	}
}
