package testbed

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// conntrackMax limits the flows of each namespace of the machine. It can be
	// written in the first namespace only.
	conntrackMax = "net.netfilter.nf_conntrack_max"
	// conntrackMaxLock keeps the limit as it was before the first user raised it.
	// Each user holds a shared lock, so the last one to leave knows it is the last.
	conntrackMaxLock = "/run/slc-conntrack-max.lock"
)

// RaiseConntrackMax makes sure that each namespace can track at least max flows
// and returns a function that ends that. The limit is shared by the whole
// machine, so it is never lowered, and it goes back to what it was when the last
// of all concurrent users, also in other processes, is done.
func RaiseConntrackMax(max int) (restore func() error, err error) {
	lock, err := os.OpenFile(conntrackMaxLock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("testbed: raise conntrack max: %w", err)
	}
	if err := joinConntrackMax(lock, max); err != nil {
		lock.Close()
		return nil, fmt.Errorf("testbed: raise conntrack max: %w", err)
	}
	return func() error { return leaveConntrackMax(lock) }, nil
}

// MustRaiseConntrackMax is RaiseConntrackMax until the test ends.
func MustRaiseConntrackMax(t TB, max int) {
	t.Helper()
	Require(t)
	restore, err := RaiseConntrackMax(max)
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := restore(); err != nil {
			t.Errorf("%v", err)
		}
	})
}

// joinConntrackMax notes the limit if nobody else has, takes part in the lock
// and raises the limit. A note without a lock is left from a killed process: it
// is still the limit to go back to.
func joinConntrackMax(lock *os.File, max int) error {
	now, err := readLimit()
	if err != nil {
		return err
	}
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		if _, err := notedLimit(lock); err != nil {
			if _, err := lock.WriteAt([]byte(strconv.Itoa(now)), 0); err != nil {
				return err
			}
		}
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_SH); err != nil {
		return err
	}
	if now == 0 || now >= max { // 0 is no limit
		return nil
	}
	return writeSysctl(conntrackMax, strconv.Itoa(max))
}

func leaveConntrackMax(lock *os.File) error {
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return nil // others still need it
	}
	old, err := notedLimit(lock)
	if err != nil {
		return fmt.Errorf("testbed: restore conntrack max: %w", err)
	}
	if err := writeSysctl(conntrackMax, strconv.Itoa(old)); err != nil {
		return err
	}
	return lock.Truncate(0)
}

func notedLimit(lock *os.File) (int, error) {
	text := make([]byte, 20)
	n, _ := lock.ReadAt(text, 0) // ends with io.EOF
	return strconv.Atoi(string(text[:n]))
}

func readLimit() (int, error) {
	text, err := readSysctl(conntrackMax)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(text))
}
