package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// Daemon is a conntrackd that runs in a namespace, with its own configuration,
// control socket and lock file in a temporary directory, or with a
// configuration file of the caller's.
type Daemon struct {
	*Process
	namespace *Namespace
	config    string // the file's path
	dir       string // "" with a file of the caller's
}

// NewDaemon starts conntrackd in a namespace and returns when it takes
// commands. The caller must Close it.
//
// The daemon gives itself the real-time scheduler (SCHED_RR, priority 99) at
// start, so it never waits for the processor while others do: see
// ConntrackdConfig.Normal.
func NewDaemon(n *Namespace, config ConntrackdConfig) (*Daemon, error) {
	dir, err := tempDir()
	if err != nil {
		return nil, fmt.Errorf("testbed: conntrackd: %w", err)
	}
	d := &Daemon{namespace: n, dir: dir, config: filepath.Join(dir, "conntrackd.conf")}
	err = os.WriteFile(d.config, []byte(config.text(dir)), 0o600)
	if err == nil {
		err = d.start()
	}
	if err == nil && config.Normal {
		err = normalScheduler(d.Pid())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: conntrackd: %w", err), d.Close())
	}
	return d, nil
}

// NewDaemonOf is NewDaemon with a configuration file of the caller's, who
// removes what it names. The file must say "LogFile off".
func NewDaemonOf(n *Namespace, file string) (*Daemon, error) {
	d := &Daemon{namespace: n, config: file}
	if err := d.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: conntrackd: %w", err), d.Close())
	}
	return d, nil
}

// MustDaemon is NewDaemon for tests. It requires Conntrackd.
func MustDaemon(t TB, n *Namespace, config ConntrackdConfig) *Daemon {
	t.Helper()
	Require(t, Conntrackd)
	d, err := NewDaemon(n, config)
	return ownedDaemon(t, d, err)
}

// MustDaemonOf is NewDaemonOf for tests. It requires Conntrackd.
func MustDaemonOf(t TB, n *Namespace, file string) *Daemon {
	t.Helper()
	Require(t, Conntrackd)
	d, err := NewDaemonOf(n, file)
	return ownedDaemon(t, d, err)
}

func ownedDaemon(t TB, d *Daemon, err error) *Daemon {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
	d.Process.owned(t, nil)
	return owned(t, d, nil)
}

func (d *Daemon) start() error {
	var err error
	d.Process, err = d.namespace.Start(program("conntrackd", "-C", d.config))
	if err != nil {
		return err
	}
	if err := d.AwaitOutput(shortWait, "starting in console mode"); err != nil {
		return err
	}
	return Await(shortWait, func() error { _, err := d.Ctl("-s", "runtime"); return err })
}

// Ctl gives the daemon a command, such as "-c" or "-s", "network", and returns
// what it answers. Commands that the daemon carries out in the background, like
// "-c" and "-B", may still be under way then.
func (d *Daemon) Ctl(args ...string) (string, error) {
	out, err := d.namespace.Run("conntrackd", append([]string{"-C", d.config}, args...)...)
	if err != nil {
		return out, fmt.Errorf("testbed: %w", err)
	}
	return out, nil
}

// MustCtl is Ctl for tests.
func (d *Daemon) MustCtl(t TB, args ...string) string {
	t.Helper()
	out, err := d.Ctl(args...)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return out
}

// Internal is what the daemon knows of its own kernel's flows (-i).
func (d *Daemon) Internal() (Table, error) { return d.dump("-i") }

// External is what it was told by its peers (-e), without reply tuples.
func (d *Daemon) External() (Table, error) { return d.dump("-e") }

func (d *Daemon) dump(option string) (Table, error) {
	out, err := d.Ctl(option)
	if err != nil {
		return nil, err
	}
	return ParseFlows(out)
}

// Counter reads a number from the statistics of a kind ("network", "cache", …;
// "" for plain -s) by the words beside it, as in "Malformed messages: 0" and "0
// Bytes sent". Where the words stand several times, the first counts.
func (d *Daemon) Counter(kind, words string) (int64, error) {
	out, err := d.Ctl(slices.DeleteFunc([]string{"-s", kind}, func(arg string) bool { return arg == "" })...)
	if err != nil {
		return 0, err
	}
	name := regexp.QuoteMeta(words)
	for _, pattern := range []string{`(\d+)[ \t]+` + name, name + `:?\s*(\d+)`} {
		if match := regexp.MustCompile(pattern).FindStringSubmatch(out); match != nil {
			return strconv.ParseInt(match[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("testbed: conntrackd: no %q in:\n%s", words, out)
}

// Close kills the daemon, if it still runs, and removes its files.
func (d *Daemon) Close() error {
	var err error
	if d.Process != nil {
		err = d.Process.Close()
	}
	if d.dir == "" {
		return err
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}

// Stop ends the daemon as an administrator does, with SIGTERM.
func (d *Daemon) Stop() error { return d.Process.Stop(shortWait + 5*time.Second) }
