package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespaceDir is where ip-netns(8) keeps named namespaces.
const namespaceDir = "/run/netns"

// namespaceCount numbers the namespaces of this process.
var namespaceCount atomic.Int64

// Namespace is a named network namespace. Its loopback interface is up, IPv6
// addresses on it need no duplicate address detection, and it accepts no router
// advertisements. It tracks no connections until Track or Rules is called.
type Namespace struct {
	name   string
	file   *os.File // the namespace itself, so that it lives until Close
	handle *netlink.Handle
	closed bool
}

// NewNamespace makes a namespace called slc-<pid>-<number>-<role>. The caller
// must Close it; what a dead process left behind is swept first.
func NewNamespace(role string) (*Namespace, error) {
	Sweep()
	name := fmt.Sprintf("slc-%d-%d-%s", os.Getpid(), namespaceCount.Add(1), role)
	if err := run("ip", "netns", "add", name); err != nil {
		return nil, fmt.Errorf("testbed: new namespace: %w", err)
	}
	n := &Namespace{name: name}
	if err := n.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("testbed: new namespace %s: %w", name, err), n.Close())
	}
	return n, nil
}

// MustNamespace is NewNamespace for tests: it calls Require, fails the test on
// an error and closes the namespace when the test ends.
func MustNamespace(t TB, role string) *Namespace {
	t.Helper()
	Require(t)
	n, err := NewNamespace(role)
	return owned(t, n, err)
}

// owned ends the test if err is not nil; else it closes v when the test ends.
func owned[T interface{ Close() error }](t TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := v.Close(); err != nil {
			t.Errorf("%v", err)
		}
	})
	return v
}

func (n *Namespace) open() (err error) {
	if n.file, err = os.Open(n.Path()); err != nil {
		return err
	}
	n.handle, err = netlink.NewHandleAt(netns.NsHandle(n.file.Fd()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	if err = n.Sysctls(quietIPv6); err != nil {
		return err
	}
	return n.up("lo")
}

// Name is the name as ip-netns(8) knows it.
func (n *Namespace) Name() string { return n.name }

// Path is the file that stands for the namespace, /run/netns/NAME.
func (n *Namespace) Path() string { return filepath.Join(namespaceDir, n.name) }

// String is the name.
func (n *Namespace) String() string { return n.name }

// Close removes the namespace. Processes and sockets still in it keep it alive
// without its name. Closing twice is harmless.
func (n *Namespace) Close() error {
	if n.closed {
		return nil
	}
	n.closed = true
	if n.handle != nil {
		n.handle.Close()
	}
	if n.file != nil {
		n.file.Close()
	}
	if err := run("ip", "netns", "delete", n.name); err != nil {
		return fmt.Errorf("testbed: close namespace: %w", err)
	}
	return nil
}

// Do runs fn inside the namespace, on the calling goroutine with its thread
// locked, and returns what fn returns. Calls may nest. Goroutines that fn
// starts are not in the namespace; sockets that fn opens stay in it.
func (n *Namespace) Do(fn func() error) error {
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("testbed: own namespace: %w", err)
	}
	if err := n.enter(); err != nil {
		unix.Close(home)
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		// A thread that can't go home must never run other goroutines.
		if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
			panic("testbed: leave namespace: " + err.Error())
		}
		unix.Close(home)
		runtime.UnlockOSThread()
	}()
	return fn()
}

// enter moves the calling thread, which must be locked, into the namespace.
func (n *Namespace) enter() error {
	if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("testbed: enter namespace %s: %w", n.name, err)
	}
	return nil
}

// thread runs fn on a new goroutine whose thread is in the namespace and is
// thrown away when fn returns. It is for workers that make many system calls.
func (n *Namespace) thread(fn func(), failed func(error)) {
	go func() {
		runtime.LockOSThread()
		if err := n.enter(); err != nil {
			failed(err)
			return
		}
		fn()
	}()
}

// Command is a command that, however it is started, runs inside the namespace
// with the same process id that Start reports, since nsenter replaces itself.
// It carries the marker that Survivors looks for. Prefer Start for daemons.
func (n *Namespace) Command(name string, args ...string) *exec.Cmd {
	if path, err := findProgram(name); err == nil {
		name = path
	}
	cmd := exec.Command("nsenter", append([]string{"--net=" + n.Path(), "--", name}, args...)...)
	cmd.Env = markedEnv(nil)
	return cmd
}

// Run runs a command inside the namespace to its end and returns its standard
// output. The error holds what it wrote to standard error.
func (n *Namespace) Run(name string, args ...string) (string, error) {
	return output(n.Command(name, args...))
}

// Dial connects from the namespace. A zero from lets the kernel choose the
// source; port 0 in from lets it choose the port alone. The target must be a
// literal address, since names would be looked up outside.
func (n *Namespace) Dial(ctx context.Context, network string, from, to netip.AddrPort) (net.Conn, error) {
	var dialer net.Dialer
	if from.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(from)
		if strings.HasPrefix(network, "udp") {
			dialer.LocalAddr = net.UDPAddrFromAddrPort(from)
		}
	}
	var conn net.Conn
	err := n.Do(func() (err error) {
		conn, err = dialer.DialContext(ctx, network, to.String())
		return err
	})
	return conn, err
}

// Listen listens on a stream address inside the namespace.
func (n *Namespace) Listen(network, address string) (net.Listener, error) {
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// ListenPacket listens for packets on an address inside the namespace.
func (n *Namespace) ListenPacket(network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := n.Do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}
