package ctnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A socket is a netlink socket that is not registered with the runtime's
// poller. The poller would be woken for every message that arrives, though
// nobody waits there: a thread that blocks in a system call of its own costs
// about a third less an event.
type socket struct {
	fd   int
	port uint32
}

// dial opens a socket of the calling thread's network namespace, bound to the
// port id (0: the kernel chooses), lets prepare set it up, and takes the
// descriptor out of the poller.
func dial(port uint32, prepare func(*netlink.Conn) error) (*socket, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{PID: port})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer c.Close() // ends the poller's interest; the duplicate lives on
	if prepare != nil {
		if err := prepare(c); err != nil {
			return nil, fmt.Errorf("prepare netlink socket: %w", err)
		}
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s, dupErr := &socket{port: c.PID()}, error(nil)
	err = raw.Control(func(fd uintptr) {
		s.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return s, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// send sends whole messages to the kernel, which has carried them out when
// send returns. The runtime isn't told, as in package wait: half a millisecond is
// long enough for its monitor thread to have another one take over, and back.
func (s *socket) send(p []byte) error {
	to := unix.RawSockaddrNetlink{Family: unix.AF_NETLINK}
	for {
		_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), 0,
			uintptr(unsafe.Pointer(&to)), unix.SizeofSockaddrNetlink)
		switch errno {
		case unix.EINTR:
		case 0:
			return nil
		default:
			return errno
		}
	}
}

// receive reads one datagram without waiting.
func (s *socket) receive(p []byte) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_DONTWAIT|unix.MSG_TRUNC, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		case n > uintptr(len(p)):
			return 0, fmt.Errorf("message of %d bytes does not fit", n)
		default:
			return int(n), nil
		}
	}
}

// receiveWait is receive, but waits for a datagram as long as d.
func (s *socket) receiveWait(p []byte, d time.Duration) (int, error) {
	n, err := s.receive(p)
	if err != unix.EAGAIN {
		return n, err
	}
	if err := pollWait([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, d); err != nil {
		return 0, err
	}
	return s.receive(p)
}

// pollWait is ppoll without the interruptions: the runtime's preemption
// signals end system calls with EINTR.
func pollWait(fds []unix.PollFd, d time.Duration) error {
	for end := time.Now().Add(d); ; d = time.Until(end) {
		timeout := unix.NsecToTimespec(max(d.Nanoseconds(), 0))
		if _, err := unix.Ppoll(fds, &timeout, nil); err != unix.EINTR {
			return err
		}
	}
}

// A reply is one netlink message out of a datagram.
type reply struct {
	typ, flags uint16
	seq        uint32
	message    []byte // with its header
}

// nextReply splits the first message off a datagram.
func nextReply(p []byte) (r reply, rest []byte, err error) {
	if len(p) < nlHeader {
		return r, nil, malformed("%d bytes are less than a header", len(p))
	}
	size := binary.NativeEndian.Uint32(p)
	if size < nlHeader || uint64(size) > uint64(len(p)) {
		return r, nil, malformed("length %d of %d bytes", size, len(p))
	}
	r = reply{
		typ: binary.NativeEndian.Uint16(p[4:]), flags: binary.NativeEndian.Uint16(p[6:]),
		seq: binary.NativeEndian.Uint32(p[8:]), message: p[:size],
	}
	return r, p[min(align(int(size)), len(p)):], nil
}

// errno returns the error of an NLMSG_ERROR or NLMSG_DONE message, 0 for none.
func (r reply) errno() unix.Errno {
	if len(r.message) < nlHeader+4 {
		return 0
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(r.message[nlHeader:])))
}

// setReceiveBuffer sets what getsockopt then shows, by force where allowed,
// and returns what it is now: less, where neither privilege nor
// net.core.rmem_max gives as much.
func setReceiveBuffer(fd, size int) (int, error) {
	// The kernel doubles the value, for its own overhead.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size/2) != nil {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/2); err != nil {
			return 0, fmt.Errorf("set receive buffer: %w", err)
		}
	}
	return receiveBuffer(fd)
}

func receiveBuffer(fd int) (int, error) {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err != nil {
		return 0, fmt.Errorf("read receive buffer: %w", err)
	}
	return n, nil
}
