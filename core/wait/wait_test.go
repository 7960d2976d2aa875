package wait

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T) (near, far int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	if err := Prepare(fds[0]); err != nil {
		t.Fatal(err)
	}
	return fds[0], fds[1]
}

func send(t *testing.T, fd int, text string) {
	t.Helper()
	if err := unix.Send(fd, []byte(text), 0); err != nil {
		t.Error(err)
	}
}

// packet reads one packet, however often the loop wants to be called.
func packet(t *testing.T, l *Loop, fd int) string {
	t.Helper()
	buf := make([]byte, 100)
	for {
		n, err := l.Packet(fd, buf)
		if err == nil {
			return string(buf[:n])
		}
		if err == unix.EAGAIN {
			err = l.Await([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}})
		}
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
	}
}

// The other goroutines of a process with one processor get their turn, whether
// packets come fast, slowly or not at all: here one of them sends the packets.
func TestOthersGetTheirTurn(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	near, far := pair(t)
	var l Loop
	for _, gap := range []time.Duration{0, time.Millisecond, 3 * soon} {
		go func() {
			for range 20 {
				time.Sleep(gap)
				send(t, far, "packet")
			}
		}()
		for range 20 {
			if got := packet(t, &l, near); got != "packet" {
				t.Fatalf("%q", got)
			}
		}
	}
}

func TestEndOfStream(t *testing.T) {
	near, far := pair(t)
	var l Loop
	send(t, far, "last")
	if err := unix.Shutdown(far, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"last", ""} {
		if got := packet(t, &l, near); got != want {
			t.Fatalf("%q, not %q", got, want)
		}
	}
}

func TestDescriptors(t *testing.T) {
	near, far := pair(t)
	fds := []unix.PollFd{{Fd: int32(near), Events: unix.POLLIN}}
	for _, lively := range []bool{false, true} {
		for _, d := range []time.Duration{0, time.Millisecond, 2 * soon} {
			l := Loop{lively: lively}
			if n, err := l.Descriptors(fds, d); n != 0 || err != nil {
				t.Errorf("lively %t, %v: %d, %v", lively, d, n, err)
			}
		}
		l := Loop{lively: lively}
		send(t, far, "x")
		if n, err := l.Descriptors(fds, Forever); n != 1 || err != nil {
			t.Errorf("lively %t: %d, %v", lively, n, err)
		}
		packet(t, &l, near)
	}
}

// A pause lasts at least as long as asked for, unless a descriptor ends it.
func TestPause(t *testing.T) {
	near, far := pair(t)
	fds := []unix.PollFd{{Fd: int32(near), Events: unix.POLLIN}}
	var l Loop
	for _, d := range []time.Duration{time.Millisecond, 2 * soon} {
		begin := time.Now()
		if woken, err := l.Pause(fds, d); woken || err != nil || time.Since(begin) < d {
			t.Errorf("%v: woken %t after %v, %v", d, woken, time.Since(begin), err)
		}
	}
	send(t, far, "x")
	if woken, err := l.Pause(fds, time.Hour); !woken || err != nil {
		t.Errorf("not woken, %v", err)
	}
}
