package docs

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/observe"
)

// metrics lists the names of all metrics that a node may have.
func metrics(t *testing.T) map[string]bool {
	names := map[string]bool{}
	for _, m := range observe.Metrics {
		names[m.Name] = true
		if m.Type == "histogram" {
			names[m.Name+"_bucket"], names[m.Name+"_sum"], names[m.Name+"_count"] = true, true, true
			delete(names, m.Name)
		}
	}
	for _, s := range statistics(t) {
		kind, _, _ := strings.Cut(s.plugin, " ")
		names[observe.MetricOf(kind, s.name, s.typ)] = true
	}
	return names
}

// Every metric that the alerts and the dashboard ask for is there, and every
// cause and label value that they name is spelled as it is.
func TestContribNamesMetrics(t *testing.T) {
	names, word := metrics(t), regexp.MustCompile(`\bsluice_[a-z0-9_]+`)
	for _, file := range []string{"contrib/prometheus/sluice.rules.yml", "contrib/prometheus/sluice.rules.test.yml", "contrib/grafana/sluice.json"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		found := word.FindAllString(string(text), -1)
		if len(found) < 5 {
			t.Errorf("%s: only %d metrics", file, len(found))
		}
		for _, name := range found {
			if !names[name] {
				t.Errorf("%s: there is no metric %s", file, name)
			}
		}
	}
}

// The metrics that the page on operations names are there, too.
func TestOperationsNamesMetrics(t *testing.T) {
	names := metrics(t)
	for _, m := range observe.Metrics {
		names[m.Name] = true
	}
	for _, name := range regexp.MustCompile("`(sluice_[a-z0-9_]+)[`{]").FindAllStringSubmatch(readPage(t, operations).text, -1) {
		if !names[name[1]] && name[1] != "sluice_" {
			t.Errorf("%s: there is no metric %s", operations, name[1])
		}
	}
}

// A dashboard is JSON whose panels do not overlap.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "contrib/grafana/sluice.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			ID      int
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	type cell struct{ x, y int }
	taken, ids := map[cell]string{}, []int{}
	for _, p := range dashboard.Panels {
		if slices.Contains(ids, p.ID) || len(p.Targets) == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d, %s: %+v", p.ID, p.Title, p)
		}
		ids = append(ids, p.ID)
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := cell{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" {
					t.Fatalf("panel %q lies on %q", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
	}
	if len(dashboard.Panels) < 10 {
		t.Errorf("only %d panels", len(dashboard.Panels))
	}
}

// promtool, of Debian's package prometheus, finds nothing wrong with the rules,
// and they fire when they should. It parses what the dashboard asks, too.
func TestPromtool(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("needs promtool: apt-get install prometheus")
	}
	run := func(dir string, args ...string) {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	dir := filepath.Join(root, "contrib/prometheus")
	run(dir, "check", "rules", "sluice.rules.yml")
	run(dir, "test", "rules", "sluice.rules.test.yml")
	run(dir, "check", "config", "--syntax-only", "prometheus.yml")
	rules := dashboardAsRules(t)
	run(filepath.Dir(rules), "check", "rules", filepath.Base(rules))
}

// dashboardAsRules writes what the dashboard asks as recording rules.
func dashboardAsRules(t *testing.T) (file string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "contrib/grafana/sluice.json"))
	if err != nil {
		t.Fatal(err)
	}
	type rule struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var rules []rule
	variables := strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$job", "sluice")
	for _, m := range regexp.MustCompile(`"expr": ("(?:[^"\\]|\\.)*")`).FindAllSubmatch(text, -1) {
		var expr string
		if err := json.Unmarshal(m[1], &expr); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule{"asked", variables.Replace(expr)})
	}
	if len(rules) < 10 {
		t.Fatalf("only %d expressions", len(rules))
	}
	groups, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "dashboard", "rules": rules}}})
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "dashboard.yml") // JSON is YAML
	if err := os.WriteFile(file, groups, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
