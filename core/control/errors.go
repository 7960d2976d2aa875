package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// What a Client's error wraps when the runner could not be asked.
var (
	ErrNoRunner = errors.New("no runner") // nothing is at the socket's path, or nobody serves it
	ErrDenied   = errors.New("permission denied")
	ErrBusy     = errors.New("the runner is busy")
	ErrCut      = errors.New("the runner went away") // in the middle of an answer
)

// explain makes an error of the connection one that says what to try next.
func (c *Client) explain(ctx context.Context, err error) error {
	var network net.Error
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return &unavailable{"interrupted", context.Canceled}
	case ctx.Err() != nil:
		return c.hint(ErrBusy, "the runner at %s did not answer in time: try again, or look at its log")
	case errors.Is(err, fs.ErrNotExist):
		return c.hint(ErrNoRunner, "no runner at %s: start one with `sluice run -f FILE`, or name its socket with --socket")
	case errors.Is(err, syscall.ECONNREFUSED):
		return c.hint(ErrNoRunner, "no runner answers at %s: it has died and its log says why; start it again with `sluice run -f FILE`")
	case errors.Is(err, fs.ErrPermission):
		return &unavailable{fmt.Sprintf("permission denied at %s: run as %s", c.socket, whoMay(c.socket)), ErrDenied}
	case errors.Is(err, syscall.EAGAIN) && !isTimeout(err):
		return c.hint(ErrBusy, "the runner at %s takes no more connections at the moment: try again")
	case errors.As(err, &network) && network.Timeout():
		return c.hint(ErrBusy, "the runner at %s does not answer: it is stopped or overloaded; look at its log, or try again")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return c.hint(ErrCut, "the runner at %s went away before it had answered in full: look at its log and at `sluice status`")
	}
	return fmt.Errorf("socket %s: %w", c.socket, err)
}

// isTimeout tells a deadline that passed from a socket whose backlog is full:
// both are EAGAIN to some callers.
func isTimeout(err error) bool {
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// An unavailable error is a sentence that wraps one of the errors above
// without repeating it.
type unavailable struct {
	text  string
	cause error
}

func (u *unavailable) Error() string { return u.text }
func (u *unavailable) Unwrap() error { return u.cause }

func (c *Client) hint(cause error, text string) error {
	return &unavailable{text: fmt.Sprintf(text, c.socket), cause: cause}
}

// whoMay says who may connect to a socket, or, if that does not show, who may
// enter its directory.
func whoMay(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		info, err = os.Stat(filepath.Dir(path))
	}
	if err != nil {
		return "root"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "root"
	}
	group := strconv.Itoa(int(stat.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return "root or as a member of the group " + group
}
