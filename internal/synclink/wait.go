package synclink

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soon is how long is waited behind the runtime's back: a little longer than the
// usual pause between two reads.
const soon = 5 * time.Millisecond

// waitFor waits until one of the descriptors can be read, at most d, and says how
// many can. It may return earlier.
//
// At first it does not tell the runtime that the thread blocks. When told, the
// runtime wakes its monitor at the end of each wait, which then looks after the
// threads some ten times before it sleeps again: more work than a datagram is.
// (At 6,000 events a second in datagrams of 14 source multicast took 21.6 µs an
// event, and 9.1 so; source tcp 22.3, and 13.5.) The price is that a stop of all goroutines, as for the garbage collector, may
// wait that long.
func waitFor(fds []unix.PollFd, d time.Duration) (int, error) {
	if runtime.GOMAXPROCS(0) > 1 {
		n, err := rawPoll(fds, min(d, soon))
		if n > 0 || err != nil || d <= soon {
			return n, err
		}
		d -= soon
	}
	timeout := unix.NsecToTimespec(max(d.Nanoseconds(), 0))
	n, err := unix.Ppoll(fds, &timeout, nil)
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}

// rawPoll is ppoll(2). It is a call of its own, since a stop sends the thread a
// signal, which ends the wait, and it is at calls that the thread then notices
// the stop.
//
//go:noinline
func rawPoll(fds []unix.PollFd, d time.Duration) (int, error) {
	timeout := unix.NsecToTimespec(max(d.Nanoseconds(), 0))
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(&timeout)), 0, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, errno
}
