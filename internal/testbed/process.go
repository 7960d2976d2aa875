package testbed

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Process is a running child. Its standard output and error go to files, so it
// never blocks on a reader, unless the command already had others. The kernel
// kills it if this process dies, and Close if it still runs.
type Process struct {
	cmd      *exec.Cmd
	dir      string // holds the output files
	exited   chan struct{}
	err      error // of Wait; valid once exited is closed
	closeOne sync.Once
	closeErr error
}

// Start starts a command inside the namespace and waits for its end in the
// background. The command gets a process group of its own and the marker that
// Survivors looks for. Don't wrap it with Command: it is in the namespace anyway.
func (n *Namespace) Start(cmd *exec.Cmd) (*Process, error) { return start(n, cmd) }

// StartHere is Start without a namespace: the process stays in this one's.
func StartHere(cmd *exec.Cmd) (*Process, error) { return start(nil, cmd) }

// MustStart is Start for tests. When the test ends the process is killed, and
// if the test failed, the end of what it wrote is logged.
func (n *Namespace) MustStart(t TB, name string, args ...string) *Process {
	t.Helper()
	return n.MustStartCmd(t, program(name, args...))
}

// MustStartCmd is MustStart for a command with an environment, an input or
// descriptors of its own.
func (n *Namespace) MustStartCmd(t TB, cmd *exec.Cmd) *Process {
	t.Helper()
	p, err := n.Start(cmd)
	return p.owned(t, err)
}

func (p *Process) owned(t TB, err error) *Process {
	t.Helper()
	owned(t, p, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s (pid %d) wrote:\n%s", p.cmd.Path, p.Pid(), tail(p.Output(), 8<<10))
		}
	})
	return p
}

func start(n *Namespace, cmd *exec.Cmd) (*Process, error) {
	dir, err := tempDir()
	if err != nil {
		return nil, fmt.Errorf("testbed: start %s: %w", cmd.Path, err)
	}
	p := &Process{cmd: cmd, dir: dir, exited: make(chan struct{})}
	if err := p.start(n); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("testbed: start %s: %w", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *Process) start(n *Namespace) error {
	streams := map[string]*io.Writer{"stdout": &p.cmd.Stdout, "stderr": &p.cmd.Stderr}
	for name, writer := range streams {
		if *writer != nil {
			continue
		}
		file, err := os.Create(p.path(name))
		if err != nil {
			return err
		}
		defer file.Close() // the child has its own descriptor
		*writer = file
	}
	if p.cmd.SysProcAttr == nil {
		p.cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	p.cmd.SysProcAttr.Setpgid = true
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p.cmd.Env = markedEnv(p.cmd.Env)
	return spawn(n, p.cmd)
}

func (p *Process) path(stream string) string { return filepath.Join(p.dir, stream) }

// Pid is the process id, which is the id of the process group too.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Stdout is what the process wrote to its standard output so far.
func (p *Process) Stdout() string { return p.read("stdout") }

// Stderr is what the process wrote to its standard error so far.
func (p *Process) Stderr() string { return p.read("stderr") }

// Output is Stdout and Stderr, one after the other.
func (p *Process) Output() string { return p.Stdout() + p.Stderr() }

func (p *Process) read(stream string) string {
	data, err := os.ReadFile(p.path(stream))
	if err != nil {
		return ""
	}
	return string(data)
}

// AwaitOutput waits until the process has written text to either stream. It
// fails at once when the process ends without that.
func (p *Process) AwaitOutput(timeout time.Duration, text string) error {
	var failure error
	_ = Await(timeout, func() error {
		running := p.Running() // before reading: the last words count
		if strings.Contains(p.Output(), text) {
			failure = nil
			return nil
		}
		failure = fmt.Errorf("testbed: %s did not write %q but:\n%s", p.cmd.Path, text, tail(p.Output(), 2<<10))
		if !running {
			return nil
		}
		return failure
	})
	return failure
}

// Exited is closed when the process has ended and been waited for.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Wait waits for the end: nil for exit status 0, an *exec.ExitError for
// another, and an error that says so when timeout passes first.
func (p *Process) Wait(timeout time.Duration) error {
	select {
	case <-p.exited:
		return p.err
	case <-time.After(timeout):
		return fmt.Errorf("testbed: %s (pid %d) still runs after %v", p.cmd.Path, p.Pid(), timeout)
	}
}

// Signal sends a signal to the process, not to its children.
func (p *Process) Signal(signal os.Signal) error { return p.cmd.Process.Signal(signal) }

// Freeze stops the process as SIGSTOP does and returns when it stands still.
func (p *Process) Freeze() error { return Freeze(p.Pid()) }

// Thaw lets a frozen process go on.
func (p *Process) Thaw() error { return Thaw(p.Pid()) }

// Stop asks the process to end with SIGTERM and waits; if it does not end in
// time it is killed and an error says so.
func (p *Process) Stop(timeout time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("testbed: stop %s: %w", p.cmd.Path, err)
	}
	err := p.Wait(timeout)
	if p.Running() {
		p.Kill()
	}
	return err
}

// Kill ends the process, and no other, by SIGKILL and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.exited
}

// Close kills the process if it still runs, then whatever is left of its
// process group, and removes the files of its output.
func (p *Process) Close() error {
	p.closeOne.Do(func() {
		p.Kill()
		for _, left := range groupMembers(p.Pid()) {
			_ = unix.Kill(left, unix.SIGKILL)
		}
		p.closeErr = os.RemoveAll(p.dir)
	})
	return p.closeErr
}

// tail is the end of text, at most size bytes.
func tail(text string, size int) string {
	if len(text) <= size {
		return text
	}
	return "…" + text[len(text)-size:]
}
