package vendor

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
)

// copyOf puts a hostile plugin, with bytes of its own at the end, into a folder, as
// an installation does: under another name first.
func copyOf(t *testing.T, name, dir, end string) {
	t.Helper()
	text, err := os.ReadFile(hostile(t, name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sluice-"+name)
	if err := os.WriteFile(path+".new", append(text, end...), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// What runs is what the lock file names, whatever lies on the disk: after a crash and
// after a reload that is refused, too. A reload with another lock goes over to
// another program.
func TestOnlyLockedBytesRun(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	copyOf(t, "source-ticker", dir, "one")
	file := pipelineFile(t, dir, dir, `"ticker" {}`, `filter "basic" {}`)
	lock(t, file)
	run(t, file)
	socket := filepath.Join(dir, "s")
	client := control.NewClient(socket)
	plugin := filepath.Join(dir, "sluice-source-ticker")
	old := sumOf(t, plugin)
	first := runsBytes(t, client, 0, old)
	status, out, errs := sluice(t, "status", "--socket", socket)
	if status != 0 || !strings.Contains(out, "\n    locked: "+old[:12]+"\n") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}

	copyOf(t, "source-ticker", dir, "two")
	if err := unix.Kill(first, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second := runsBytes(t, client, first, old)
	for _, args := range [][]string{
		{"reload", "--socket", socket}, {"plan", "--socket", socket}, {"plan", "--socket", socket, "-f", file}, {"validate", "-f", file}, {"plugin", "verify", "-f", file},
	} {
		status, out, errs := sluice(t, args...)
		if status != 1 || !strings.Contains(out+errs, plugin+" has the SHA-256 "+sumOf(t, plugin)+", but "+filepath.Join(dir, "sluice.lock.hcl")+" line 4 says "+old) {
			t.Errorf("%v: status %d\n%s%s", args, status, out, errs)
		}
	}
	if pid := runsBytes(t, client, 0, old); pid != second {
		t.Errorf("a reload that was refused changed process %d to %d", second, pid)
	}

	lock(t, file)
	if status, out, errs := sluice(t, "reload", "--socket", socket); status != 0 {
		t.Fatalf("reload: status %d\n%s%s", status, out, errs)
	}
	runsBytes(t, client, second, sumOf(t, plugin))

	if err := os.Remove(plugin); err != nil {
		t.Fatal(err)
	}
	status, out, errs = sluice(t, "plugin", "verify", "-f", file)
	if status != 1 || !strings.HasPrefix(out, "missing  source-ticker  There is no executable sluice-source-ticker in "+dir) {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
}

// runsBytes waits until the source's process is another one and runs, and checks what
// it executes.
func runsBytes(t *testing.T, client *control.Client, not int, sum string) (pid int) {
	t.Helper()
	await(t, func() error {
		stages, err := stagesOf(client)
		s := stages["one.source.ticker"]
		if pid = s.PID; err != nil || pid == 0 || pid == not || s.State != "running" {
			return errors.Join(err, fmt.Errorf("process %d, %s: %s", pid, s.State, s.LastError))
		}
		return nil
	})
	if runs := sumOf(t, fmt.Sprintf("/proc/%d/exe", pid)); runs != sum {
		t.Errorf("process %d executes %s, not %s", pid, runs, sum)
	}
	return pid
}

// What is not locked is not executed, not even to be asked, and whoever meets that is
// told what to do.
func TestUnlockedProgramsAreNotExecuted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	script := filepath.Join(dir, "sluice-filter-script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho it was executed >&2\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	file := pipelineFile(t, dir, dir, `"netlink" {}`, `filter "script" {}`)
	validate := func(want ...string) {
		t.Helper()
		status, _, errs := sluice(t, "validate", "-f", file)
		for _, text := range want {
			if errs := strings.Join(strings.Fields(errs), " "); status != 1 || !strings.Contains(errs, text) {
				t.Errorf("status %d\n%s\nwant %q", status, errs, text)
			}
		}
		if executed := strings.Contains(errs, "it was executed"); executed != (len(want) == 1) {
			t.Errorf("executed: %v\n%s", executed, errs)
		}
	}
	lockFile := filepath.Join(dir, "sluice.lock.hcl")
	validate("on "+file+" line 10", "there is no lock file "+lockFile, "sluice plugin lock -f "+file, "unlocked = true")
	for _, command := range [][]string{{"run", "-f", file}, {"graph", "-f", file}} {
		if status, _, errs := sluice(t, command...); status != 1 || !strings.Contains(errs, "Plugin not locked") {
			t.Errorf("%v: status %d\n%s", command, status, errs)
		}
	}
	if err := os.WriteFile(lockFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	validate("the lock file "+lockFile+" does not name filter-script", "sluice plugin lock -f "+file)
	if err := os.WriteFile(lockFile, []byte("plugin \"filter-script\" {\n  sha256 = \"12\"\n}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	validate("on "+lockFile+" line 1", "64 hexadecimal digits")
	if status, _, errs := sluice(t, "plugin", "lock", "-f", file); status != 1 || !strings.Contains(errs, "64 hexadecimal digits") {
		t.Errorf("status %d\n%s", status, errs)
	}
	if err := os.Remove(lockFile); err != nil {
		t.Fatal(err)
	}
	lock(t, file)
	validate("it was executed")
}

// A stage that says so runs what lies there, and its start is a warning.
func TestUnlockedIsAWarning(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	hostile(t, "source-ticker")
	file := pipelineFile(t, dir, plugins, "\"ticker\" {\n    unlocked = true\n  }", `filter "basic" {}`)
	log := run(t, file)
	if text := log(); !strings.Contains(text, "level=WARN msg=\"a vendor's program is executed that no lock file vouches for: the stage says unlocked = true\" stage=one.source.ticker path="+
		filepath.Join(plugins, "sluice-source-ticker")+" sha256="+sumOf(t, hostile(t, "source-ticker"))) {
		t.Error(text)
	}
	if status, out, errs := sluice(t, "status", "--socket", filepath.Join(dir, "s")); status != 0 ||
		!strings.Contains(out, "\n    unlocked: "+sumOf(t, hostile(t, "source-ticker"))[:12]+" of "+filepath.Join(plugins, "sluice-source-ticker")+"\n") {
		t.Errorf("status %d\n%s%s", status, out, errs)
	}
	if _, err := os.Stat(filepath.Join(dir, "sluice.lock.hcl")); err == nil {
		t.Error("there is a lock file")
	}
	bundled := pipelineFile(t, t.TempDir(), plugins, "\"netlink\" {\n    unlocked = true\n  }", `filter "basic" {}`)
	if status, _, errs := sluice(t, "validate", "-f", bundled); status != 1 || !strings.Contains(errs, "Bundled plugin unlocked") {
		t.Errorf("status %d\n%s", status, errs)
	}
}

// With keys in the runner block only what one of them has signed runs.
func TestLockKeysDemandSignatures(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed")
	}
	dir := t.TempDir()
	keys := map[string]string{}
	for _, name := range []string{"good", "bad"} {
		path := filepath.Join(dir, name)
		if out, err := exec.Command("openssl", "genpkey", "-algorithm", "ed25519", "-out", path).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		public, err := exec.Command("openssl", "pkey", "-in", path, "-pubout").Output()
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = strings.Split(string(public), "\n")[1]
	}
	hostile(t, "source-ticker")
	file := pipelineFile(t, dir, plugins, `"ticker" {}`, `filter "basic" {}`)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte("runner {"), fmt.Appendf(nil, "runner {\n  plugin_lock = %q\n  lock_keys = [%q]", filepath.Join(dir, "other.lock.hcl"), keys["good"]), 1)
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args         []string
		state, warns string
	}{
		{nil, "not signed", "a runner refuses it because of lock_keys"},
		{[]string{"-key", filepath.Join(dir, "bad")}, "bad signature", "a runner refuses it because of lock_keys"},
		{[]string{"-key", filepath.Join(dir, "good")}, "signed", ""},
		{nil, "signed", ""}, // the signature is kept
	} {
		status, out, errs := sluice(t, append([]string{"plugin", "lock", "-f", file}, c.args...)...)
		if status != 0 || !strings.Contains(errs, c.warns) || c.warns == "" && errs != "" {
			t.Errorf("lock %v: status %d\n%s%s", c.args, status, out, errs)
		}
		good := c.state == "signed"
		if status, out, errs := sluice(t, "validate", "-f", file); (status == 0) != good || strings.Contains(errs, "--key FILE -f "+file) == good {
			t.Errorf("validate after lock %v: status %d\n%s%s", c.args, status, out, errs)
		}
		status, out, _ = sluice(t, "plugin", "verify", "-f", file, "-o", "json")
		var v struct {
			Valid   bool
			Plugins []struct{ Name, Lock, Detail, SHA256 string }
		}
		if err := json.Unmarshal([]byte(out), &v); err != nil || (status == 0) != good || v.Valid != good || len(v.Plugins) != 1 || v.Plugins[0].Lock != c.state {
			t.Errorf("verify after lock %v: status %d, %v\n%s", c.args, status, err, out)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "other.lock.hcl")); err != nil {
		t.Error(err)
	}
}
