package testbed

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestProcessKeepsOutputAndStatus(t *testing.T) {
	n := MustNamespace(t, "proc")
	p := n.MustStart(t, "sh", "-c", "echo out; echo err >&2; exit 4")
	var exit *exec.ExitError
	if err := p.Wait(shortWait); !errors.As(err, &exit) || exit.ExitCode() != 4 {
		t.Fatalf("Wait: %v", err)
	}
	if p.Stdout() != "out\n" || p.Stderr() != "err\n" || p.Running() {
		t.Fatalf("stdout %q, stderr %q, running %v", p.Stdout(), p.Stderr(), p.Running())
	}
	if err := p.AwaitOutput(shortWait, "never"); err == nil || !strings.Contains(err.Error(), "never") {
		t.Fatalf("AwaitOutput of an ended process: %v", err)
	}
}

func TestProcessIsInTheNamespaceByItsOwnPid(t *testing.T) {
	n := MustNamespace(t, "proc")
	p := n.MustStart(t, "sh", "-c", "readlink /proc/$$/ns/net; echo $$; exec cat /dev/zero >/dev/null")
	if err := p.AwaitOutput(shortWait, fmt.Sprintf("\n%d\n", p.Pid())); err != nil {
		t.Fatal(err)
	}
	err := n.Do(func() error { return same(p.Stdout(), fmt.Sprintf("%s\n%d\n", namespaceOf(t), p.Pid())) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	n := MustNamespace(t, "freeze")
	p := n.MustStart(t, "sh", "-c", "while :; do :; done")
	if err := p.Freeze(); err != nil {
		t.Fatal(err)
	}
	before, err := CPUTime(p.Pid())
	if err != nil {
		t.Fatal(err)
	}
	if after, err := CPUTime(p.Pid()); err != nil || after != before {
		t.Fatalf("a frozen process used %v (%v)", after-before, err)
	}
	if err := p.Thaw(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, shortWait, func() error {
		if after, err := CPUTime(p.Pid()); err != nil || after <= before {
			return fmt.Errorf("still at %v (%v)", after, err)
		}
		return nil
	})
	if rss, pss, err := Memory(p.Pid()); err != nil || rss <= 0 || pss <= 0 || pss > rss {
		t.Errorf("memory: rss %d, pss %d, %v", rss, pss, err)
	}
	if err := p.Stop(shortWait); err == nil || p.Running() {
		t.Errorf("ended by SIGTERM: %v, running %v", err, p.Running())
	}
}

func TestCloseEndsTheWholeGroup(t *testing.T) {
	MustLeaveNothing(t)
	n := MustNamespace(t, "tree")
	// The grandchild has another environment and a parent that is gone.
	p, err := n.Start(exec.Command("sh", "-c", "(env -i sleep 1000 & echo started); sleep 1000"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	Eventually(t, shortWait, func() error {
		if got := groupMembers(p.Pid()); len(got) != 3 {
			return fmt.Errorf("group is %v", got)
		}
		return nil
	})
	children := Children(p.Pid())
	if len(children) != 1 || !slices.Equal(CommandLine(children[0]), []string{"sleep", "1000"}) {
		t.Errorf("children %v", children)
	}
	if tree := Tree(p.Pid()); !slices.Equal(tree, append([]int{p.Pid()}, children...)) {
		t.Errorf("tree %v", tree)
	}
	if got := Survivors(p); len(got) != 3 {
		t.Errorf("survivors %q", got)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, shortWait, func() error {
		if got := Survivors(p); len(got) > 0 {
			return fmt.Errorf("survivors %q", got)
		}
		return nil
	})
	if Alive(p.Pid()) {
		t.Error("the process is alive")
	}
}

func TestAwait(t *testing.T) {
	tries := 0
	err := Await(shortWait, func() error {
		if tries++; tries < 4 {
			return fmt.Errorf("try %d", tries)
		}
		return nil
	})
	if err != nil || tries != 4 {
		t.Fatalf("%v after %d tries", err, tries)
	}
	if err := Await(time.Nanosecond, func() error { return errors.New("the last") }); err == nil || !strings.Contains(err.Error(), "the last") {
		t.Fatalf("timed out with %v", err)
	}
	if err := Await(0, Holds(func() bool { return true })); err != nil {
		t.Fatal(err)
	}
	if err := Await(0, Holds(func() bool { return false })); err == nil {
		t.Fatal("what does not hold was awaited")
	}
}
