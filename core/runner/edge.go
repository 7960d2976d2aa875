package runner

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// edgeBuffer is what an edge is given, in bytes; the kernel doubles it for its
// own bookkeeping. Measured, it holds 31 full batches or 2,731 of one event.
const edgeBuffer = 1 << 20

// An edge is one socket pair between two neighbours. The runner keeps both
// ends for as long as the pipeline lives, so a stage that is started again gets
// the same ones, and what was queued is not lost.
type edge struct {
	write, read *os.File
}

func newEdge(name string) (*edge, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("edge %s: %w", name, err)
	}
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, edgeBuffer); err != nil {
		// Without privilege: as much as is allowed.
		_ = unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF, edgeBuffer)
	}
	size, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_SNDBUF)
	if err == nil && size < 2*flow.MaxBatch {
		err = fmt.Errorf("a send buffer of %d bytes holds no batch: raise net.core.wmem_max", size)
	}
	if err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return nil, fmt.Errorf("edge %s: %w", name, err)
	}
	return &edge{
		write: os.NewFile(uintptr(fds[0]), name+" (write)"),
		read:  os.NewFile(uintptr(fds[1]), name+" (read)"),
	}, nil
}

// queued returns the bytes that wait to be read.
func (e *edge) queued() uint64 {
	n := 0
	withFD(e.read, func(fd int) { n, _ = unix.IoctlGetInt(fd, unix.SIOCINQ) })
	return uint64(max(n, 0))
}

// occupied returns how much of the edge's buffer is taken, as the kernel counts:
// with what it needs for itself, which is most of it for small batches.
func (e *edge) occupied() (used, limit uint64) {
	n, size := 0, 0
	withFD(e.write, func(fd int) {
		n, _ = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
		size, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF)
	})
	return uint64(max(n, 0)), uint64(max(size, 0))
}

// withFD calls f with the descriptor, unless the file was closed.
func withFD(file *os.File, f func(fd int)) {
	if raw, err := file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// end shuts the writing side down: the reader gets what is queued, then the
// end. It can't be undone.
func (e *edge) end() {
	withFD(e.write, func(fd int) { _ = unix.Shutdown(fd, unix.SHUT_WR) })
}

func (e *edge) close() {
	e.write.Close()
	e.read.Close()
}
