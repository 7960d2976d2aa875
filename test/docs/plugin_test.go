package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// patience bounds waits for conditions.
const patience = 60 * time.Second

// find returns the page's first block in a language that contains a text.
func (p page) find(t *testing.T, language, contains string) string {
	t.Helper()
	for _, b := range p.blocks {
		if b.language == language && strings.Contains(b.text, contains) {
			return b.text
		}
	}
	t.Fatalf("%s has no block ```%s with %q", p.path, language, contains)
	return ""
}

// buildPlugin builds a program of the page, with further source, by the page's
// own commands and go.mod; only where Sluice is found differs.
func buildPlugin(t *testing.T, p page, dir, name string, more ...string) {
	t.Helper()
	source := t.TempDir()
	module := strings.ReplaceAll(p.find(t, "gomod", "module"), "sluice-filter-mark", name)
	module = strings.ReplaceAll(module, "../sluice", root)
	sums, err := os.ReadFile(filepath.Join(root, "go.sum")) // nothing is downloaded
	if err != nil {
		t.Fatal(err)
	}
	program := p.find(t, "go", "// S"+name[1:]+" ") + strings.Join(more, "\n")
	for file, text := range map[string]string{"go.mod": module, "go.sum": string(sums), "main.go": program} {
		if err := os.WriteFile(filepath.Join(source, file), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(p.find(t, "", "go build")) {
		line = strings.ReplaceAll(strings.ReplaceAll(line, "sluice-filter-mark", name), "/usr/lib/sluice/plugins", dir)
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir, cmd.Env = source, append(os.Environ(), "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
}

// writeConfig writes the page's pipeline, with the plugins of dir, which are locked.
func writeConfig(t *testing.T, dir, text string) string {
	t.Helper()
	path := filepath.Join(dir, "local.hcl")
	text = strings.ReplaceAll(text, "/usr/lib/sluice/plugins", dir)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := sluice("plugin", "lock", "-f", path); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// A vendor's filter is built as the page says, and its block is checked as any
// other.
func TestPluginIsBuiltAndChecked(t *testing.T) {
	p, dir := readPage(t, "docs/plugins.md"), t.TempDir()
	buildPlugin(t, p, dir, "sluice-filter-mark", p.find(t, "go", "Validate()"))
	config := p.find(t, "text", `filter "mark"`)
	if out, err := sluice("validate", "-f", writeConfig(t, dir, config)); err != nil ||
		!strings.Contains(out, "source.netlink -> cache.memory -> filter.mark -> sink.multicast") {
		t.Errorf("%v\n%s", err, out)
	}
	wrong := writeConfig(t, dir, strings.Replace(config, "value =", "valu =", 1))
	out, err := sluice("validate", "-f", wrong)
	want := p.find(t, "text", `Did you mean "value"?`)
	if out = strings.ReplaceAll(out, wrong, "local.hcl"); err == nil || !strings.Contains(out, strings.TrimSpace(want)) {
		t.Errorf("%v\n%s\nthe page says\n%s", err, out, want)
	}
	outside := writeConfig(t, dir, strings.Replace(config, "value = 7", "value = 7\n    mask = 3", 1))
	if out, err := sluice("validate", "-f", outside); err == nil || !strings.Contains(out, "No mark can be 0x7 under the mask 0x3") {
		t.Errorf("%v\n%s", err, out)
	}
	// Started by hand it says what it is for.
	hand, err := exec.Command(filepath.Join(dir, "sluice-filter-mark")).CombinedOutput()
	if err == nil || !bytes.Contains(hand, []byte("plugin_path")) {
		t.Errorf("%v: %s", err, hand)
	}
}

// The page's filter and sink work in the page's pipeline: of the flows in
// firewall 1's kernel, the peer learns of those with the mark alone, and the
// ends of flows are logged.
func TestPluginRuns(t *testing.T) {
	testbed.Require(t)
	testbed.MustLeaveNothing(t)
	p, dir := readPage(t, "docs/plugins.md"), t.TempDir()
	for _, name := range []string{"sluice-filter-mark", "sluice-sink-ended"} {
		buildPlugin(t, p, dir, name)
	}
	granted := openDir(t)
	ended := filepath.Join(granted, "ended.json")
	second := strings.Replace(p.find(t, "text", `sink "ended"`), "/var/log/sluice/flows.json", ended, 1)
	second = strings.Replace(second, "/var/log/sluice", granted, 1)
	config := p.find(t, "text", `filter "mark"`)
	config = strings.Replace(config, `"eth2"`, `"`+testbed.SyncLink+`"`, 1)
	config = strings.TrimSuffix(strings.TrimSpace(config), "}") + second + "}\n"
	socket := filepath.Join(dir, "s")
	config = strings.Replace(config, "runner {", fmt.Sprintf("runner {\n  lock_file = %q\n  control {\n    path = %q\n  }",
		filepath.Join(dir, "lock"), socket), 1)

	pair := testbed.MustPair(t, testbed.FirewallConfig{})
	peer := node.Must(t, binary, pair.FW2, "fw2", node.Pipelines(nil))
	run, err := pair.FW1.Start(exec.Command(binary, "run", "-f", writeConfig(t, dir, config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("it wrote:\n%s", run.Output())
		}
		run.Close()
	})
	if err := run.AwaitOutput(patience, "all stages run"); err != nil {
		t.Fatal(err)
	}

	const each = 200
	marked := testbed.Synthetic{Mark: 7, Timeout: 600}
	other := testbed.Synthetic{Mark: 5, Timeout: 600, UDP: true}
	pair.FW1.MustInject(t, each, marked)
	pair.FW1.MustInject(t, each, other)
	testbed.Eventually(t, patience, arrived(control.NewClient(socket), "local.filter.mark", 2*each))
	// Nothing else comes: the whole of it has passed both, and the peer has what
	// the filter let through.
	testbed.Eventually(t, patience, func() error {
		got, err := peer.Table("peers")
		if err != nil {
			return err
		}
		return testbed.Comparison{}.Same(marked.Table(0, each), got)
	})
	injector, err := testbed.NewInjector(pair.FW1.Namespace, marked)
	if err != nil {
		t.Fatal(err)
	}
	defer injector.Close()
	if err := injector.Delete(0, each); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, func() error {
		if n, err := logged(ended); err != nil || n != each {
			return fmt.Errorf("%d lines: %v", n, err)
		}
		return nil
	})
	checkStatistics(t, control.NewClient(socket), peer.Client())
	if out, err := sluice("stop", "--socket", socket); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// arrived is a condition: a stage has got that many events.
func arrived(c *control.Client, address string, events uint64) func() error {
	return func() error {
		status, err := c.Status(contextOf(patience))
		if err != nil {
			return err
		}
		for _, p := range status.Pipelines {
			for _, s := range p.Stages {
				if s.Address == address && s.EventsIn < events {
					return fmt.Errorf("%s got %d events", address, s.EventsIn)
				}
			}
		}
		return nil
	}
}

// logged counts the objects in the sink's file; each must be a flow's end.
func logged(path string) (n int, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	for decoder := json.NewDecoder(file); ; n++ {
		var v flow.View
		switch err := decoder.Decode(&v); {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		case v.Kind != "destroy" || v.Protocol != "tcp":
			return n, fmt.Errorf("a line about %+v", v)
		}
	}
}

// openDir returns a directory that every user can enter and write, as one would
// be that belongs to a plugin's user.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sluice-granted")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}
