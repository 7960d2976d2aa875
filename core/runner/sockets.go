package runner

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// socketPrefix begins the names of socket folders.
const socketPrefix = "sluice-stages-"

// A socketFolder is where stages have their control sockets while they start. A
// runner has one, locked for as long as it lives: what a killed one has left is
// not, and the next runner removes it.
type socketFolder struct {
	path string
	lock *os.File
}

// openSocketFolder makes a folder in dir, and removes those that nobody holds.
func openSocketFolder(dir string) (*socketFolder, error) {
	sweepSocketFolders(dir)
	for range 10 {
		path, err := os.MkdirTemp(dir, socketPrefix)
		if err != nil {
			return nil, fmt.Errorf("folder of control sockets: %w", err)
		}
		if f, err := lockFolder(path); err == nil {
			return &socketFolder{path, f}, nil
		}
		os.RemoveAll(path) // another runner that starts now took it for a left one
	}
	return nil, errors.New("folder of control sockets: it can't be locked")
}

// lockFolder locks a folder of ours that is still there.
func lockFolder(path string) (*os.File, error) {
	f, err := os.OpenFile(path, unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	var opened, named unix.Stat_t
	err = errors.Join(unix.Fstat(int(f.Fd()), &opened), unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB), unix.Lstat(path, &named))
	if err == nil && (opened.Ino != named.Ino || int(opened.Uid) != os.Geteuid()) {
		err = errors.New("it is another's")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func sweepSocketFolders(dir string) {
	left, _ := filepath.Glob(filepath.Join(dir, socketPrefix+"*")) // a pattern is never bad
	for _, path := range left {
		if f, err := lockFolder(path); err == nil {
			os.RemoveAll(path)
			f.Close()
		}
	}
}

func (s *socketFolder) close() {
	os.RemoveAll(s.path)
	s.lock.Close()
}
