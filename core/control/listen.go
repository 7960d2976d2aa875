package control

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// A Socket says where the administrator's socket is and who may use it.
type Socket struct {
	Path    string // its directory is made if it is missing
	Group   string // the group that may connect beside the owner; "": the process's own
	Backlog int    // connections that wait to be accepted; 0: 20
	Block   string // of the configuration that describes it, for errors; "": control
}

func (s Socket) setting() string {
	if s.Block == "metrics" {
		return "metrics { listen }"
	}
	return s.block() + " { path }"
}

func (s Socket) block() string { return cmp.Or(s.Block, "control") }

// socketMode lets the owner and the group connect.
const socketMode = 0o660

// maxSocketPath is the room in sockaddr_un.sun_path, without its final zero.
const maxSocketPath = 107

// ErrInUse is wrapped by Listen's error that says that another process serves
// the socket.
var ErrInUse = errors.New("another runner answers there")

// Listen makes the socket. What a runner that died left at its path is
// replaced; a socket that is served is not, and neither is anything else.
// Close removes the socket, unless somebody has put another in its place.
//
// The socket is made under another name, given its group and mode, and moved
// to its path when it listens: nobody can meet it half made.
func Listen(s Socket) (net.Listener, error) {
	l, err := listen(s)
	if err != nil {
		return nil, fmt.Errorf("%s socket %s: %w", s.block(), s.Path, err)
	}
	return l, nil
}

func listen(s Socket) (net.Listener, error) {
	gid, err := groupID(s)
	if err != nil {
		return nil, err
	}
	if len(s.Path) > maxSocketPath {
		return nil, fmt.Errorf("the path is %d bytes long, a socket's path at most %d", len(s.Path), maxSocketPath)
	}
	dir := filepath.Dir(s.Path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lockDirectory(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := checkFree(s); err != nil {
		return nil, err
	}
	draft := filepath.Join(dir, ".s"+strconv.Itoa(os.Getpid()))
	l, err := bindListener(draft, gid, s.Backlog)
	if err != nil {
		_ = os.Remove(draft)
		return nil, err
	}
	return moveListener(l, draft, s.Path)
}

// groupID returns -1, which changes nothing, for "".
func groupID(s Socket) (int, error) {
	name := s.Group
	if name == "" {
		return -1, nil
	}
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q: create it, or name another in %s { group }", name, s.block())
	}
	return strconv.Atoi(g.Gid)
}

// lockDirectory keeps two runners that start at once from both finding the
// socket of a dead one. It is held for as long as Listen takes.
func lockDirectory(dir string) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(d.Fd()), unix.LOCK_EX); err != nil {
		d.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { d.Close() }, nil
}

// checkFree returns nil if there is nothing at its path, or a socket that nobody
// serves any more.
func checkFree(s Socket) error {
	info, err := os.Lstat(s.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("there is something that is no socket: name another path in " + s.setting())
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: s.Path}); err {
	case unix.ECONNREFUSED, unix.ENOENT:
		return nil
	case nil, unix.EAGAIN: // EAGAIN: its backlog is full
		return ErrInUse
	default:
		return os.NewSyscallError("connect", err)
	}
}

func bindListener(path string, gid, backlog int) (net.Listener, error) {
	if backlog <= 0 {
		backlog = 20
	}
	_ = os.Remove(path) // of a process that died here and had our process id
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileListener has its own duplicate
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	if err := os.Chown(path, -1, gid); err != nil {
		return nil, err
	}
	if err := os.Chmod(path, socketMode); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return nil, os.NewSyscallError("listen", err)
	}
	return net.FileListener(f)
}

// listener removes its socket when it is closed.
type listener struct {
	net.Listener
	path string
	info fs.FileInfo
}

func moveListener(l net.Listener, draft, path string) (net.Listener, error) {
	info, err := os.Lstat(draft)
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		l.Close()
		_ = os.Remove(draft)
		return nil, err
	}
	return &listener{Listener: l, path: path, info: info}, nil
}

func (l *listener) Close() error {
	if info, err := os.Lstat(l.path); err == nil && os.SameFile(info, l.info) {
		_ = os.Remove(l.path) // a socket left over is replaced by the next runner
	}
	return l.Listener.Close()
}
