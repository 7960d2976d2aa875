// Package lockfile keeps a second runner from starting beside the first, which
// would make two writers to one kernel's table and two senders under one name.
//
// Two locks are one here. The first is flock(2) on a file that holds the
// runner's process id: the kernel lets go of it when the process ends, however
// it ends, so a file that is left behind keeps nobody out. The second is that the
// file is there, which is conntrackd's lock: it makes an empty file and removes
// it at its end. So the file appears under its name with the process id in it
// and the lock held, at once (link(2)), and its holder removes it at the end.
//
// It does not tell a conntrackd that runs from one that crashed: nobody can.
package lockfile

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// ErrLocked is wrapped by the error that says that another runner runs.
var ErrLocked = errors.New("another runner runs")

// A Lock is held until it is released or the process ends.
type Lock struct {
	path string
	file *os.File
}

// Acquire takes the lock at path, and makes its directory if it is missing. It
// does not wait. An empty file that nobody holds is taken.
func Acquire(path string) (*Lock, error) { return acquire(path, false) }

// AcquireBesideConntrackd is Acquire where an empty file says that a conntrackd
// runs: then the error wraps ErrLocked.
func AcquireBesideConntrackd(path string) (*Lock, error) { return acquire(path, true) }

// tries bounds how often a file may vanish, or come to be, between two looks.
const tries = 100

func acquire(path string, conntrackd bool) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("lock file: %w", err)
	}
	for range tries {
		f, err := takeOver(path, conntrackd)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = create(path)
		}
		switch {
		case err == nil:
			return &Lock{path, f}, nil
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist):
			return nil, fmt.Errorf("lock file %s: %w", path, err)
		}
	}
	return nil, fmt.Errorf("lock file %s: it comes and goes", path)
}

// takeOver locks the file that is there.
func takeOver(path string, conntrackd bool) (*os.File, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := hold(f, path, conntrackd); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// hold locks an open file and makes it ours.
func hold(f *os.File, path string, conntrackd bool) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	text, readErr := io.ReadAll(io.LimitReader(f, 64))
	pid := bytes.TrimSpace(text)
	switch {
	case err == unix.EWOULDBLOCK:
		return locked(pid)
	case err != nil || readErr != nil:
		return errors.Join(err, readErr)
	case len(bytes.Trim(pid, "0123456789\n")) > 0:
		return fmt.Errorf("it holds %.20q, and no process id: it is no lock file", pid)
	case len(text) == 0 && conntrackd:
		return fmt.Errorf("%w, or a conntrackd does: the file is there", ErrLocked)
	case !same(path, f): // who held it has removed it meanwhile
		return fs.ErrNotExist
	}
	return writePID(f)
}

func open(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a directory: name a file")
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("it is no regular file, but %v", info.Mode().Type())
	}
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) { // the path is said already
		err = pathErr.Err
	}
	return f, err
}

// locked says who holds the lock.
func locked(pid []byte) error {
	if len(pid) == 0 {
		return ErrLocked
	}
	return fmt.Errorf("%w: process %s; end it with `sluice stop`, or give this one a lock_file and a socket of its own", ErrLocked, pid)
}

// same says whether the name leads to the file.
func same(path string, f *os.File) bool {
	named, err := os.Lstat(path)
	if err != nil {
		return false
	}
	info, err := f.Stat()
	return err == nil && os.SameFile(named, info)
}

// writePID replaces a process id by ours; the file is empty at no time.
func writePID(f *os.File) error {
	n, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	if err != nil {
		return err
	}
	return f.Truncate(int64(n))
}

// create makes the file: locked and filled when it gets its name. It is an error
// of kind fs.ErrExist if there is one by then.
func create(path string) (*os.File, error) {
	f, remove, err := unnamed(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("no file can be made there: %w", err)
	}
	defer remove()
	err = errors.Join(f.Chmod(0o644), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), writePID(f))
	if err == nil {
		err = unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// unnamed opens a file in a directory that has no name, so that nothing is left
// of it, or, where the file system can't do that, one with a name that remove
// takes away.
func unnamed(dir string) (f *os.File, remove func(), err error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o644)
	switch err {
	case nil:
		return os.NewFile(uintptr(fd), dir), func() {}, nil
	case unix.EOPNOTSUPP, unix.EISDIR, unix.EINVAL:
		f, err = os.CreateTemp(dir, ".sluice-lock-*")
		if err != nil {
			return nil, nil, err
		}
		return f, func() { os.Remove(f.Name()) }, nil
	}
	return nil, nil, err
}

// Release removes the file, and lets go of the lock.
func (l *Lock) Release() {
	if same(l.path, l.file) {
		_ = os.Remove(l.path) // what is left keeps no runner out
	}
	l.file.Close()
}
