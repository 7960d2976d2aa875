package pipeline

import (
	"strings"
	"testing"
)

func TestMetrics(t *testing.T) {
	for _, c := range []struct {
		metrics Metrics
		want    string
	}{
		{DefaultRunner().Metrics, ""},
		{Metrics{Listen: "127.0.0.1:9783"}, ""},
		{Metrics{Listen: "[::1]:9783", WebConfig: "/etc/sluice/web.yml"}, ""},
		{Metrics{Listen: ":9783"}, ""},
		{Metrics{Listen: "unix:/run/sluice/metrics.sock", Group: "adm"}, ""},
		{Metrics{Pprof: true}, "[metrics listen]: Invalid address"},
		{Metrics{Listen: "127.0.0.1"}, "[metrics listen]: Invalid address"},
		{Metrics{Listen: "127.0.0.1:0"}, "[metrics listen]: Invalid address"},
		{Metrics{Listen: "127.0.0.1:http"}, "[metrics listen]: Invalid address"},
		{Metrics{Listen: "unix:metrics.sock"}, "[metrics listen]: Invalid path"},
		{Metrics{Listen: "unix:/" + strings.Repeat("x", 107)}, "[metrics listen]: Invalid path"},
		{Metrics{Listen: ":9783", Group: "adm"}, "[metrics group]: Group without effect"},
		{Metrics{Listen: ":9783", WebConfig: "web.yml"}, "[metrics web_config]: Relative path"},
	} {
		r := DefaultRunner()
		r.Name, r.Metrics = "node", c.metrics
		d := r.Validate()
		if c.want == "" && len(d) > 0 || c.want != "" && (len(d) != 1 || !strings.HasPrefix(d.Error(), c.want)) {
			t.Errorf("%+v: %v, not %s", c.metrics, d, c.want)
		}
	}
}
