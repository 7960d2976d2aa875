package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Main must be called first thing in the main function of every executable that
// starts processes with Rules. It returns at once in any other process than
// such a one, and in such a one never.
func Main() {
	text, confined := os.LookupEnv(Environment)
	if !confined {
		return
	}
	runtime.LockOSThread() // most of what follows is of the thread, and so is what exec keeps
	err := launch(text)
	fmt.Fprintln(os.Stderr, "confine:", err)
	os.Exit(1)
}

func launch(text string) error {
	var r Rules
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("%s: %w", Environment, err)
	}
	program, err := r.program()
	if err != nil {
		return err
	}
	environ := r.environ()
	if err := r.takeOn(); err != nil {
		return err
	}
	return fmt.Errorf("execute: %w", unix.Exec(program, os.Args, environ))
}

// takeOn goes from what needs privilege to what can't be undone.
func (r *Rules) takeOn() error {
	kept, err := present(r.Capabilities)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"limits", r.limit},
		{"no_new_privs", func() error { return unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }},
		{"bounding set", func() error { return boundCapabilities(kept) }},
		{"landlock", r.landlock},
		{"user", r.switchUser},
		{"capabilities", func() error { return dropCapabilities(kept) }},
		{"parent", r.dieWithParent},
		{"seccomp", r.seccomp},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// program returns the path to execute: of the image, by its descriptor.
func (r *Rules) program() (string, error) {
	if r.Image == 0 {
		return self, nil
	}
	var head [2]byte
	_, err := unix.Pread(r.Image, head[:], 0)
	if err == nil && string(head[:]) != "#!" { // else the interpreter opens it again
		unix.CloseOnExec(r.Image)
	}
	return "/proc/self/fd/" + strconv.Itoa(r.Image), err
}

// environ is that of the program. The runtime of a Go program takes the
// number of processors from files that it can't read any more; so it is told
// where a limit makes it another than that of the machine.
func (r *Rules) environ() (environ []string) {
	for _, one := range os.Environ() {
		if !strings.HasPrefix(one, Environment+"=") {
			environ = append(environ, one)
		}
	}
	if n := runtime.GOMAXPROCS(0); n != runtime.NumCPU() {
		environ = append(environ, "GOMAXPROCS="+strconv.Itoa(n))
	}
	return environ
}

// likelyVictim is the least that the out-of-memory killer adds to what a strict
// process is worth to it, in thousandths of the memory.
const likelyVictim = 500

func (r *Rules) limit() error {
	if r.Strict {
		preferToKill()
	}
	if r.Ordinary {
		if err := unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_NORMAL}, 0); err != nil {
			return fmt.Errorf("scheduler: %w", err)
		}
	}
	limits := map[int]uint64{unix.RLIMIT_DATA: r.Memory, unix.RLIMIT_NOFILE: r.Descriptors, unix.RLIMIT_NPROC: r.Threads}
	for resource, value := range limits {
		if value == 0 {
			continue
		}
		if err := lower(resource, value); err != nil {
			return err
		}
	}
	if !r.Strict {
		return nil
	}
	// No core file with what it knew; no message queues; no file where none was
	// granted, for which the directory of its socket would do.
	resources := []int{unix.RLIMIT_CORE, unix.RLIMIT_MSGQUEUE}
	if len(r.Write) == 0 {
		resources = append(resources, unix.RLIMIT_FSIZE)
	}
	for _, resource := range resources {
		if err := lower(resource, 0); err != nil {
			return err
		}
	}
	return nil
}

func lower(resource int, value uint64) error {
	var now unix.Rlimit
	if err := unix.Getrlimit(resource, &now); err != nil {
		return fmt.Errorf("limit %d: %w", resource, err)
	}
	value = min(value, now.Max)
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: value, Max: value}); err != nil {
		return fmt.Errorf("limit %d: %w", resource, err)
	}
	return nil
}

func preferToKill() {
	const file = "/proc/self/oom_score_adj"
	text, _ := os.ReadFile(file)
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && now < likelyVictim {
		_ = os.WriteFile(file, []byte(strconv.Itoa(likelyVictim)), 0)
	}
}

// switchUser keeps the capabilities, which are dropped next.
func (r *Rules) switchUser() error {
	if r.User == Keep {
		return nil
	}
	if r.User <= 0 || r.Group <= 0 || r.User >= math.MaxInt32 {
		return errors.New("not an unprivileged one")
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	// Raw calls: those of package syscall are made by all threads, which is
	// neither needed nor possible with cgo.
	if err := rawCall(unix.SYS_SETGROUPS, 0, 0, 0); err != nil {
		return fmt.Errorf("setgroups: %w", err)
	}
	group, user := uintptr(r.Group), uintptr(r.User)
	if err := rawCall(unix.SYS_SETRESGID, group, group, group); err != nil {
		return fmt.Errorf("group %d: %w", r.Group, err)
	}
	if err := rawCall(unix.SYS_SETRESUID, user, user, user); err != nil {
		return fmt.Errorf("user %d: %w", r.User, err)
	}
	return nil
}

func rawCall(number, a, b, c uintptr) error {
	if _, _, errno := unix.RawSyscall(number, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// dieWithParent asks again for what a change of credentials has cleared. The
// parent may have died meanwhile.
func (r *Rules) dieWithParent() error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if r.Parent != 0 && unix.Getppid() != r.Parent {
		return errors.New("it is gone")
	}
	return nil
}
