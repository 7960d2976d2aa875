package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// daemonConf has every path in its directory.
const daemonConf = "General {\nLockFile DIR/lock\nLogFile DIR/log\nUNIX { Path DIR/ctl }\n}\nStats { LogFile DIR/stats }\n"

// A daemon is a conntrackd, ours or the real one, in a network namespace of its
// own.
type daemon struct {
	*exec.Cmd
	stderr lockedBuffer
	exited chan struct{}
}

// startDaemon runs a command as sluice, or the real conntrackd if program is not
// "".
func startDaemon(t *testing.T, program string, args ...string) *daemon {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root for the kernel's connection tracking, and for a network namespace")
	}
	if program == "" {
		program = "/proc/self/exe"
	}
	d := &daemon{Cmd: exec.Command(program, args...), exited: make(chan struct{})}
	d.Env = append(os.Environ(), asSluice+"=1")
	d.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	d.Stderr = &d.stderr
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = d.Wait(); close(d.exited) }()
	t.Cleanup(func() { _ = d.Process.Kill(); <-d.exited })
	return d
}

// runs waits until a daemon answers.
func (d *daemon) runs(t *testing.T, dir string) {
	t.Helper()
	await(t, "the daemon's socket", func() bool {
		select {
		case <-d.exited:
			t.Fatalf("it ended: %s", d.stderr.String())
		default:
		}
		_, err := os.Lstat(dir + "/ctl")
		return err == nil
	})
}

// refuses checks that a daemon does not start beside another.
func (d *daemon) refuses(t *testing.T) {
	t.Helper()
	<-d.exited
	if d.ProcessState.Success() || !strings.Contains(d.stderr.String(), "lockfile") {
		t.Errorf("exit status %d: %s", d.ProcessState.ExitCode(), d.stderr.String())
	}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// What a daemon that was killed leaves keeps the next one from starting no more
// than a running one lets it start.
func TestConntrackdKilled(t *testing.T) {
	dir := conntrackdConf(t, daemonConf)
	killed := startDaemon(t, "", "conntrackd", "-C", dir+"/conf")
	killed.runs(t, dir)
	startDaemon(t, "", "conntrackd", "-C", dir+"/conf").refuses(t)
	_ = killed.Process.Kill()
	<-killed.exited
	if !exists(dir + "/lock") {
		t.Fatal("it left no lock file: this tests nothing")
	}
	if err := os.Remove(dir + "/ctl"); err != nil {
		t.Fatal(err)
	}
	next := startDaemon(t, "", "conntrackd", "-C", dir+"/conf")
	next.runs(t, dir)
	_ = next.Process.Signal(unix.SIGTERM)
	<-next.exited
	if exists(dir + "/lock") {
		t.Error("the lock file is still there")
	}
}

// The real conntrackd and the drop-in never run at once.
func TestConntrackdBesideTheRealOne(t *testing.T) {
	real, err := exec.LookPath("conntrackd")
	if err != nil {
		t.Skip(err)
	}
	programs := map[string][]string{"the real one": {real}, "the drop-in": {"", "conntrackd"}}
	start := func(name, dir string) *daemon {
		p := programs[name]
		return startDaemon(t, p[0], append(p[1:len(p):len(p)], "-C", dir+"/conf")...)
	}
	for first, second := range map[string]string{"the real one": "the drop-in", "the drop-in": "the real one"} {
		t.Run(first+" first", func(t *testing.T) {
			dir := conntrackdConf(t, daemonConf)
			one := start(first, dir)
			one.runs(t, dir)
			start(second, dir).refuses(t)
			_ = one.Process.Signal(unix.SIGTERM)
			<-one.exited
			two := start(second, dir)
			two.runs(t, dir)
			start(first, dir).refuses(t)
		})
	}
}

// A signal during the start leaves nothing behind. The log's file is a pipe that
// nobody reads, at which the start waits.
func TestSignalDuringStart(t *testing.T) {
	pipelines := "runner {\n  lock_file = \"DIR/lock\"\n  control {\n    path = \"DIR/ctl\"\n  }\n  log {\n    file = \"DIR/log\"\n  }\n}\npipeline \"local\" {\n  source \"netlink\" {}\n  sink \"log\" {\n    path = \"DIR/flows\"\n  }\n}\n"
	for name, args := range map[string][]string{"run": {"run", "-f", "DIR/node.hcl"}, "conntrackd": {"conntrackd", "-C", "DIR/conf"}} {
		for _, twice := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, twice %v", name, twice), func(t *testing.T) {
				dir := conntrackdConf(t, daemonConf)
				if err := errors.Join(os.WriteFile(dir+"/node.hcl", []byte(strings.ReplaceAll(pipelines, "DIR", dir)), 0o600),
					unix.Mkfifo(dir+"/log", 0o600)); err != nil {
					t.Fatal(err)
				}
				d := startDaemon(t, "", strings.Split(strings.ReplaceAll(strings.Join(args, " "), "DIR", dir), " ")...)
				await(t, "the lock file", func() bool { return exists(dir + "/lock") })
				_ = d.Process.Signal(unix.SIGTERM)
				status := exitDone
				if twice {
					status = exitFailed
					await(t, "its end", func() bool {
						_ = d.Process.Signal(unix.SIGTERM)
						select {
						case <-d.exited:
							return true
						default:
							return false
						}
					})
				} else {
					reader, err := os.OpenFile(dir+"/log", os.O_RDONLY|unix.O_NONBLOCK, 0)
					if err != nil {
						t.Fatal(err)
					}
					defer reader.Close()
				}
				<-d.exited
				if got := d.ProcessState.ExitCode(); got != status {
					t.Errorf("exit status %d, want %d: %s", got, status, d.stderr.String())
				}
				for _, name := range []string{"lock", "ctl"} {
					if exists(dir + "/" + name) {
						t.Errorf("%s is still there", name)
					}
				}
			})
		}
	}
}

// Who may not make a lock file is told so.
func TestLockWithoutRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become somebody else")
	}
	dir := conntrackdConf(t, daemonConf)
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(dir+"/conf", 0o644)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "conntrackd", "-C", dir+"/conf")
	cmd.Env = append(os.Environ(), asSluice+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if want := "lock file " + dir + "/lock: no file can be made there: permission denied"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("%v: %s\nwant %s", err, out, want)
	}
}
