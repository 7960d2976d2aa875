package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A spawner starts every child from one operating-system thread that lives as
// long as the runner, since the kernel's parent-death signal follows the thread
// that forked, not the process.
type spawner struct {
	requests  chan spawnRequest
	closed    chan struct{}
	closeOnce sync.Once
	lifeline  *os.File // reading end, inherited by every child as descriptor 3
	keep      *os.File // writing end, whose closing children notice
	sockets   *socketFolder
}

type spawnRequest struct {
	cmd    *exec.Cmd
	netns  string
	result chan error
}

func newSpawner() (*spawner, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("spawner: lifeline: %w", err)
	}
	sockets, err := openSocketFolder(os.TempDir())
	if err != nil {
		r.Close()
		w.Close()
		return nil, err
	}
	s := &spawner{requests: make(chan spawnRequest), closed: make(chan struct{}), lifeline: r, keep: w, sockets: sockets}
	go s.run()
	return s, nil
}

func (s *spawner) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	for {
		select {
		case r := <-s.requests:
			r.result <- startIn(r.netns, r.cmd)
		case <-s.closed:
			return
		}
	}
}

// start starts cmd in a network namespace (a path; "" for the runner's) so
// that it dies with the runner. cmd.ExtraFiles[0] must be the lifeline. None of
// its files may be closed before start returns: another's descriptor of the
// same number would be inherited, and the thread hangs if that is the pipe over
// which fork and exec tell that they are done. Once ctx has ended nothing is
// started any more.
func (s *spawner) start(ctx context.Context, cmd *exec.Cmd, netns string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	r := spawnRequest{cmd, netns, make(chan error, 1)}
	select {
	case s.requests <- r:
		return <-r.result
	case <-s.closed:
		return errors.New("the runner is ending")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close ends the thread; children that still live are killed by the kernel.
func (s *spawner) close() {
	s.closeOnce.Do(func() {
		close(s.closed)
		s.keep.Close()
		s.lifeline.Close()
		s.sockets.close()
	})
}

// startIn starts cmd while the calling, locked thread is in netns.
func startIn(netns string, cmd *exec.Cmd) error {
	if netns == "" {
		return cmd.Start()
	}
	target, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", netns, err)
	}
	defer unix.Close(target)
	own, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(target, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", netns, err)
	}
	startErr := cmd.Start()
	if err := unix.Setns(own, unix.CLONE_NEWNET); err != nil {
		// Every later child would start in the wrong place.
		panic(fmt.Sprintf("spawner: leave network namespace %s: %v", netns, err))
	}
	return startErr
}
