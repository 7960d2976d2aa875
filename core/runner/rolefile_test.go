package runner

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
)

// withRole returns a runner, that need not run, with a role file.
func withRole(t *testing.T, path string) (*Runner, *lockedBuffer) {
	t.Helper()
	log := &lockedBuffer{}
	r, err := New(Options{
		Config:  &pipeline.Configuration{Runner: pipeline.Runner{Name: "node"}},
		Plugins: Plugins{Bundled: bundledNames()}, Log: slog.New(slog.NewTextHandler(log, nil)), RoleFile: path,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	r.ready.Store(true)
	return r, log
}

// The role that a node was given last is that of the next life too, and so is
// whether it carries the flows; but not after a boot.
func TestRoleIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "role")
	for _, c := range []struct {
		command string
		targets []string
		role    string
		carries bool
	}{
		{"role", []string{"primary"}, "primary", true},
		{"purge", nil, "primary", false},
		{"commit", nil, "primary", true},
		{"role", []string{"backup"}, "backup", false},
	} {
		r, _ := withRole(t, path)
		_ = r.Do(t.Context(), control.Request{Command: c.command, Targets: c.targets}, func(control.Step) {})
		next, log := withRole(t, path)
		if next.role.get() != c.role || next.role.carries() != c.carries {
			t.Errorf("after %s %v: %q, carries %v", c.command, c.targets, next.role.get(), next.role.carries())
		}
		if !strings.Contains(log.String(), "role kept from before the start") {
			t.Errorf("log: %s", log)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"another boot": strings.Replace(string(text), bootID(), "another", 1), "nonsense": "{", "no role": `{"role":"king"}`,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		r, log := withRole(t, path)
		if r.role.get() != "" || r.role.carries() {
			t.Errorf("%s: %q", name, r.role.get())
		}
		if warned := strings.Contains(log.String(), "level=WARN"); warned != (name != "another boot") {
			t.Errorf("%s: log: %s", name, log)
		}
	}
}
