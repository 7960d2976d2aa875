package lockfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

var ways = map[string]func(string) (*Lock, error){"alone": Acquire, "beside conntrackd": AcquireBesideConntrackd}

func TestAcquire(t *testing.T) {
	for name, acquire := range ways {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "new", "lock")
			first, err := acquire(path)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(path); string(got) != fmt.Sprintln(os.Getpid()) {
				t.Errorf("it holds %q", got)
			}
			for _, acquire := range ways {
				_, err = acquire(path)
				if want := fmt.Sprintf("lock file %s: another runner runs: process %d;", path, os.Getpid()); !errors.Is(err, ErrLocked) || !strings.HasPrefix(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
			}
			first.Release()
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			again, err := acquire(path)
			if err != nil {
				t.Fatal(err)
			}
			again.Release()
		})
	}
}

// What a runner has left that crashed keeps nobody out; a process id that is
// longer than ours leaves no digits behind.
func TestAcquireLeftOver(t *testing.T) {
	for name, acquire := range ways {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "lock")
			if err := os.WriteFile(path, []byte("12345678901234567890\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := acquire(path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Release()
			if got, _ := os.ReadFile(path); string(got) != fmt.Sprintln(os.Getpid()) {
				t.Errorf("got %q", got)
			}
		})
	}
}

// An empty file is conntrackd's lock.
func TestAcquireEmpty(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := AcquireBesideConntrackd(path); !errors.Is(err, ErrLocked) {
		t.Errorf("beside conntrackd: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	l, err := Acquire(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
}

// Of many at once one has the lock, from the first one on, whatever is there
// before and while the lock goes from one to the next.
func TestAcquireAtOnce(t *testing.T) {
	for name, acquire := range ways {
		for _, left := range []string{"", "4711\n"} {
			t.Run(fmt.Sprintf("%s, %q", name, left), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "lock")
				if left != "" {
					if err := os.WriteFile(path, []byte(left), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				var holders, won atomic.Int32
				var all sync.WaitGroup
				start := make(chan struct{})
				for range 8 {
					all.Go(func() {
						<-start
						for range 200 {
							l, err := acquire(path)
							if err != nil {
								if !errors.Is(err, ErrLocked) {
									t.Error(err)
								}
								continue
							}
							won.Add(1)
							if n := holders.Add(1); n != 1 {
								t.Errorf("%d hold it", n)
							}
							holders.Add(-1)
							l.Release()
						}
					})
				}
				close(start)
				all.Wait()
				if won.Load() == 0 {
					t.Error("nobody had it")
				}
			})
		}
	}
}

func TestAcquireErrors(t *testing.T) {
	dir := t.TempDir()
	other, link := filepath.Join(dir, "other"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(other, []byte("precious"), 0o600), os.Symlink(other, link)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:              "lock file " + dir + ": it is a directory: name a file",
		"/dev/null/lock": "lock file: mkdir /dev/null: not a directory",
		"/dev/null":      "lock file /dev/null: it is no regular file, but Dc---------",
		other:            "lock file " + other + `: it holds "precious", and no process id: it is no lock file`,
		link:             "lock file " + link + ": it is no regular file, but L---------",
	} {
		for name, acquire := range ways {
			if _, err := acquire(path); err == nil || err.Error() != want {
				t.Errorf("%s: got %v, want %s", name, err, want)
			}
		}
	}
	if got, _ := os.ReadFile(other); string(got) != "precious" {
		t.Errorf("it holds %q now", got)
	}
}
