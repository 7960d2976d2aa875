package testbed

import (
	"errors"
	"fmt"
	"time"
)

// Await calls condition until it returns nil, at first every millisecond and
// then ever more rarely up to every 50. After timeout it gives up with the
// condition's last error; it always tries at least once.
func Await(timeout time.Duration, condition func() error) error {
	deadline := time.Now().Add(timeout)
	pause := time.Millisecond
	for {
		err := condition()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("testbed: not within %v: %w", timeout, err)
		}
		time.Sleep(pause)
		pause = min(pause*3/2, 50*time.Millisecond)
	}
}

// Eventually fails the test unless condition returns nil within timeout. Be
// generous: a passing test never waits longer than it must.
func Eventually(t TB, timeout time.Duration, condition func() error) {
	t.Helper()
	if err := Await(timeout, condition); err != nil {
		t.Fatalf("%v", err)
	}
}

// errNot is the usual last error of a condition that has nothing better to say.
var errNot = errors.New("condition does not hold")

// Holds makes a condition for Await of a plain function.
func Holds(fn func() bool) func() error {
	return func() error {
		if fn() {
			return nil
		}
		return errNot
	}
}
