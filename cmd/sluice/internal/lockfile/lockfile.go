// Package lockfile keeps a second runner from starting beside the first, which
// would make two writers to one kernel's table and two senders under one name.
//
// The lock is flock(2) on a file that holds the runner's process id. The kernel
// lets go of it when the process ends, however it ends, so there is never a
// stale one; the file itself stays, since removing it would let a third runner
// lock another file of the same name.
package lockfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrLocked is wrapped by the error that says that another runner runs.
var ErrLocked = errors.New("another runner runs")

// A Lock is held until it is released or the process ends.
type Lock struct{ file *os.File }

// Acquire takes the lock at path, and makes its directory if it is missing. It
// does not wait.
func Acquire(path string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == unix.EWOULDBLOCK {
		err = locked(f)
	}
	if err == nil {
		err = writePID(f)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock file %s: %w", path, err)
	}
	return &Lock{f}, nil
}

// locked says who holds the lock.
func locked(f *os.File) error {
	text, err := io.ReadAll(io.LimitReader(f, 32))
	pid := strings.TrimSpace(string(text))
	if err != nil || pid == "" {
		return ErrLocked
	}
	return fmt.Errorf("%w: process %s; end it with `sluice stop`, or give this one a lock_file and a socket of its own", ErrLocked, pid)
}

func writePID(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Release lets go of the lock.
func (l *Lock) Release() {
	_ = l.file.Truncate(0)
	l.file.Close()
}
