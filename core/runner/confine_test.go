package runner

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
)

var hostileDefinition = plugin.Definition{Kind: plugin.KindFilter, Type: "hostile", Config: func() any { return &hostile{} }}

// hostile is a vendor's plugin that tries what it should not, and tells.
type hostile struct {
	Secret string `hcl:"secret"`
	Victim int    `hcl:"victim"`
}

func (h *hostile) Open(_ context.Context, host plugin.Host) error {
	try := func(what string, err error) { host.Logger().Info("tried", "what", what, "worked", err == nil) }
	_, err := os.ReadFile(h.Secret)
	try("file", err)
	_, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	try("socket", err)
	_, err = os.Open(fmt.Sprintf("/proc/%d/mem", h.Victim))
	try("memory", err)
	try("trace", unix.PtraceAttach(h.Victim))
	try("signal", unix.Kill(h.Victim, unix.SIGKILL))
	try("fork", exec.Command("/bin/true").Run())
	try("environment", func() error {
		if os.Getenv("SLUICE_TEST_SECRET") == "" {
			return os.ErrNotExist
		}
		return nil
	}())
	return nil
}

func (h *hostile) Filter(*flow.Event) plugin.Verdict { return plugin.Pass }

// copyTo copies the test's own executable.
func copyTo(t *testing.T, path string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestHostilePluginIsContained(t *testing.T) {
	if confine.LandlockVersion() == 0 || !confine.SeccompSupported() {
		t.Skip("the kernel lacks Landlock or seccomp")
	}
	t.Setenv("SLUICE_TEST_SECRET", "it")
	dir := t.TempDir()
	copyTo(t, filepath.Join(dir, "sluice-filter-hostile"))
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	victim := exec.Command("sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { victim.Process.Kill(); victim.Wait() })
	stages := usual(filepath.Join(dir, "out"), object{"flows": 4})
	stages[1] = stageOf(plugin.KindFilter, "hostile", object{"secret": secret, "victim": victim.Process.Pid}, nil)
	stages[1].Unlocked = true
	tr := &testRunner{t: t, log: &lockedBuffer{}}
	r, err := New(Options{
		Config:  &pipeline.Configuration{Runner: pipeline.Runner{Name: "node"}, Pipelines: []*pipeline.Pipeline{{Name: "p", Stages: stages}}},
		Plugins: Plugins{Bundled: bundledNames(), Path: []string{dir}}, Log: slog.New(slog.NewTextHandler(tr.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var may []string
	err = r.Run(ctx, func() {
		p := r.graph().stages[1].status().May
		may = append(may, fmt.Sprint(p.NoNewPrivileges, p.Seccomp, p.Network, p.Capabilities, p.Write))
		cancel()
	})
	if err != nil {
		t.Errorf("run: %v", err)
	}
	if want := []string{"true true false [] []"}; !slices.Equal(may, want) {
		t.Errorf("status says %q, not %q", may, want)
	}
	log := tr.log.String()
	for _, what := range []string{"file", "socket", "memory", "trace", "signal", "fork", "environment"} {
		if !strings.Contains(log, "what="+what) || strings.Contains(lineWith(log, "what="+what), "worked=true") {
			t.Errorf("%s: %q", what, lineWith(log, "what="+what))
		}
	}
	if t.Failed() {
		t.Log(log)
	}
}

func lineWith(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

func TestWhatTheKernelLacksIsOneLine(t *testing.T) {
	for _, c := range []struct {
		landlock int
		seccomp  bool
		want     string
	}{
		{1, true, ""},
		{0, true, `lacks=Landlock stages_can="open what files their users may"`},
		{6, false, `lacks="a seccomp filter" stages_can="make any system call, sockets included"`},
		{0, false, `lacks="Landlock, a seccomp filter"`},
	} {
		var log bytes.Buffer
		tellLacks(slog.New(slog.NewTextHandler(&log, nil)), c.landlock, c.seccomp)
		if got := log.String(); !strings.Contains(got, c.want) || strings.Count(got, "level=WARN") != min(len(c.want), 1) {
			t.Errorf("%+v: %q, want %q", c, got, c.want)
		}
	}
}
