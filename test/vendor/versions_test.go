package vendor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A plugin that was made when the protocol was of version 1 works with this runner.
func TestProtocol1(t *testing.T) {
	t.Parallel()
	built := buildProtocol1()
	if built.err != nil {
		t.Fatal(built.err)
	}
	r := report(t, built.path, "", "--only", "handshake", "--only", "data", "--only", "order", "--only", "attributes", "--only", "marks",
		"--only", "numbers", "--only", "crash", "--only", "lifeline")
	conforms(t, r)
	if r.Count("pass") < 7 {
		t.Errorf("%+v", r.Results)
	}
}

// What is too old or too new is refused with one message that has all that its
// reader needs.
func TestVersionsThatDoNotMatchAreRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"ancient": "sluice-filter-ancient speaks version 0 of the control protocol; this runner speaks version 1 and accepts version 1 alone: " +
			"rebuild the plugin with this Sluice's packages; it wrote: made in the year of version 0",
		"modern": "sluice-filter-modern speaks version 7 of the control protocol; this runner speaks version 1 and accepts version 1 alone: " +
			"update Sluice, or rebuild the plugin with this Sluice's packages; it wrote: made in the year of version 7",
		"foreign": "sluice-filter-foreign speaks version 9 of the data format; this runner speaks version 1 and accepts version 1 alone: " +
			"update Sluice, or rebuild the plugin with this Sluice's packages; it wrote: batches of version 9, as usual",
	} {
		hostile(t, "filter-"+name)
		hostile(t, "source-ticker")
		config := filepath.Join(t.TempDir(), "local.hcl")
		text := fmt.Sprintf("runner {\n  plugin_path = [%q]\n}\npipeline \"p\" {\n  source \"ticker\" {\n    unlocked = true\n  }\n  filter %q {\n    unlocked = true\n  }\n  sink \"log\" {\n    path = \"/dev/null\"\n  }\n}\n", plugins, name)
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		status, out, errs := sluice(t, "validate", "-f", config)
		errs = strings.Join(strings.Fields(errs), " ") // it is wrapped
		if status != 1 || !strings.Contains(errs, plugins) || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d %s\n%s\nwant %s", name, status, out, errs, want)
		}
		if n := strings.Count(errs, "this runner speaks"); n != 1 {
			t.Errorf("%s: %d messages", name, n)
		}
	}
}

// A plugin that describes another block than it takes is refused where the block is
// written, before anything runs.
func TestLiesAreRefused(t *testing.T) {
	t.Parallel()
	hostile(t, "filter-lies")
	config := filepath.Join(t.TempDir(), "local.hcl")
	text := fmt.Sprintf("runner {\n  plugin_path = [%q]\n}\npipeline \"p\" {\n  source \"netlink\" {}\n  filter \"lies\" {\n    unlocked = true\n    level    = 3\n  }\n  sink \"log\" {\n    path = \"/dev/null\"\n  }\n}\n", plugins)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	status, _, errs := sluice(t, "validate", "-f", config)
	if status != 1 || !strings.Contains(errs, `filter "lies"`) || !strings.Contains(errs, `There is no attribute "level" here`) {
		t.Errorf("status %d\n%s", status, errs)
	}
}
