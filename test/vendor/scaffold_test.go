package vendor

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each kind's scaffold builds, passes its own tests, conforms, and its pipeline
// is valid, all as it was made. (The filter's is built by the guide's test.)
func TestScaffolds(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"source", "cache", "sink"} {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "new")
			status, out, errs := sluice(t, "plugin", "init", kind, "fresh", "--dir", dir, "-sdk", root)
			if status != 0 || !strings.Contains(out, "next: cd "+dir+" && make build test") {
				t.Fatalf("status %d\n%s%s", status, out, errs)
			}
			make := exec.Command("make", "build", "test")
			make.Dir = dir
			make.Env = append(os.Environ(), "GOWORK=off", "GOPROXY=off", "GOFLAGS=-mod=readonly")
			if out, err := make.CombinedOutput(); err != nil {
				t.Fatalf("make build test: %v\n%s", err, out)
			}
			block, err := os.ReadFile(filepath.Join(dir, "check.hcl"))
			if err != nil {
				t.Fatal(err)
			}
			r := report(t, filepath.Join(dir, "sluice-"+kind+"-fresh"), string(block), "--only", "handshake", "--only", "data", "--only", "source")
			conforms(t, r)
			validate := exec.Command(binary, "validate", "-f", "pipeline.hcl")
			validate.Dir = dir
			if out, err := validate.CombinedOutput(); err != nil || !strings.Contains(string(out), kind+".fresh") {
				t.Errorf("%v\n%s", err, out)
			}
			if status, out, errs := sluice(t, "plugin", "verify", "-f", filepath.Join(dir, "pipeline.hcl")); status != 0 || !strings.HasPrefix(out, "unlocked") {
				t.Errorf("status %d\n%s%s", status, out, errs)
			}
		})
	}
}

func TestInitRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"filter"}, 2, "name a kind (source, filter, cache or sink) and a name"},
		{[]string{"sieve", "x"}, 2, `there is no kind "sieve"`},
		{[]string{"filter", "My Mark"}, 2, "as in my-mark"},
		{[]string{"filter", "basic"}, 2, "there is a bundled filter"},
		{[]string{"filter", "mark", "--dir", dir}, 1, "is there already and not empty"},
		{[]string{"filter", "mark", "--dir", filepath.Join(dir, "new"), "--sdk", dir}, 1, "is no checkout of Sluice"},
	} {
		status, _, errs := sluice(t, append([]string{"plugin", "init"}, c.args...)...)
		if status != c.status || !strings.Contains(errs, c.want) {
			t.Errorf("%v: status %d\n%s\nwant %d, %q", c.args, status, errs, c.status, c.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("a folder is left of an init that failed")
	}
}
