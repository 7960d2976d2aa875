package vendor

import (
	"encoding/json"
	"testing"

	"github.com/sluice-project/sluice/core/plugintest/kit"
	"github.com/sluice-project/sluice/internal/testbed"
)

// The bundled plugins that need a kernel or a link of their own conform, too.
func TestBundledPluginsConformInANamespace(t *testing.T) {
	testbed.Require(t)
	testbed.MustLeaveNothing(t)
	one, other := testbed.MustNamespace(t, "kit"), testbed.MustNamespace(t, "other")
	if err := testbed.Cable(one, "sync", other, "sync"); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Run("ip", "address", "add", "192.0.2.1/24", "dev", "sync"); err != nil {
		t.Fatal(err)
	}
	link := "group = \"225.0.0.50\"\ninterface = \"sync\"\n"
	for _, c := range []struct{ plugin, block string }{
		{"source-netlink", ""},
		{"source-multicast", link},
		{"sink-multicast", link},
		{"sink-kernel", ""},
	} {
		t.Run(c.plugin, func(t *testing.T) {
			args := []string{"plugin", "check", c.plugin, "-o", "json", "--kernel"}
			if c.block != "" {
				args = append(args, "--config", blockFile(t, c.block))
			}
			out, err := one.Command(binary, args...).Output()
			var r kit.Report
			if jsonErr := json.Unmarshal(out, &r); err != nil || jsonErr != nil {
				t.Errorf("%v, %v\n%s", err, jsonErr, out)
			}
			conforms(t, r)
		})
	}
}
