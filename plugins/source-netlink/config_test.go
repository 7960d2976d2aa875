package sourcenetlink

import (
	"fmt"
	"testing"

	"github.com/sluice-project/sluice/core/plugin"
)

func TestConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{}`: "",
		`{"buffer_size": 2097152, "buffer_size_max": "8MiB", "coalesce": "0s", "reliable": false, "netns": "/run/netns/a"}`: "",
		`{"buffer_size": "16MiB"}`:    "[buffer_size_max]: Maximum below the size",
		`{"buffer_size_max": "4GiB"}`: "[buffer_size_max]: Size out of range",
		`{"queue_limit": 100}`:        "[queue_limit]: Size out of range",
		`{"overrun_resync": "none", "expectations": ["ftp"], "kernel_filter": true}`: "",
		`{"overrun_resync": "0s", "expectations": true}`:                             "",
		`{"overrun_resync": "never"}`:                                                "[overrun_resync]: Bad value",
		`{"expectations": ["no such name is as long"]}`:                              "[expectations 0]: Bad helper",
		`{"coalesce": "2s"}`:                                                         "[coalesce]: Duration out of range",
	} {
		d := plugin.Decode([]byte(config), Definition.Config())
		got := ""
		for _, one := range d {
			got += fmt.Sprintf("%v: %s", one.Path, one.Summary)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

func TestTraits(t *testing.T) {
	c := &Config{NetNS: "/run/netns/blue"}
	if tr := c.Traits(); tr.NetNS != "/run/netns/blue" || tr.Link != "" {
		t.Fatalf("%+v", tr)
	}
}
