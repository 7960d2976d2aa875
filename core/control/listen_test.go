package control

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

func TestListenModeAndGroup(t *testing.T) {
	path := filepath.Join(shortDir(t), "new", "control.sock")
	old := syscall.Umask(0o077) // ours to give the mode, not the umask's
	l, err := Listen(Socket{Path: path, Group: "0"})
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode %v", info.Mode())
	}
	if gid := info.Sys().(*syscall.Stat_t).Gid; gid != 0 {
		t.Errorf("group %d", gid)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestListenGroupByName(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may give a file to another group")
	}
	gid, err := groupID(Socket{Group: "adm"})
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(Socket{Path: path, Group: "adm"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := int(info.Sys().(*syscall.Stat_t).Gid); got != gid {
		t.Errorf("group %d, want %d", got, gid)
	}
}

func TestListenErrors(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		socket Socket
		want   string
	}{
		"no such group": {Socket{Path: dir + "/s", Group: "nosuchgroup"}, `there is no group "nosuchgroup"`},
		"a file":        {Socket{Path: file}, "no socket"},
		"a long path":   {Socket{Path: dir + "/" + strings.Repeat("x", 100)}, "at most 107"},
		"under a file":  {Socket{Path: file + "/s"}, "not a directory"},
	} {
		l, err := Listen(c.socket)
		if err == nil {
			l.Close()
			t.Errorf("%s: no error", name)
		} else if !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "control socket /") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

func TestListenReplacesStaleSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := Listen(Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestListenRefusesServedSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	l, err := Listen(Socket{Path: path, Backlog: 1})
	if err != nil {
		t.Fatal(err)
	}
	// Idle, busy, and with its backlog full: it is served all the same.
	for range 4 {
		if _, err := Listen(Socket{Path: path}); !errors.Is(err, ErrInUse) {
			t.Errorf("got %v", err)
		}
	}
	l.Close()
	l, err = Listen(Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

// Of several that find the same stale socket at once, one wins.
func TestListenAtOnce(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	for range 30 {
		dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		dead.SetUnlinkOnClose(false)
		dead.Close()
		won := listenAtOnce(t, path, 8)
		if len(won) != 1 {
			t.Fatalf("%d listen", len(won))
		}
		won[0].Close()
	}
}

func listenAtOnce(t *testing.T, path string, n int) (won []net.Listener) {
	var mu sync.Mutex
	var all sync.WaitGroup
	start := make(chan struct{})
	for range n {
		all.Go(func() {
			<-start
			l, err := Listen(Socket{Path: path})
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				won = append(won, l)
			} else if !errors.Is(err, ErrInUse) {
				t.Error(err)
			}
		})
	}
	close(start)
	all.Wait()
	return won
}

// A listener that was replaced leaves its successor's socket alone.
func TestCloseLeavesAnothersSocket(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	first, err := Listen(Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(Socket{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}
