package control

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// A callerAddr is the process at the other end of a connection, as the kernel
// saw it when it connected (SO_PEERCRED). It takes the place of the
// connection's remote address, which a Unix socket leaves empty.
type callerAddr struct{ unix.Ucred }

func (callerAddr) Network() string { return "unix" }

func (c callerAddr) String() string { return fmt.Sprintf("uid %d, pid %d", c.Uid, c.Pid) }

// callerListener learns who connects.
type callerListener struct{ net.Listener }

type callerConn struct {
	net.Conn
	caller callerAddr
}

func (c callerConn) RemoteAddr() net.Addr { return c.caller }

func (l callerListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c, ok := conn.(syscall.Conn)
	if !ok {
		return conn, nil
	}
	credentials, err := readCredentials(c)
	if err != nil {
		return conn, nil // it is for the log alone
	}
	return callerConn{conn, callerAddr{*credentials}}, nil
}

func readCredentials(c syscall.Conn) (credentials *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err != nil {
		return nil, err
	}
	return credentials, failed
}

type callerKey struct{}

// withCaller puts who made the connection into its requests' context.
func withCaller(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, callerKey{}, conn.RemoteAddr())
}

// caller describes the process behind a request for the log. The name is what
// its process id means now; the numbers are the kernel's.
func caller(ctx context.Context) slog.Attr {
	c, ok := ctx.Value(callerKey{}).(callerAddr)
	if !ok {
		return slog.Attr{}
	}
	attrs := []any{slog.Int("uid", int(c.Uid)), slog.Int("pid", int(c.Pid))}
	if comm, err := os.ReadFile("/proc/" + strconv.Itoa(int(c.Pid)) + "/comm"); err == nil {
		attrs = append(attrs, slog.String("process", strings.TrimSpace(string(comm))))
	}
	return slog.Group("caller", attrs...)
}
