package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"

	"github.com/mdlayher/netlink"
	"github.com/ti-mo/conntrack"
	"golang.org/x/sys/unix"
)

// TB is the part of testing.TB that this package uses. It keeps the testing
// package out of programs that are no tests.
type TB interface {
	Helper()
	Name() string
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Skipf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Need is something that a test needs of the machine it runs on.
type Need string

// What a test can need. Kernel is what Require asks for by itself.
const (
	Root       Need = "root"       // effective user id 0
	Netns      Need = "netns"      // named network namespaces can be made
	Conntrack  Need = "conntrack"  // ctnetlink answers in a fresh namespace
	NFT        Need = "nft"        // the nft program
	Kernel     Need = "kernel"     // all of the above
	Conntrackd Need = "conntrackd" // the conntrackd daemon
	Ctool      Need = "conntrack8" // the conntrack(8) program
	Tcpdump    Need = "tcpdump"    // the tcpdump program
)

// probes says for each need how to find out. Each probe runs once a process.
var probes = map[Need]func() error{
	Root:       sync.OnceValue(probeRoot),
	Netns:      sync.OnceValue(func() error { return errors.Join(probeProgram("ip"), inFreshNetns(nil)) }),
	Conntrack:  sync.OnceValue(func() error { return inFreshNetns(probeConntrack) }),
	NFT:        sync.OnceValue(func() error { return probeProgram("nft") }),
	Conntrackd: sync.OnceValue(func() error { return probeProgram("conntrackd") }),
	Ctool:      sync.OnceValue(func() error { return probeProgram("conntrack") }),
	Tcpdump:    sync.OnceValue(func() error { return probeProgram("tcpdump") }),
}

// Probe reports the first of the needs that this machine does not meet, or nil.
func Probe(needs ...Need) error {
	for _, need := range needs {
		if need == Kernel {
			if err := Probe(Root, Netns, Conntrack, NFT); err != nil {
				return err
			}
			continue
		}
		probe, known := probes[need]
		if !known {
			return fmt.Errorf("testbed: probe %q: no such need", need)
		}
		if err := probe(); err != nil {
			return fmt.Errorf("testbed: %s: %w", need, err)
		}
	}
	return nil
}

// Require skips the test, saying why, unless the machine offers Kernel and all
// further needs. Where the environment has CI=true it fails the test instead,
// so that a continuous-integration run can't pass by skipping.
func Require(t TB, needs ...Need) {
	t.Helper()
	err := Probe(append([]Need{Kernel}, needs...)...)
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("CI=true, and this machine can't run the test: %v", err)
	default:
		t.Skipf("skipped: %v", err)
	}
}

func probeRoot() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("user id is %d, not 0", uid)
	}
	return nil
}

// probeProgram looks in the administrator's directories too, which an ordinary
// PATH may lack.
func probeProgram(name string) error {
	_, err := findProgram(name)
	return err
}

func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if strings.Contains(name, "/") {
		return "", fmt.Errorf("program %s not found", name)
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(dir + "/" + name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("program %s not found", name)
}

// inFreshNetns runs fn on a thread with a namespace of its own; both vanish
// afterwards, since the goroutine ends without unlocking its thread.
func inFreshNetns(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil && fn != nil {
			err = fn()
		}
		done <- err
	}()
	return <-done
}

func probeConntrack() error {
	conn, err := conntrack.Dial(&netlink.Config{})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Dump(nil)
	return err
}
