// Package wait blocks the loop of a stage until a descriptor can be used, at
// the least cost to the machine. Waking a process that sleeps is the largest part
// of what a batch costs, and much of that is the Go runtime's own doing: its
// monitor thread wakes when a thread comes back from a system call that the
// runtime was told of, and then looks after the threads fifty times, every 20 µs,
// before it sleeps again. A stage has one busy loop, so it can do without.
//
// It serves the loops that carry events: the stage library's, and those of
// sources that wait for a socket. Everything else waits as Go programs do.
package wait

import (
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// soon is the longest wait that the runtime is not told of, and so the longest
// that the other goroutines of the process may have to wait for their turn, or a
// stop of all for the garbage collector to begin. Batches are coalesced to one
// every 2 ms.
const soon = 5 * time.Millisecond

// Forever is no limit.
const Forever time.Duration = -1

// A Loop waits for one loop: while waits are short, behind the runtime's back.
// (At 7,000 events a second in batches every 2 ms a filter took 9.1 µs an event
// when the runtime knew, and 4.0 when it did not.) The zero value is ready; one
// goroutine uses it.
type Loop struct {
	lively bool // the last wait was short: the next is probably too
	waits  uint
}

// Prepare makes a socket ready for Packet.
func Prepare(fd int) error {
	timeout := unix.NsecToTimeval(soon.Nanoseconds())
	return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout)
}

// Packet waits a moment for a packet on a prepared socket and reads it into buf. It
// returns 0 at the end of the stream, EINTR when it is to be called again, and
// EAGAIN when there is none: Await waits for the next.
func (l *Loop) Packet(fd int, buf []byte) (int, error) {
	l.yield()
	flags := 0 // wait, as long as Prepare said
	if !l.lively {
		flags = unix.MSG_DONTWAIT
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)),
		uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// Await waits until one of fds can be used, however long it takes; it may return
// early.
func (l *Loop) Await(fds []unix.PollFd) error {
	_, err := l.told(fds, Forever)
	return err
}

// Descriptors waits until one of fds can be used, at most d, and says how many
// can. It may return early with 0.
func (l *Loop) Descriptors(fds []unix.PollFd, d time.Duration) (int, error) {
	l.yield()
	if !l.lively {
		return l.told(fds, d)
	}
	brief := soon
	if d >= 0 {
		brief = min(d, soon)
	}
	n, err := rawPoll(fds, brief)
	l.lively = n > 0 || brief == d
	return n, err
}

// told waits with the runtime's knowledge.
func (l *Loop) told(fds []unix.PollFd, d time.Duration) (int, error) {
	begin := time.Now()
	n, err := poll(fds, d)
	l.lively = time.Since(begin) < soon
	return n, err
}

// yield lets other goroutines run now and then, and so also tells the runtime's
// monitor that this one is not stuck: it would interrupt it every 10 ms, and look
// after it the more.
func (l *Loop) yield() {
	if l.waits++; l.waits%4 == 0 {
		runtime.Gosched()
	}
}

// Pause waits for d, or until one of fds can be used, and says whether one can.
func (l *Loop) Pause(fds []unix.PollFd, d time.Duration) (bool, error) {
	l.yield()
	once := rawPoll
	if d > soon {
		once = poll
	}
	for end := time.Now().Add(d); d > 0; d = time.Until(end) {
		if n, err := once(fds, d); n > 0 || err != nil {
			return n > 0, err
		}
	}
	return false, nil
}

// poll is ppoll(2); an interrupted one found nothing.
func poll(fds []unix.PollFd, d time.Duration) (int, error) {
	var timeout *unix.Timespec
	if d >= 0 {
		t := unix.NsecToTimespec(d.Nanoseconds())
		timeout = &t
	}
	n, err := unix.Ppoll(fds, timeout, nil)
	if err == unix.EINTR {
		return 0, nil
	}
	return n, err
}

// rawPoll is poll without the runtime knowing. It is a call of its own, since a
// stop of all goroutines sends the thread a signal, which ends the wait, and it
// is at calls that the thread then notices the stop.
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
