package testbed

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestNamespaceDoIsInsideAndComesBack(t *testing.T) {
	n := MustNamespace(t, "do")
	outside := namespaceOf(t)
	var inside, nested, after string
	other := MustNamespace(t, "other")
	err := n.Do(func() error {
		inside = namespaceOf(t)
		err := other.Do(func() error { nested = namespaceOf(t); return nil })
		after = namespaceOf(t)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if inside == outside || nested == inside || after != inside || namespaceOf(t) != outside {
		t.Fatalf("namespaces: outside %s, inside %s, nested %s, after it %s, now %s",
			outside, inside, nested, after, namespaceOf(t))
	}
	want := errors.New("mine")
	if err := n.Do(func() error { return want }); err != want {
		t.Fatalf("Do returned %v", err)
	}
}

func namespaceOf(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestNamespaceRunsCommandsInside(t *testing.T) {
	n := MustNamespace(t, "cmd")
	want, err := n.Run("readlink", "/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Do(func() error { return same(namespaceOf(t), strings.TrimSpace(want)) }); err != nil {
		t.Fatal(err)
	}
	byName, err := exec.Command("ip", "netns", "exec", n.Name(), "readlink", "/proc/self/ns/net").Output()
	if err != nil || string(byName) != want {
		t.Fatalf("ip netns exec says %q, %v; want %q", byName, err, want)
	}
	_, err = n.Run("sh", "-c", "echo broken >&2; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "broken") {
		t.Fatalf("failed command: %v", err)
	}
}

func same(got, want string) error {
	if got != want {
		return fmt.Errorf("%q, not %q", got, want)
	}
	return nil
}

func TestNamespaceSocketsStayInside(t *testing.T) {
	n := MustNamespace(t, "sock")
	listener, err := n.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	target := addrPort(listener.Addr())
	source := netip.MustParseAddrPort("127.0.0.9:4000")
	conn, err := n.Dial(t.Context(), "tcp", source, target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := addrPort(conn.LocalAddr()); got != source {
		t.Errorf("source is %s, not %s", got, source)
	}
	if outside, err := net.Dial("tcp", target.String()); err == nil {
		outside.Close()
		t.Error("the listener can be reached from outside")
	}
}

func TestSysctlIsOfTheNamespace(t *testing.T) {
	a, b := MustNamespace(t, "a"), MustNamespace(t, "b")
	const name = "net.netfilter.nf_conntrack_tcp_loose"
	if err := a.Sysctl(name, "0"); err != nil {
		t.Fatal(err)
	}
	inA, errA := a.ReadSysctl(name)
	inB, errB := b.ReadSysctl(name)
	if inA != "0" || inB != "1" || errA != nil || errB != nil {
		t.Fatalf("a has %q (%v), b has %q (%v)", inA, errA, inB, errB)
	}
}

func TestSweepRemovesWhatDeadProcessesLeft(t *testing.T) {
	Require(t)
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("slc-%d-1-left", dead.Process.Pid)
	if err := run("ip", "netns", "add", name); err != nil {
		t.Fatal(err)
	}
	mine := MustNamespace(t, "alive")
	sweep()
	if _, err := os.Stat(filepath.Join(namespaceDir, name)); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", name, err)
	}
	if _, err := os.Stat(mine.Path()); err != nil {
		t.Errorf("swept a living one's: %v", err)
	}
}

func TestLeftovers(t *testing.T) {
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	gone := fmt.Sprintf("slc-%d-7-fw", dead.Process.Pid)
	for _, name := range []string{gone, fmt.Sprintf("slc-%d-1-fw", os.Getpid()), "slc-x-1", "slc-0-1", "slc--1-2", "other-1-2"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := leftovers(dir); !slices.Equal(got, []string{gone}) {
		t.Fatalf("leftovers are %q, not only %q", got, gone)
	}
}

func TestProbe(t *testing.T) {
	if err := Probe("nonsense"); err == nil {
		t.Error("an unknown need is met")
	}
	if err := probeProgram("no-such-program"); err == nil {
		t.Error("a program that does not exist is found")
	}
}

// fakeTB records how a helper ended a test.
type fakeTB struct {
	TB
	ended string
}

func (f *fakeTB) Helper()                          {}
func (f *fakeTB) Skipf(format string, args ...any) { f.ended = "skip: " + fmt.Sprintf(format, args...) }
func (f *fakeTB) Fatalf(format string, args ...any) {
	f.ended = "fatal: " + fmt.Sprintf(format, args...)
}

func TestRequireSkipsButFailsInCI(t *testing.T) {
	for _, tc := range []struct{ ci, want string }{{"", "skip: "}, {"true", "fatal: "}} {
		t.Setenv("CI", tc.ci)
		fake := &fakeTB{}
		Require(fake, "nonsense")
		if !strings.HasPrefix(fake.ended, tc.want) {
			t.Errorf("CI=%q: %q, want %q", tc.ci, fake.ended, tc.want)
		}
	}
}

func TestConntrackMaxGoesBack(t *testing.T) {
	Require(t)
	before, err := readLimit()
	if err != nil {
		t.Fatal(err)
	}
	restoreA, errA := RaiseConntrackMax(before + 1000)
	restoreB, errB := RaiseConntrackMax(before + 500)
	if err := errors.Join(errA, errB); err != nil {
		t.Fatal(err)
	}
	if now, err := readLimit(); err != nil || now < before+1000 {
		t.Errorf("limit is %d (%v), not at least %d", now, err, before+1000)
	}
	if err := restoreA(); err != nil {
		t.Error(err)
	}
	if now, err := readLimit(); err != nil || now < before+500 {
		t.Errorf("limit went down to %d (%v) while somebody needs it", now, err)
	}
	if err := restoreB(); err != nil {
		t.Error(err)
	}
}
