package testbed

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

// tempPrefix begins the name of each temporary directory; the pid follows.
const tempPrefix = "slc-"

// Sweep removes the namespaces and temporary directories of testbed processes
// that are dead. It works once a process; NewNamespace calls it.
func Sweep() { sweepOnce() }

var sweepOnce = sync.OnceFunc(sweep)

func sweep() {
	for _, name := range leftovers(namespaceDir) {
		_ = run("ip", "netns", "delete", name) // another process may sweep too
	}
	for _, name := range leftovers(os.TempDir()) {
		_ = os.RemoveAll(filepath.Join(os.TempDir(), name))
	}
}

// leftovers lists the entries of dir named slc-<pid>-… whose process is dead.
func leftovers(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var dead []string
	for _, entry := range entries {
		rest, ours := strings.CutPrefix(entry.Name(), tempPrefix)
		if !ours {
			continue
		}
		digits, _, _ := strings.Cut(rest, "-")
		pid, err := strconv.Atoi(digits)
		if err == nil && pid > 0 && !Alive(pid) {
			dead = append(dead, entry.Name())
		}
	}
	return dead
}

// tempDir makes a directory that Sweep will find if this process dies.
func tempDir() (string, error) {
	return os.MkdirTemp("", tempPrefix+strconv.Itoa(os.Getpid())+"-")
}
