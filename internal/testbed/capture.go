package testbed

import (
	"fmt"
	"syscall"
)

// Capture writes what passes an interface of a namespace to a file.
type Capture struct{ process *Process }

// NewCapture starts tcpdump, with a filter such as "udp port 3780", and returns
// when it listens. The caller must Close it.
func NewCapture(n *Namespace, link, file, filter string) (*Capture, error) {
	process, err := n.Start(program("tcpdump", "-i", link, "-U", "-n", "--immediate-mode", "-s", "0", "-Z", "root", "-w", file, filter))
	if err != nil {
		return nil, err
	}
	if err := process.AwaitOutput(shortWait, "listening on"); err != nil {
		process.Close()
		return nil, fmt.Errorf("testbed: capture on %s: %w", link, err)
	}
	return &Capture{process: process}, nil
}

// MustCapture is NewCapture for tests. It requires Tcpdump.
func MustCapture(t TB, n *Namespace, link, file, filter string) *Capture {
	t.Helper()
	Require(t, Tcpdump)
	c, err := NewCapture(n, link, file, filter)
	return owned(t, c, err)
}

// Close ends the capture; the file is complete then. Closing twice is harmless.
func (c *Capture) Close() error {
	if !c.process.Running() {
		return c.process.Close()
	}
	if err := c.process.Signal(syscall.SIGINT); err != nil {
		return err
	}
	if err := c.process.Wait(shortWait); err != nil {
		return err
	}
	return c.process.Close()
}
