package confine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The user and the group that tests take on. Nobody else has this number.
const someUser = 61100

// TestMain lets the test binary be what the tests start, too.
func TestMain(m *testing.M) {
	Main()
	if what := os.Getenv("CONFINE_TEST"); what == "outer" {
		os.Exit(outer())
	} else if what != "" {
		probes[what]()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// outer is an unprivileged process that confines another.
func outer() int {
	r := Nothing()
	r.Strict, r.Programs = true, true
	if os.Args[1] == "state" {
		r.Read = []string{"/proc"}
	}
	cmd := probeCommand(&r, os.Args[1])
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	_ = cmd.Run()
	return 0
}

func probeCommand(r *Rules, probe string) *exec.Cmd {
	cmd := exec.Command(self)
	cmd.Args = append([]string{"probe"}, os.Args[2:]...)
	cmd.Env = append(os.Environ(), "CONFINE_TEST="+probe)
	if r != nil {
		if err := r.Apply(cmd); err != nil {
			panic(err)
		}
	}
	return cmd
}

// probe runs one of the probes and returns what it wrote.
func probe(t *testing.T, r *Rules, name string, args ...string) string {
	t.Helper()
	cmd := probeCommand(r, name)
	cmd.Args = append([]string{"probe"}, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil {
		fmt.Fprintln(&out, err)
	}
	return strings.TrimSpace(out.String())
}

// asNobody runs a probe as an unprivileged runner would.
func asNobody(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(self)
	cmd.Args = append([]string{"outer", name}, args...)
	cmd.Env = append(os.Environ(), "CONFINE_TEST=outer")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("outer: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

// say reports one attempt: an error's name, or ok.
func say(what string, err error) {
	text := "ok"
	if err != nil {
		text = err.Error()
		var errno syscall.Errno
		if n, ok := err.(syscall.Errno); ok {
			errno = n
			text = unix.ErrnoName(errno)
		}
	}
	fmt.Println(what+":", text)
}

func errnoOf(errno syscall.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// victim is the process whose number is the first argument.
func victim() int { n, _ := strconv.Atoi(os.Args[1]); return n }

var probes = map[string]func(){
	"state": func() {
		s, err := StateOf(os.Getpid())
		fmt.Println(s.User, strings.Join(s.Capabilities, " "), s.NoNewPrivileges, s.Seccomp, err, os.Getenv(Environment))
	},
	"read": func() {
		for _, path := range os.Args[1:] {
			_, err := os.Open(path)
			say(path, err)
		}
	},
	"write": func() {
		for _, path := range os.Args[1:] {
			say(path, os.WriteFile(path, []byte("x"), 0o600))
		}
	},
	"sockets": func() {
		socket := func(name string, family, typ int) {
			fd, err := unix.Socket(family, typ, 0)
			say(name, err)
			unix.Close(fd)
		}
		socket("tcp", unix.AF_INET, unix.SOCK_STREAM)
		socket("udp6", unix.AF_INET6, unix.SOCK_DGRAM)
		socket("netlink", unix.AF_NETLINK, unix.SOCK_RAW)
		socket("packet", unix.AF_PACKET, unix.SOCK_RAW)
		socket("vsock", unix.AF_VSOCK, unix.SOCK_STREAM)
		socket("datagram", unix.AF_UNIX, unix.SOCK_DGRAM)
		socket("stream", unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC)
	},
	"connect": func() {
		fd, _ := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		say("connect", unix.Connect(fd, &unix.SockaddrUnix{Name: os.Args[1]}))
	},
	"spy": func() {
		pid := victim()
		_, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		say("mem", err)
		say("ptrace", unix.PtraceAttach(pid))
		local := unix.Iovec{Base: &make([]byte, 8)[0], Len: 8}
		_, err = unix.ProcessVMReadv(pid, []unix.Iovec{local}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
		say("process_vm_readv", err)
		_, err = unix.PidfdOpen(pid, 0)
		say("pidfd_open", err)
	},
	"signal": func() {
		pid := victim()
		say("kill", unix.Kill(pid, unix.SIGTERM))
		say("tgkill", unix.Tgkill(pid, pid, unix.SIGTERM))
		_, _, errno := unix.Syscall6(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(unix.SIGTERM), 0, 0, 0, 0)
		say("rt_sigqueueinfo", errnoOf(errno))
		say("all", unix.Kill(-1, unix.SIGTERM))
		_, err := unix.FcntlInt(0, unix.F_SETOWN, pid)
		say("setown", err)
		say("survive the runner", unix.Prctl(unix.PR_SET_PDEATHSIG, 0, 0, 0, 0))
		// The kernel takes the option as an int.
		say("survive by the upper half", unix.Prctl(unix.PR_SET_PDEATHSIG|1<<32, 0, 0, 0, 0))
		say("itself", unix.Kill(os.Getpid(), 0))
		for _, pid := range []int{pid, os.Getpid(), 0} {
			var limit unix.Rlimit
			var processors unix.CPUSet
			say("limit", unix.Prlimit(pid, unix.RLIMIT_CPU, nil, &limit))
			if err := unix.SchedGetaffinity(0, &processors); err != nil {
				say("processors", err)
			}
			say("pin", unix.SchedSetaffinity(pid, &processors))
		}
	},
	"escape": func() {
		say("fork", exec.Command("/bin/true").Run())
		say("user namespace", unix.Unshare(unix.CLONE_NEWUSER))
		say("mount", unix.Mount("none", "/mnt", "tmpfs", 0, ""))
		_, err := unix.MemfdCreate("x", 0)
		say("memfd", err)
		_, err = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANON)
		say("shared memory", err)
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
		say("io_uring", errnoOf(errno))
		_, _, errno = unix.Syscall(1<<30|unix.SYS_GETPID, 0, 0, 0)
		say("x32", errnoOf(errno))
		_, _, errno = unix.Syscall(9999, 0, 0, 0)
		say("unknown", errnoOf(errno))
		_, _, errno = unix.Syscall(unix.SYS_CLONE3, 0, 0, 0)
		say("clone3", errnoOf(errno))
	},
	"memory": func() {
		var all [][]byte
		for range 1024 { // 1 GiB
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
		}
		fmt.Println("had", len(all), "MiB")
	},
	"descriptors": func() {
		for n := 0; ; n++ {
			if _, err := unix.Dup(0); err != nil {
				fmt.Println(n, err)
				return
			}
		}
	},
	"gain": func() {
		// A program that is privileged by its mode must not help.
		fmt.Println(unix.Exec(os.Args[1], []string{"probe"}, []string{"CONFINE_TEST=state"}))
	},
}

func asRoot(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 || !Has("setuid", "setgid", "setpcap") {
		t.Skip("needs root")
	}
}

// strict are the rules of a stranger's program with no grant.
func strict() *Rules {
	r := Nothing()
	r.Strict, r.Programs = true, true
	if os.Getuid() == 0 {
		r.User, r.Group = someUser, someUser
	}
	return &r
}

func TestWhatIsLeftOfPrivilege(t *testing.T) {
	asRoot(t)
	withOne := func(user int) *Rules {
		r := Nothing()
		r.User, r.Group, r.Capabilities = user, user, []string{"net_admin"}
		return &r
	}
	asRootWithNone := Nothing()
	for name, c := range map[string]struct {
		rules *Rules
		want  string
	}{
		"a user, no capability":  {strict(), fmt.Sprint(someUser, "  true true <nil>")},
		"a user, a capability":   {withOne(someUser), fmt.Sprint(someUser, " net_admin true true <nil>")},
		"root, a capability":     {withOne(Keep), "0 net_admin true true <nil>"},
		"root, and nothing else": {&asRootWithNone, "0  true true <nil>"},
	} {
		c.rules.Read = []string{"/proc"}
		if got := probe(t, c.rules, "state"); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got, want := asNobody(t, "state"), "65534  true true <nil>"; got != want {
		t.Errorf("as nobody: got %q, want %q", got, want)
	}
}

// A program that is privileged by its mode gives nothing back, nor can one be
// executed that lies outside of the system's directories.
func TestNothingIsGainedByExec(t *testing.T) {
	asRoot(t)
	path := filepath.Join(openDir(t), "setuid")
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, binary, 0o755), os.Chmod(path, 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	if LandlockVersion() > 0 {
		r := strict()
		r.Read, r.Write = []string{"/proc"}, []string{filepath.Dir(path)}
		if got := probe(t, r, "gain", path); got != "permission denied" {
			t.Errorf("a file in a directory that was granted: %s", got)
		}
	}
	// The program itself may be executed: by another name, once more.
	r := strict()
	r.Read = []string{"/proc"}
	cmd := probeCommand(r, "gain")
	cmd.Args = []string{"probe", self}
	out, _ := cmd.CombinedOutput()
	if got, want := strings.TrimSpace(string(out)), fmt.Sprint(someUser, "  true true <nil>"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// openDir returns a directory that everybody can enter and write.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

func lines(s string) []string { return strings.Split(s, "\n") }

func TestFiles(t *testing.T) {
	dir, granted := openDir(t), openDir(t)
	secret := filepath.Join(dir, "secret")
	for _, path := range []string{secret, filepath.Join(granted, "there")} {
		if err := os.WriteFile(path, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if LandlockVersion() == 0 {
		t.Skip("the kernel has no Landlock: what everybody may read can be read")
	}
	denied := func(path string) string { return path + ": open " + path + ": permission denied" }
	r := strict()
	r.Write = []string{granted}
	for name, c := range map[string]struct{ got, want []string }{
		"read": {lines(probe(t, r, "read", secret, dir, "/etc/passwd", "/proc/1/status", granted+"/there", "/usr/share", "/etc/localtime")),
			[]string{denied(secret), denied(dir), denied("/etc/passwd"), denied("/proc/1/status"), granted + "/there: ok", "/usr/share: ok", "/etc/localtime: ok"}},
		"write":     {lines(probe(t, r, "write", secret, dir+"/new", granted+"/new")), []string{denied(secret), denied(dir + "/new"), granted + "/new: ok"}},
		"no grants": {lines(probe(t, strict(), "write", granted+"/newer")), []string{denied(granted + "/newer")}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %q, want %q", name, c.got, c.want)
		}
	}
	if os.Getuid() == 0 {
		if got := asNobody(t, "read", secret); got != denied(secret) {
			t.Errorf("as nobody: %s", got)
		}
	}
}

func TestSockets(t *testing.T) {
	names := []string{"tcp", "udp6", "netlink", "packet", "vsock", "datagram", "stream"}
	network, all := strict(), Nothing()
	network.Network = true
	all.Network, all.Capabilities = true, []string{"net_raw"}
	for name, c := range map[string]struct {
		rules *Rules
		want  string
	}{
		"none":    {strict(), "EPERM EPERM EPERM EPERM EPERM EPERM ok"},
		"network": {network, "ok ok ok EPERM EPERM ok ok"},
		"and raw": {&all, "ok ok ok ok EPERM ok ok"},
	} {
		if name == "and raw" && !Has("net_raw") {
			continue
		}
		var want []string
		for i, result := range strings.Fields(c.want) {
			want = append(want, names[i]+": "+result)
		}
		if got := lines(probe(t, c.rules, "sockets")); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	path := filepath.Join(openDir(t), "control.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got := probe(t, strict(), "connect", path); got != "connect: EPERM" {
		t.Error(got)
	}
}

// bystander is a process that has done nothing.
func bystander(t *testing.T, uid int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// Even one of the same user is left alone.
func TestOtherProcesses(t *testing.T) {
	other := bystander(t, someUser)
	pid := strconv.Itoa(other.Process.Pid)
	for name, c := range map[string]struct{ got, want []string }{
		"spy": {lines(probe(t, strict(), "spy", pid)), []string{
			"mem: open /proc/" + pid + "/mem: permission denied", "ptrace: EPERM", "process_vm_readv: EPERM", "pidfd_open: EPERM"}},
		"signal": {lines(probe(t, strict(), "signal", pid)), []string{
			"kill: EPERM", "tgkill: EPERM", "rt_sigqueueinfo: EPERM", "all: EPERM", "setown: EPERM",
			"survive the runner: EPERM", "survive by the upper half: EPERM", "itself: ok",
			"limit: EPERM", "pin: EPERM", "limit: ok", "pin: ok", "limit: ok", "pin: ok"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("%s: got %q, want %q", name, c.got, c.want)
		}
	}
}

func TestWaysOut(t *testing.T) {
	want := []string{"fork: fork/exec /bin/true: operation not permitted", "user namespace: EPERM", "mount: EPERM", "memfd: EPERM",
		"shared memory: EPERM", "io_uring: EPERM", "x32: ENOSYS", "unknown: ENOSYS", "clone3: ENOSYS"}
	if got := lines(probe(t, strict(), "escape")); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestLimits(t *testing.T) {
	r := strict()
	r.Memory, r.Descriptors = 512<<20, 64
	if got := probe(t, r, "memory"); !strings.Contains(got, "out of memory") {
		t.Errorf("memory: %.300s", got)
	}
	got := probe(t, r, "descriptors")
	var n int
	if fmt.Sscan(got, &n); n == 0 || n > 64 || !strings.HasSuffix(got, "too many open files") {
		t.Errorf("descriptors: %s", got)
	}
}

func TestNotRunByHand(t *testing.T) {
	r := strict()
	r.Parent = 1
	if got := probe(t, r, "state"); !strings.Contains(got, "parent: it is gone") {
		t.Errorf("without its parent: %s", got)
	}
	root := strict()
	root.User, root.Group = 0, 0
	if got := probe(t, root, "state"); !strings.Contains(got, "user: not an unprivileged one") {
		t.Errorf("as root: %s", got)
	}
}

// What is no file is refused at once, whatever a look at it said before.
func TestProgramsAreFiles(t *testing.T) {
	dir := t.TempDir()
	fifo, device := filepath.Join(dir, "fifo"), filepath.Join(dir, "device")
	if err := errors.Join(unix.Mkfifo(fifo, 0o755), os.Symlink("/dev/zero", device)); err != nil {
		t.Fatal(err)
	}
	const want = "no regular file"
	for _, path := range []string{fifo, device, dir} {
		ended := make(chan error, 1)
		go func() { _, err := Sum(path); ended <- err }()
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", path, err, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: it is still read", path)
		}
		if image, _, err := OpenImage(path); err == nil || !strings.Contains(err.Error(), want) {
			image.Close()
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	for limit, want := range map[int64]string{4: "", 3: "too large for a program"} {
		if sum, err := copySum(io.Discard, strings.NewReader("one"), limit); err == nil && (want != "" || len(sum) != 64) || err != nil && err.Error() != want {
			t.Errorf("limit %d: %q, %v", limit, sum, err)
		}
	}
}
