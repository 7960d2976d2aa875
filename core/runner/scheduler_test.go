package runner

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/pipeline"
)

// runScheduled is the main function of the process that the next tests start:
// a scheduler as JSON, the sink's file, and "weak" for one without CAP_SYS_NICE.
func runScheduled() {
	conf := pipeline.Runner{Name: "node"}
	if err := json.Unmarshal([]byte(os.Args[2]), &conf.Scheduler); err != nil {
		panic(err)
	}
	if os.Args[4] == "weak" {
		panic(executeWeakly())
	}
	r, err := New(Options{
		Config:  &pipeline.Configuration{Runner: conf, Pipelines: []*pipeline.Pipeline{{Name: "p", Stages: usual(os.Args[3], object{})}}},
		Plugins: Plugins{Bundled: bundledNames()}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		panic(err)
	}
	err = r.Run(context.Background(), func() {
		status, _ := r.Status(context.Background())
		ids := fmt.Sprint(os.Getpid())
		for _, s := range r.graph().stages {
			ids += fmt.Sprint(" ", s.status().PID)
		}
		fmt.Printf("%s\n%s\n", status.Scheduler, ids)
	})
	fmt.Fprintln(os.Stderr, err)
}

// executeWeakly executes this program again, as one that can't have CAP_SYS_NICE.
func executeWeakly() error {
	runtime.LockOSThread() // what it may not have is each thread's own, and exec keeps the caller's
	if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_NICE, 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", append(os.Args[:4:4], ""), os.Environ())
}

// scheduled runs a runner until the test's end and returns what it says of its
// scheduler, and its process's id with those of its stages.
func scheduled(t *testing.T, config, strength string) (status string, ids []int, log *lockedBuffer) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("real-time scheduling takes root")
	}
	log = &lockedBuffer{}
	cmd := exec.Command("/proc/self/exe", "run-scheduled", config, filepath.Join(t.TempDir(), "out"), strength)
	cmd.Stderr = log
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		for _, id := range ids {
			eventually(t, "the stages end", func() bool { return !alive(id) })
		}
	})
	lines := bufio.NewScanner(stdout)
	if lines.Scan() {
		status = lines.Text()
	}
	if lines.Scan() {
		for _, field := range strings.Fields(lines.Text()) {
			id, _ := strconv.Atoi(field)
			ids = append(ids, id)
		}
	}
	if len(ids) != 5 {
		t.Fatalf("the runner did not start:\n%s", log)
	}
	return status, ids, log
}

// threads says how the threads of a process are scheduled: all alike.
func threads(t *testing.T, pid int) string {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]bool{}
	for _, e := range entries {
		id, _ := strconv.Atoi(e.Name())
		if is, err := unix.SchedGetAttr(id, 0); err == nil {
			all[fmt.Sprintf("policy %d priority %d nice %d flags %d", is.Policy, is.Priority, is.Nice, is.Flags)] = true
		}
	}
	var b bytes.Buffer
	for s := range all {
		fmt.Fprint(&b, s)
	}
	return b.String()
}

// Every thread of the runner and of its stages has the scheduler, those that are
// started later too.
func TestScheduler(t *testing.T) {
	t.Parallel()
	for config, want := range map[string][2]string{
		`{"Type":"rr","Priority":3}`:   {"rr 3", "policy 2 priority 3 nice 0 flags 0"},
		`{"Type":"fifo","Priority":2}`: {"fifo 2", "policy 1 priority 2 nice 0 flags 0"},
		`{"Type":"other","Nice":-7}`:   {"nice -7", "policy 0 priority 0 nice -7 flags 0"},
		`null`:                         {"", "policy 0 priority 0 nice 0 flags 0"},
	} {
		t.Run(want[0], func(t *testing.T) {
			status, ids, _ := scheduled(t, config, "")
			if status != want[0] {
				t.Errorf("status says %q, not %q", status, want[0])
			}
			if err := syscall.Kill(ids[2], syscall.SIGKILL); err != nil { // one that is started again inherits it, too
				t.Fatal(err)
			}
			ids = append(ids[:2], ids[3:]...)
			for _, id := range append(ids, another(t, ids[0], ids)) {
				if got := threads(t, id); got != want[1] {
					t.Errorf("process %d: %s, not %s", id, got, want[1])
				}
			}
		})
	}
}

// another waits for a child of a process other than those that are known.
func another(t *testing.T, parent int, known []int) (id int) {
	t.Helper()
	eventually(t, "the stage runs again", func() bool {
		entries, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
		for _, e := range entries {
			text, _ := os.ReadFile(e)
			for _, field := range strings.Fields(string(text)) {
				n, _ := strconv.Atoi(field)
				isKnown := false
				for _, k := range known {
					isKnown = isKnown || k == n
				}
				if name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", n)); !isKnown && bytes.Contains(name, []byte("plugin-exec")) {
					id = n
				}
			}
		}
		return id != 0
	})
	return id
}

// Who may not set a scheduler is told so, and runs on.
func TestSchedulerRefused(t *testing.T) {
	t.Parallel()
	status, ids, log := scheduled(t, `{"Type":"rr","Priority":3}`, "weak")
	if got := threads(t, ids[1]); status != "" || got != "policy 0 priority 0 nice 0 flags 0" {
		t.Errorf("status says %q; a stage has %s", status, got)
	}
	if !strings.Contains(log.String(), "scheduler not set") || !strings.Contains(log.String(), "operation not permitted") {
		t.Error(log)
	}
}
