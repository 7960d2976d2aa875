package vendor

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/plugintest/kit"
)

// report has the kit check a plugin and returns the report, whose verdict must be
// the exit status's.
func report(t *testing.T, plugin, block string, args ...string) kit.Report {
	t.Helper()
	if block != "" {
		args = append(args, "--config", blockFile(t, block))
	}
	status, out, errs := sluice(t, append([]string{"plugin", "check", plugin, "-o", "json"}, args...)...)
	var r kit.Report
	if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.Results) == 0 {
		t.Fatalf("status %d, %v\n%s%s", status, err, out, errs)
	}
	if r.Conforms != (status == 0) || status > 1 {
		t.Errorf("status %d, conforms: %v", status, r.Conforms)
	}
	return r
}

func blockFile(t *testing.T, block string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "block.hcl")
	if err := os.WriteFile(path, []byte(block), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// conforms fails the test for each check that a plugin fails, and for checks that
// were skipped but for those named.
func conforms(t *testing.T, r kit.Report, skipped ...string) {
	t.Helper()
	for _, one := range r.Results {
		switch {
		case one.Outcome == kit.Failed:
			t.Errorf("%s: %s: %s", r.Name, one.Name, one.Detail)
		case one.Outcome == kit.Skipped && !slices.Contains(skipped, one.Name):
			t.Errorf("%s: %s is skipped: %s", r.Name, one.Name, one.Detail)
		}
	}
}

func TestBundledPluginsConform(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		plugin, block string
		skipped       []string
	}{
		{"filter-basic", "", nil},
		{"filter-basic", "protocol {\n  accept = [\"tcp\", \"sctp\"]\n}\nstate {\n  accept = [\"ESTABLISHED\"]\n}\n", []string{"backpressure", "fan-out"}},
		{"cache-memory", "", []string{"hold"}},
		{"cache-memory", "hold = true", []string{"backpressure", "fan-out"}},
		{"sink-log", `path = "/dev/null"`, nil},
	} {
		conforms(t, report(t, c.plugin, c.block), c.skipped...)
	}
}

func TestExamplesConform(t *testing.T) {
	t.Parallel()
	t.Run("Python", func(t *testing.T) {
		t.Parallel()
		grpcio(t)
		conforms(t, report(t, pythonFilter(t), "accept = [80, 443, 22]"))
	})
	t.Run("Go", func(t *testing.T) {
		t.Parallel()
		built := build(root, "-o", filepath.Join(plugins, "sluice-filter-markmask"), "./examples/filter-go")
		if built.err != nil {
			t.Fatal(built.err)
		}
		conforms(t, report(t, built.path, "keep = 3"))
	})
}

// The kit says of each hostile plugin what is wrong with it, and of which check.
func TestHostilePluginsAreFound(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct{ check, detail string }{
		"hangs":       {"data", "it counted 0 of"},
		"frozen":      {"", "within"}, // whatever is checked half a second after its start
		"crashes":     {"data", "no memory of what happened"},
		"floods-log":  {"log", "more than a runner takes"},
		"floods-data": {"data", "what it was never given"},
		"lies":        {"schema", "otherwise when asked again"},
		"malformed":   {"data", "is none: malformed batch"},
		"deaf":        {"data", "it counted 0 of"},
		"greedy":      {"memory", "its memory grew"},
		"silent":      {"handshake", "it wrote: the licence has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := report(t, hostile(t, "filter-"+name), "", "--patience", "5s")
			i := slices.IndexFunc(r.Results, func(one kit.Result) bool { return one.Outcome == kit.Failed })
			if i < 0 {
				t.Fatalf("nothing is wrong: %+v", r.Results)
			}
			if first := r.Results[i]; want.check != "" && first.Name != want.check || !strings.Contains(first.Detail, want.detail) {
				t.Errorf("the first check that fails is %s: %s\nwant %s: … %s …", first.Name, first.Detail, want.check, want.detail)
			}
		})
	}
}

func TestReportForPeopleAndForMachines(t *testing.T) {
	t.Parallel()
	junit := filepath.Join(t.TempDir(), "report.xml")
	status, out, errs := sluice(t, "plugin", "check", hostile(t, "filter-silent"), "-junit", junit)
	if status != 1 || errs != "" || !strings.Contains(out, "FAIL  handshake") ||
		!strings.Contains(out, "sluice-filter-silent does not conform: 0 passed, 1 failed, 0 skipped") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	text, err := os.ReadFile(junit)
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Failures int `xml:"failures,attr"`
		Cases    []struct {
			Failure struct {
				Message string `xml:"message,attr"`
			} `xml:"failure"`
		} `xml:"testcase"`
	}
	if err := xml.Unmarshal(text, &suite); err != nil || suite.Failures != 1 || !strings.Contains(suite.Cases[0].Failure.Message, "licence") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestWhatCanNotBeChecked(t *testing.T) {
	t.Parallel()
	nameless := filepath.Join(t.TempDir(), "filter")
	plain := filepath.Join(t.TempDir(), "sluice-filter-plain")
	for _, path := range []string{nameless, plain} {
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{}, "name a plugin's executable"},
		{[]string{nameless}, "is named sluice-KIND-TYPE"},
		{[]string{filepath.Join(plugins, "sluice-filter-none")}, "no such file"},
		{[]string{plain}, "is no executable file"},
		{[]string{"filter-basic", "--only", "magic"}, `there is no check "magic"`},
		{[]string{"filter-basic", "--config", plain + "x"}, "no such file"},
		{[]string{"filter-basic", "--config", blockFile(t, "nonsense {}")}, `Blocks of type "nonsense" are not expected here`},
		{[]string{"sink-multicast"}, "needs a configuration"},
		{[]string{"sink-kernel"}, "--kernel"},
	} {
		if status, _, errs := sluice(t, append([]string{"plugin", "check"}, c.args...)...); status != 2 || !strings.Contains(errs, c.want) {
			t.Errorf("%v: status %d\n%s\nwant %q", c.args, status, errs, c.want)
		}
	}
}
