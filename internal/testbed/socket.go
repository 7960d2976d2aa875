package testbed

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// socket is a blocking socket with timeouts, outside the Go runtime's poller.
type socket int

// connectStream connects over TCP from the calling thread's namespace.
func connectStream(from, to netip.AddrPort, timeout time.Duration) (socket, error) {
	return connect(unix.SOCK_STREAM, from, to, timeout)
}

// connectDatagram makes a UDP socket for one flow.
func connectDatagram(from, to netip.AddrPort, timeout time.Duration) (socket, error) {
	return connect(unix.SOCK_DGRAM, from, to, timeout)
}

func connect(kind int, from, to netip.AddrPort, timeout time.Duration) (socket, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	s := socket(fd)
	if err := s.connect(from, to, timeout); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect %s to %s: %w", from, to, err)
	}
	return s, nil
}

func (s socket) connect(from, to netip.AddrPort, timeout time.Duration) error {
	limit := unix.NsecToTimeval(timeout.Nanoseconds())
	for _, option := range []int{unix.SO_SNDTIMEO, unix.SO_RCVTIMEO} { // SNDTIMEO bounds connect too
		if err := unix.SetsockoptTimeval(int(s), unix.SOL_SOCKET, option, &limit); err != nil {
			return err
		}
	}
	if from.Addr().IsValid() {
		// The port is chosen at connect, by the whole tuple, not at bind.
		if err := unix.SetsockoptInt(int(s), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
		if err := unix.Bind(int(s), sockaddr(from)); err != nil {
			return err
		}
	}
	// A signal interrupts connect when a timeout is set; the handshake goes on
	// and the next call waits for it.
	err := unix.Connect(int(s), sockaddr(to))
	for errors.Is(err, unix.EINTR) {
		err = unix.Connect(int(s), sockaddr(to))
	}
	if errors.Is(err, unix.EISCONN) {
		return nil
	}
	return err
}

// echo sends a request and reads size bytes.
func (s socket) echo(request []byte, size int) error {
	for len(request) > 0 {
		n, err := retry(func() (int, error) { return unix.Write(int(s), request) })
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		request = request[n:]
	}
	buffer := make([]byte, min(size, 64<<10))
	for size > 0 {
		n, err := retry(func() (int, error) { return unix.Read(int(s), buffer[:min(size, len(buffer))]) })
		if err == nil && n == 0 {
			err = errors.New("connection ended")
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		size -= n
	}
	return nil
}

// end closes the socket, orderly or by a reset.
func (s socket) end(ending Ending) error {
	if ending == Reset {
		err := unix.SetsockoptLinger(int(s), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		if err != nil {
			return errors.Join(err, unix.Close(int(s)))
		}
	}
	return unix.Close(int(s))
}

// retry repeats a call that the Go runtime's signals interrupt: with a timeout
// set, the kernel does not restart it by itself.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func sockaddr(address netip.AddrPort) unix.Sockaddr {
	if address.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(address.Port()), Addr: address.Addr().As16()}
}
