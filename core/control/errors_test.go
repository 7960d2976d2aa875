package control

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// asOther is set in the environment of a copy of this test that another user
// runs; its value is the socket to ask.
const asOther = "CONTROL_TEST_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(asOther); socket != "" {
		_, err := NewClient(socket).Status(context.Background())
		os.Stdout.WriteString(err.Error())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestPermissionDenied(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	group, err := groupID(Socket{Group: "adm"})
	if err != nil {
		t.Skip(err)
	}
	open, closed := filepath.Join(shortDir(t), "s"), filepath.Join(shortDir(t), "s")
	if err := os.Chown(filepath.Dir(closed), 0, group); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(closed), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{open, closed} {
		l, err := Listen(Socket{Path: path, Group: "adm"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		// The link, since another user can't reach the test's binary by its path.
		other := exec.Command("/proc/self/exe")
		other.Env = []string{asOther + "=" + path}
		other.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := other.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want := "permission denied at " + path + ": run as root or as a member of the group adm"
		if string(out) != want {
			t.Errorf("got  %s\nwant %s", out, want)
		}
	}
}

func TestClientErrors(t *testing.T) {
	dir := shortDir(t)
	stale, full, silent := dir+"/stale", dir+"/full", dir+"/silent"
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	fill(t, full)
	closing(t, silent)
	for path, want := range map[string]struct {
		cause error
		text  string
	}{
		dir + "/none": {ErrNoRunner, "no runner at " + dir + "/none: start one with `sluice run -f FILE`, or name its socket with --socket"},
		stale:         {ErrNoRunner, "no runner answers at " + stale + ": it has died"},
		full:          {ErrBusy, "the runner at " + full + " takes no more connections"},
		silent:        {ErrCut, "the runner at " + silent + " went away"},
	} {
		_, err := NewClient(path).Status(t.Context())
		if !errors.Is(err, want.cause) || !strings.HasPrefix(err.Error(), want.text) {
			t.Errorf("%s: %v", path, err)
		} else if strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: more than a line: %v", path, err)
		}
	}
}

// fill makes a socket whose backlog is full.
func fill(t *testing.T, path string) {
	t.Helper()
	l, err := Listen(Socket{Path: path, Backlog: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// closing makes a socket that accepts, reads a little and closes.
func closing(t *testing.T, path string) {
	t.Helper()
	l, err := Listen(Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 4096))
			conn.Close()
		}
	}()
}
