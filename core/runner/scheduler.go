package runner

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/pipeline"
)

// policies are the kernel's numbers (linux/sched.h).
var policies = map[string]uint32{"other": unix.SCHED_NORMAL, "fifo": unix.SCHED_FIFO, "rr": unix.SCHED_RR}

// setScheduler has the kernel schedule all threads of this process so, and with
// them the stages that they start: a child, and a thread, inherits it. Without
// the privilege the node runs on as any other process, since flows that are
// replicated late are better than none; the log says so.
func (r *Runner) setScheduler() {
	c := r.graph().config.Runner.Scheduler
	if c == nil {
		return
	}
	if err := schedule(c); err != nil {
		r.log.Warn("scheduler not set, the node runs on without it", "type", c.Type, "error", err,
			"hint", "it takes CAP_SYS_NICE, or CPUSchedulingPolicy= in the systemd unit")
		return
	}
	r.log.Info("scheduler set", "scheduler", scheduler())
}

// schedule has the runtime set all its threads at once, between which none is
// started. It can't in a program with C in it, as a test may be: then it goes
// through the threads until several rounds find none to change, since one that is
// being started by another that was not changed yet can't be seen for a moment.
func schedule(c *pipeline.Scheduler) error {
	want := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: policies[c.Type], Priority: uint32(c.Priority), Nice: int32(c.Nice)}
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_SCHED_SETATTR, 0, uintptr(unsafe.Pointer(&want)), 0)
	switch errno {
	case 0:
		return nil
	case unix.ENOTSUP:
		return scheduleEach(&want)
	}
	return fmt.Errorf("scheduler: sched_setattr: %w", errno)
}

func scheduleEach(want *unix.SchedAttr) error {
	const rounds, enough = 100, 10
	quiet := 0
	for range rounds {
		changed, err := scheduleAll(want)
		if err != nil {
			return err
		}
		if quiet++; changed {
			quiet = 0
		}
		if quiet == enough {
			return nil
		}
	}
	return fmt.Errorf("scheduler: threads were started faster than they could be set, %d times", rounds)
}

func scheduleAll(want *unix.SchedAttr) (changed bool, err error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return false, fmt.Errorf("scheduler: %w", err)
	}
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		is, err := unix.SchedGetAttr(id, 0)
		if err == unix.ESRCH || err == nil && is.Policy == want.Policy && is.Priority == want.Priority && is.Nice == want.Nice {
			continue
		}
		changed = true
		set := *want
		if err := unix.SchedSetAttr(id, &set, 0); err != nil && err != unix.ESRCH {
			return false, fmt.Errorf("scheduler: sched_setattr: %w", err)
		}
	}
	return changed, nil
}

// scheduler returns how this process is scheduled, as in "rr 50" or "nice -5";
// "" if it is as most are.
func scheduler() string {
	is, err := unix.SchedGetAttr(os.Getpid(), 0)
	if err != nil {
		return ""
	}
	for name, policy := range policies {
		if is.Policy == policy && is.Priority != 0 {
			return fmt.Sprintf("%s %d", name, is.Priority)
		}
	}
	if is.Nice != 0 {
		return fmt.Sprintf("nice %d", is.Nice)
	}
	return ""
}
