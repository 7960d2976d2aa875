// Package wait blocks the loop of a stage until a descriptor can be used, at
// the least cost to the machine. Waking a process that sleeps is the largest part
// of what a batch costs, and most of that is the Go runtime's own doing: its
// monitor thread wakes whenever a thread comes back from a system call that the
// runtime was told of, and then looks after the threads fifty times, every 20 µs,
// before it sleeps again. A stage has one busy loop, so it can do without.
//
// It serves the loops that carry events, in core/plugin, internal/ctnl and
// internal/synclink. Everything else waits as Go programs do. Nothing here
// reads or writes.
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

// A Loop waits for one loop. The zero value is ready; one goroutine uses it.
type Loop struct {
	lively bool // the last wait was short: the next is probably too
}

// Descriptors waits until one of fds can be used, at most d, and says how many
// can. It may return early with 0.
//
// While waits are short the runtime is not told of them. (At 7,000 events a
// second in batches every 2 ms a filter took 9.1 µs an event when it was, and 4.0
// when it was not.)
func (l *Loop) Descriptors(fds []unix.PollFd, d time.Duration) (int, error) {
	runtime.Gosched() // see yield
	if l.lively {
		n, err := rawPoll(fds, Forever)
		l.lively = n > 0
		return n, err
	}
	begin := time.Now()
	n, err := poll(fds, d)
	l.lively = time.Since(begin) < soon
	return n, err
}

// Pause waits for d, or until one of fds can be used, and says whether one can.
func Pause(fds []unix.PollFd, d time.Duration) (bool, error) {
	runtime.Gosched()
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
	var timeout *unix.Timespec
	if d >= 0 {
		t := unix.NsecToTimespec(d.Nanoseconds())
		timeout = &t
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_PPOLL, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)),
		uintptr(unsafe.Pointer(timeout)), 0, 0, 0)
	switch errno {
	case 0:
		return int(n), nil
	case unix.EINTR:
		return 0, nil
	}
	return 0, errno
}
