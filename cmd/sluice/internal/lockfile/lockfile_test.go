package lockfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAcquire(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "lock")
	first, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Acquire(path)
	if want := fmt.Sprintf("lock file %s: another runner runs: process %d;", path, os.Getpid()); !errors.Is(err, ErrLocked) || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	first.Release()
	again, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Release()
}

// A process id that is longer than ours leaves no digits behind.
func TestAcquireLeftOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, []byte("12345678901234567890\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Release()
	if got, _ := os.ReadFile(path); string(got) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("got %q", got)
	}
}

func TestAcquireErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Acquire(dir); err == nil || errors.Is(err, ErrLocked) {
		t.Errorf("a directory: %v", err)
	}
	if _, err := Acquire("/dev/null/lock"); err == nil || !strings.HasPrefix(err.Error(), "lock file: ") {
		t.Errorf("under a file: %v", err)
	}
}
