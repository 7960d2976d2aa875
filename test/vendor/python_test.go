package vendor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/control"
)

// The example in Python runs as one file, confined as a vendor's plugins are, and
// data passes it.
func TestPythonRunsConfined(t *testing.T) {
	t.Parallel()
	grpcio(t)
	pythonFilter(t)
	hostile(t, "source-ticker")
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	file := pipelineFile(t, dir, plugins, `"ticker" {}`, `filter "ports" {
    accept = [443]
  }`)
	lock(t, file)
	run(t, file)
	client := control.NewClient(socket)
	await(t, func() error {
		stages, err := stagesOf(client)
		if err != nil {
			return err
		}
		if stages["one.sink.log"].EventsIn == 0 {
			return errors.New("nothing passes the filter in Python")
		}
		if may := stages["one.filter.ports"].May; may == nil || !may.NoNewPrivileges || may.Network {
			t.Errorf("it is not confined: %+v", may)
		}
		return nil
	})
}

const portsTest = `test "https passes" {
  stage = "one.filter.ports"
  input {
    events = "tcp src=10.0.0.1 dst=192.0.2.1 sport=1 dport=443\ntcp src=10.0.0.2 dst=192.0.2.1 sport=1 dport=80"
  }
  expect {
    events = "src=10.0.0.1"
  }
}
`

// A vendor's plugin is tested as others are, and what is not locked is not executed.
func TestPythonInSluiceTest(t *testing.T) {
	t.Parallel()
	grpcio(t)
	pythonFilter(t)
	dir := t.TempDir()
	file := pipelineFile(t, dir, plugins, `"netlink" {}`, `filter "ports" {
    accept = [443]
  }`)
	if err := os.WriteFile(filepath.Join(dir, "one.test.hcl"), []byte(portsTest), 0o644); err != nil {
		t.Fatal(err)
	}
	if status, out, errs := sluice(t, "test", dir); status == 0 || !strings.Contains(out+errs, "there is no lock file") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	lock(t, file)
	if status, out, errs := sluice(t, "test", dir); status != 0 || !strings.Contains(out, "1 test passed, 0 failed") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

// pipelineFile writes a pipeline of a source, a filter and a sink, whose
// runner's socket is s.
func pipelineFile(t *testing.T, dir, pluginPath, source, filter string) string {
	t.Helper()
	file := filepath.Join(dir, "one.hcl")
	text := fmt.Sprintf("runner {\n  plugin_path = [%q]\n  lock_file = %q\n  control {\n    path = %q\n  }\n}\n",
		pluginPath, filepath.Join(dir, "lock"), filepath.Join(dir, "s"))
	text += "pipeline \"one\" {\n  source " + source + "\n  " + filter + "\n  sink \"log\" {\n    path = \"/dev/null\"\n  }\n}\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// Whoever puts a script with modules beside it into a folder of plugins is told what
// to do.
func TestScriptWithModulesBesideItIsToldSo(t *testing.T) {
	t.Parallel()
	grpcio(t)
	dir := t.TempDir()
	for _, name := range []string{"__main__.py", "sluice_stage.py", "stage_pb2.py"} {
		text, err := os.ReadFile(filepath.Join(root, "examples/filter-python/ports", name))
		if err != nil {
			t.Fatal(err)
		}
		if name == "__main__.py" {
			name, text = "sluice-filter-ports", append([]byte("#!/usr/bin/python3\n"), text...)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := pipelineFile(t, dir, dir, `"netlink" {}`, `filter "ports" {
    accept = [443]
  }`)
	lock(t, file)
	status, _, errs := sluice(t, "validate", "-f", file)
	if status == 0 || !strings.Contains(errs, "No module named 'sluice_stage'") || !strings.Contains(errs, "pack what lies beside it into it") {
		t.Errorf("status %d\n%s", status, errs)
	}
}
