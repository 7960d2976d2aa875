package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/cmd/sluice/internal/lockfile"
	"github.com/sluice-project/sluice/core/control"
)

// A node is a runner in a process and a network namespace of its own.
type node struct {
	t           *testing.T
	dir, socket string
	notify      *net.UnixConn // as systemd's
	cmd         *exec.Cmd
	stderr      lockedBuffer
	exited      chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startNode starts a runner and waits until it has told systemd that it is
// ready.
func startNode(t *testing.T) *node {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for the kernel's connection tracking, and for a network namespace")
	}
	dir := shortDir(t)
	n := &node{t: t, dir: dir, socket: dir + "/control.sock", exited: make(chan struct{})}
	conf := fmt.Sprintf(`
runner {
  name      = "fw1"
  lock_file = "%[1]s/lock"
  control {
    path = "%[2]s"
  }
  log {
    file = "%[1]s/log"
  }
  metrics {
    listen = "unix:%[1]s/metrics"
  }
}
pipeline "local" {
  source "netlink" {
  }
  filter "basic" {
  }
  sink "kernel" {
  }
}
`, dir, n.socket)
	if err := os.WriteFile(dir+"/node.hcl", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	n.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.notify.Close() })
	n.cmd = n.command()
	n.cmd.Stderr = &n.stderr
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = n.cmd.Wait()
		n.notify.Close()
		close(n.exited)
	}()
	t.Cleanup(func() {
		_ = n.cmd.Process.Kill()
		<-n.exited
		if t.Failed() {
			t.Logf("standard error:\n%s\nlog:\n%s", n.stderr.String(), n.log("log"))
		}
	})
	n.expect("READY=1")
	return n
}

// command returns a command that runs the node's configuration.
func (n *node) command() *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", "run", "-f", n.dir+"/node.hcl")
	cmd.Env = append(os.Environ(), asSluice+"=1", "NOTIFY_SOCKET="+n.dir+"/notify")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	return cmd
}

// expect waits for the node's next word to systemd that is no mere status.
func (n *node) expect(want string) {
	n.t.Helper()
	buf := make([]byte, 4096)
	for {
		got, err := n.notify.Read(buf)
		word, _, _ := strings.Cut(string(buf[:got]), "\n")
		switch {
		case err != nil || word != want && !strings.HasPrefix(word, "STATUS="):
			n.t.Fatalf("systemd is told %q, %v; want %q", buf[:got], err, want)
		case word == want:
			return
		}
	}
}

func (n *node) log(name string) string {
	text, _ := os.ReadFile(filepath.Join(n.dir, name))
	return string(text)
}

func (n *node) signal(s os.Signal) {
	n.t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		n.t.Fatal(err)
	}
}

// ended waits for the runner's end and checks that it left nothing.
func (n *node) ended(status int) {
	n.t.Helper()
	<-n.exited
	if got := n.cmd.ProcessState.ExitCode(); got != status {
		n.t.Errorf("exit status %d, want %d", got, status)
	}
	if _, err := os.Lstat(n.socket); err == nil {
		n.t.Error("the socket is still there")
	}
}

func TestRunUntilTerminated(t *testing.T) {
	n := startNode(t)
	text := execute(t, "", n.socket, "status")
	if !strings.Contains(text, "node fw1 ·") || len(regexp.MustCompile(`running +[0-9]+ `).FindAllString(text, -1)) != 3 {
		t.Error(text)
	}
	if text := execute(t, "", n.socket, "resync"); !strings.Contains(text, "local.source.netlink") || !strings.Contains(text, "done in") {
		t.Error(text)
	}
	for _, want := range []string{"none was taken\n", "fault\n"} {
		if text := execute(t, "", n.socket, "role"); !strings.Contains(text, "\n"+want) {
			t.Errorf("role: %s, want %s", text, want)
		}
		execute(t, "", n.socket, "role", "fault")
	}
	if !exists(n.socket + ".role") {
		t.Error("the role is not kept")
	}
	second, err := n.command().CombinedOutput()
	if err == nil || !strings.Contains(string(second), fmt.Sprintf("another runner runs: process %d;", n.cmd.Process.Pid)) {
		t.Errorf("a second runner: %v: %s", err, second)
	}
	n.signal(unix.SIGTERM)
	n.expect("STOPPING=1")
	n.ended(exitDone)
}

func TestRunUntilStopped(t *testing.T) {
	n := startNode(t)
	if text := execute(t, "", n.socket, "stop"); !strings.Contains(text, "done in") {
		t.Error(text)
	}
	// Another may follow at once.
	lock, err := lockfile.Acquire(n.dir + "/lock")
	if err != nil {
		t.Fatal(err)
	}
	lock.Release()
	n.ended(exitDone)
}

// logrotate moves the log away and sends USR1.
func TestRunReopensLog(t *testing.T) {
	n := startNode(t)
	if err := os.Rename(n.dir+"/log", n.dir+"/log.1"); err != nil {
		t.Fatal(err)
	}
	n.signal(unix.SIGUSR1)
	await(t, "the new log", func() bool { return strings.Contains(n.log("log"), "log opened again") })
	n.signal(unix.SIGTERM)
	n.ended(exitDone)
	if !strings.Contains(n.log("log"), "drained") || strings.Contains(n.log("log.1"), "drained") {
		t.Errorf("the drain is in the wrong file:\n%s\n%s", n.log("log.1"), n.log("log"))
	}
}

// A unit with a watchdog is told again and again that the runner works.
func TestRunFeedsWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "300000")
	n := startNode(t)
	for range 3 {
		n.expect("WATCHDOG=1")
	}
	n.signal(unix.SIGTERM)
	n.ended(exitDone)
}

// A second TERM ends a runner whose stages don't drain.
func TestRunSecondSignal(t *testing.T) {
	n := startNode(t)
	status, err := control.NewClient(n.socket).Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	sink := status.Pipelines[0].Stages[2].PID
	if err := unix.Kill(sink, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	n.signal(unix.SIGTERM)
	n.expect("STOPPING=1")
	n.signal(unix.SIGTERM)
	n.ended(exitFailed)
	await(t, "the end of the stopped stage", func() bool { return unix.Kill(sink, 0) == unix.ESRCH })
	if !strings.Contains(n.log("log"), "ends without draining") {
		t.Error(n.log("log"))
	}
}

func TestRunRefusesBadConfiguration(t *testing.T) {
	text := execute(t, "", "", "run", "-f", "testdata/pipelines/bad.hcl")
	if !strings.Contains(text, "sluice: the configuration has ") || !strings.HasSuffix(text, "--- exit status 1\n") {
		t.Error(text)
	}
}
