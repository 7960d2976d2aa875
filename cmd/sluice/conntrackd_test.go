package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
)

// conntrackdConf writes a conntrackd.conf with a Stats section, which needs no
// link. In text DIR is its directory.
func conntrackdConf(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = shortDir(t)
	text = strings.ReplaceAll(text, "DIR", dir)
	if err := os.WriteFile(dir+"/conf", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Without a UNIX Path the daemon listens where the commands look for it.
func TestConntrackdDefaultSocket(t *testing.T) {
	path := conntrackdConf(t, "General { LockFile DIR/lock }\nStats { LogFile DIR/stats }\n") + "/conf"
	a := newApp(nil, &bytes.Buffer{}, &bytes.Buffer{})
	conf, err := a.loadConntrackdConf(t.Context(), path, &manner{})
	if err != nil {
		t.Fatal(err)
	}
	file, err := a.readConntrackdConf(path)
	if err != nil {
		t.Fatal(err)
	}
	if asked, listens := setupOf(file.Settings()).Socket, conf.Runner.Control.Path; asked != listens {
		t.Errorf("commands ask at %s, the daemon listens at %s", asked, listens)
	}
}

// A lock file that stays keeps the next daemon from starting. So one that a
// second TERM ends at once takes it along.
func TestConntrackdSecondSignal(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root for the kernel's connection tracking, and for a network namespace")
	}
	dir := conntrackdConf(t, "General {\nLockFile DIR/lock\nLogFile DIR/log\nUNIX { Path DIR/ctl }\n}\nStats { LogFile DIR/stats }\n")
	cmd := exec.Command("/proc/self/exe", "conntrackd", "-C", dir+"/conf")
	cmd.Env = append(os.Environ(), asSluice+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	var stderr lockedBuffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	logged := func(words string) func() bool {
		return func() bool {
			log, _ := os.ReadFile(dir + "/log")
			return strings.Contains(string(log), words)
		}
	}
	await(t, "all stages", logged("all stages run"))
	status, err := control.NewClient(dir + "/ctl").Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	stages := status.Pipelines[0].Stages
	if err := unix.Kill(stages[len(stages)-1].PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{"msg=drains", "ends without draining"} {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		await(t, words, logged(words))
	}
	_ = cmd.Wait()
	for _, name := range []string{"lock", "ctl"} {
		if _, err := os.Lstat(dir + "/" + name); err == nil {
			t.Errorf("%s is still there; standard error: %s", name, stderr.String())
		}
	}
}
