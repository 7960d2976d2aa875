package control

import (
	"context"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stop has the runner drain and end, and returns when its process is gone: a
// new one can be started then. If the process can't be seen from here, as from
// within a container, it returns when the runner has answered.
func (c *Client) Stop(ctx context.Context, report func(Step)) error {
	process, err := c.openProcess(ctx)
	if err != nil {
		return err
	}
	defer process.close()
	if err := c.Do(ctx, Request{Command: "stop"}, report); err != nil {
		return err
	}
	if err := process.awaitExit(ctx); err != nil {
		return c.explain(ctx, err)
	}
	return nil
}

// A pidfd refers to a process even when its id has been given to another; it
// is -1 if there is none.
type pidfd int

// openProcess opens the process that listens on the socket. The kernel says
// which one it is, in the numbers of our own process id namespace.
func (c *Client) openProcess(ctx context.Context) (pidfd, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return -1, c.explain(ctx, err)
	}
	defer conn.Close()
	listener, err := readCredentials(conn.(syscall.Conn))
	if err != nil || listener.Pid == 0 || int(listener.Pid) == os.Getpid() {
		return -1, nil
	}
	fd, err := unix.PidfdOpen(int(listener.Pid), 0)
	if err != nil {
		return -1, nil
	}
	return pidfd(fd), nil
}

// awaitExit waits until the process has ended, or ctx has.
func (p pidfd) awaitExit(ctx context.Context) error {
	const interval = 100 // milliseconds, in which ctx is looked at
	for p >= 0 {
		poll := []unix.PollFd{{Fd: int32(p), Events: unix.POLLIN}}
		switch n, err := unix.Poll(poll, interval); {
		case err != nil && err != unix.EINTR:
			return os.NewSyscallError("poll", err)
		case n > 0:
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (p pidfd) close() {
	if p >= 0 {
		unix.Close(int(p))
	}
}
