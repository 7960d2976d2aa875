package testbed

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// Marker is the environment variable that each process started by a testbed
// carries; its value is the pid of the process that uses the testbed.
const Marker = "SLUICE_TESTBED"

// spawnJob is one command to start in one namespace, nil for this process's.
type spawnJob struct {
	namespace *Namespace
	cmd       *exec.Cmd
	started   chan error
}

// spawner is the one thread that starts children. PR_SET_PDEATHSIG follows the
// thread, so a child started on a thread that ends would die with it: this one
// lives as long as the process.
var spawner = sync.OnceValue(func() chan<- spawnJob {
	jobs := make(chan spawnJob)
	go func() {
		runtime.LockOSThread()
		for job := range jobs {
			job.started <- job.start()
		}
	}()
	return jobs
})

func spawn(n *Namespace, cmd *exec.Cmd) error {
	job := spawnJob{namespace: n, cmd: cmd, started: make(chan error, 1)}
	spawner() <- job
	return <-job.started
}

func (j spawnJob) start() error {
	if j.namespace == nil {
		return j.cmd.Start()
	}
	return j.namespace.Do(j.cmd.Start)
}

// markedEnv adds the marker to an environment, or to this process's own if env
// is nil.
func markedEnv(env []string) []string {
	if env == nil {
		env = os.Environ()
	}
	return append(env[:len(env):len(env)], Marker+"="+strconv.Itoa(os.Getpid()))
}

// program is exec.Command that also finds programs in the sbin directories.
func program(name string, args ...string) *exec.Cmd {
	if path, err := findProgram(name); err == nil {
		name = path
	}
	return exec.Command(name, args...)
}

// run runs a program in this process's namespace.
func run(name string, args ...string) error {
	_, err := output(program(name, args...))
	return err
}

// output runs a command and returns its standard output; the error tells the
// command and what it wrote to standard error.
func output(cmd *exec.Cmd) (string, error) {
	var stderr bytes.Buffer
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// Freeze stops any process by its id and returns when all of its threads stand
// still.
func Freeze(pid int) error {
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		return fmt.Errorf("testbed: freeze %d: %w", pid, err)
	}
	return Await(shortWait, func() error {
		for _, state := range threadStates(pid) {
			if state != 'T' {
				return fmt.Errorf("a thread of process %d is in state %c, not T", pid, state)
			}
		}
		return nil
	})
}

// Thaw lets a frozen process go on.
func Thaw(pid int) error {
	if err := unix.Kill(pid, unix.SIGCONT); err != nil {
		return fmt.Errorf("testbed: thaw %d: %w", pid, err)
	}
	return nil
}
