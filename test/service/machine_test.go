package service

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/testbed"
)

// patience is how long a machine may take for anything; it never does.
const patience = 30 * time.Second

// A machine has booted systemd in namespaces of its own.
type machine struct {
	t    *testing.T
	dir  string
	root string // its root directory, as seen from here
	init int    // its process 1
}

// boot boots a machine, which is gone when the test ends.
func boot(t *testing.T) *machine {
	t.Helper()
	testbed.Require(t)
	for _, program := range []string{"/lib/systemd/systemd", "/usr/bin/systemctl", "/usr/bin/dpkg", "/usr/bin/nsenter"} {
		if _, err := os.Stat(program); err != nil {
			t.Skipf("this machine lacks %s", program)
		}
	}
	m := &machine{t: t, dir: t.TempDir()}
	if err := unix.Mount("tmpfs", m.dir, "tmpfs", 0, "mode=755"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(m.dir, unix.MNT_DETACH) })
	script, err := filepath.Abs("testdata/machine.sh")
	if err != nil {
		t.Fatal(err)
	}
	console, err := os.Create(m.dir + "/console")
	if err != nil {
		t.Fatal(err)
	}
	defer console.Close()
	cmd := exec.Command("sh", script, m.dir)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWCGROUP | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		Pdeathsig:  unix.SIGKILL, Setsid: true,
	}
	m.enterGroup(cmd.SysProcAttr)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	m.init = cmd.Process.Pid
	m.root = fmt.Sprintf("/proc/%d/root", m.init)
	t.Cleanup(func() {
		if t.Failed() {
			console, _ := os.ReadFile(m.dir + "/console")
			t.Logf("console:\n%s", console)
		}
		_ = cmd.Process.Kill() // and with it goes all that runs there
		_ = cmd.Wait()
	})
	testbed.Eventually(t, patience, func() error {
		if out, err := m.try("systemctl", "is-system-running"); err != nil {
			return fmt.Errorf("%v: %s", err, out)
		}
		return nil
	})
	return m
}

// enterGroup has a process start in a control group of its own, which becomes
// the machine's root of them.
func (m *machine) enterGroup(attributes *syscall.SysProcAttr) {
	m.t.Helper()
	out, err := exec.Command("findmnt", "-nft", "cgroup2", "-o", "TARGET").Output()
	group := strings.TrimSpace(string(out))
	if err != nil || group == "" {
		m.t.Skip("this machine has no control groups of version 2")
	}
	group = filepath.Join(group, "sluice-test-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(group, 0o755); err != nil {
		m.t.Skip("control groups can't be made: ", err)
	}
	m.t.Cleanup(func() { // from the leaves up; a group is busy until its last process is gone
		testbed.Eventually(m.t, patience, func() error {
			if out, err := exec.Command("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", "+").CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w", out, err)
			}
			return nil
		})
	})
	fd, err := unix.Open(group, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { unix.Close(fd) })
	attributes.UseCgroupFD, attributes.CgroupFD = true, fd
}

// try runs a command on the machine.
func (m *machine) try(command ...string) (string, error) {
	cmd := exec.Command("nsenter", append([]string{"-t", strconv.Itoa(m.init), "-a", "-r", "-w"}, command...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=cat")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// run runs a command that must not fail.
func (m *machine) run(command ...string) string {
	m.t.Helper()
	out, err := m.try(command...)
	if err != nil {
		m.t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return out
}

// await waits until what a command prints contains want.
func (m *machine) await(want string, command ...string) {
	m.t.Helper()
	testbed.Eventually(m.t, patience, func() error {
		out, err := m.try(command...)
		if !strings.Contains(out, want) {
			return fmt.Errorf("%s: %v: %s: no %q", strings.Join(command, " "), err, out, want)
		}
		return nil
	})
}

func (m *machine) write(path, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.root+path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.root+path, []byte(text), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(path string) string {
	m.t.Helper()
	text, err := os.ReadFile(m.root + path)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

func (m *machine) has(path string) bool {
	_, err := os.Lstat(m.root + path)
	return err == nil
}

// copy copies a file of ours onto the machine.
func (m *machine) copy(from, to string) {
	m.t.Helper()
	in, err := os.Open(from)
	if err != nil {
		m.t.Fatal(err)
	}
	defer in.Close()
	out, err := os.Create(m.root + to)
	if err != nil {
		m.t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, in); err != nil {
		m.t.Fatal(err)
	}
}
