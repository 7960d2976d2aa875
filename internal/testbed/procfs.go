package testbed

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// shortWait bounds what is done in no time unless something is broken.
const shortWait = 10 * time.Second

// procInfo is what the package reads from /proc/PID/stat.
type procInfo struct {
	pid, parent, group int
	state              byte
	name               string
}

// processInfo reads /proc/PID/stat. The name in it may hold any character, so
// the fields are counted from its last closing parenthesis.
func processInfo(pid int) (procInfo, error) {
	return readStat(pid, fmt.Sprintf("/proc/%d/stat", pid))
}

func readStat(pid int, path string) (procInfo, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return procInfo{}, err
	}
	open, end := bytes.IndexByte(data, '('), bytes.LastIndexByte(data, ')')
	if open < 0 || end < open {
		return procInfo{}, fmt.Errorf("testbed: %s is odd", path)
	}
	fields := strings.Fields(string(data[end+1:]))
	if len(fields) < 3 {
		return procInfo{}, fmt.Errorf("testbed: %s is short", path)
	}
	info := procInfo{pid: pid, state: fields[0][0], name: string(data[open+1 : end])}
	if info.parent, err = strconv.Atoi(fields[1]); err != nil {
		return procInfo{}, err
	}
	info.group, err = strconv.Atoi(fields[2])
	return info, err
}

// threadStates lists the states of a process's threads.
func threadStates(pid int) []byte {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	var states []byte
	for _, path := range paths {
		if info, err := readStat(pid, path); err == nil {
			states = append(states, info.state)
		}
	}
	return states
}

// processes lists all processes that have not ended, zombies left out.
func processes() []procInfo {
	names, _ := filepath.Glob("/proc/[0-9]*")
	var all []procInfo
	for _, name := range names {
		pid, err := strconv.Atoi(filepath.Base(name))
		if err != nil {
			continue
		}
		if info, err := processInfo(pid); err == nil && info.state != 'Z' && info.state != 'X' {
			all = append(all, info)
		}
	}
	return all
}

// Alive tells whether a process exists and is no zombie.
func Alive(pid int) bool {
	info, err := processInfo(pid)
	return err == nil && info.state != 'Z' && info.state != 'X'
}

// Children lists the living children of a process, in order of their ids.
func Children(pid int) []int {
	var children []int
	for _, info := range processes() {
		if info.parent == pid {
			children = append(children, info.pid)
		}
	}
	slices.Sort(children)
	return children
}

// Tree lists a process and all that descend from it, parents first.
func Tree(pid int) []int {
	tree := []int{pid}
	for i := 0; i < len(tree); i++ {
		tree = append(tree, Children(tree[i])...)
	}
	return tree
}

// CommandLine is the argument vector of a process, nil if it is gone.
func CommandLine(pid int) []string {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(data) == 0 {
		return nil
	}
	return strings.Split(strings.TrimRight(string(data), "\x00"), "\x00")
}

// CPUTime is the processor time, user and system together, that the given
// processes have used, threads that ended included. It is exact to the
// nanosecond, unlike the ticks of /proc/PID/stat.
func CPUTime(pids ...int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		var spent unix.Timespec
		// What clock_getcpuclockid(3) makes of a pid: CPUCLOCK_SCHED, process-wide.
		if err := unix.ClockGettime(int32(^pid<<3|2), &spent); err != nil {
			return 0, fmt.Errorf("testbed: processor time of %d: %w", pid, err)
		}
		sum += time.Duration(spent.Nano())
	}
	return sum, nil
}

// Memory is the resident memory of processes in bytes: rss counts shared pages
// for each of them, pss shares them out, so pss is the one to add up.
func Memory(pids ...int) (rss, pss int64, err error) {
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, 0, fmt.Errorf("testbed: memory: %w", err)
		}
		rss += kilobytes(string(data), "Rss:")
		pss += kilobytes(string(data), "Pss:")
	}
	return rss, pss, nil
}

// kilobytes finds "key   123 kB" in text and returns it in bytes.
func kilobytes(text, key string) int64 {
	_, rest, _ := strings.Cut(text, "\n"+key)
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	n, _ := strconv.ParseInt(fields[0], 10, 64)
	return n << 10
}

// groupMembers lists the living processes of a process group.
func groupMembers(group int) []int {
	var members []int
	for _, info := range processes() {
		if info.group == group {
			members = append(members, info.pid)
		}
	}
	return members
}

// Survivors lists, as "pid command line", the living processes that descend
// from a testbed of this process, even if their parents are gone: those that
// carry the marker, and those in the process group of one of the given
// processes, since a daemon may give its children another environment.
func Survivors(started ...*Process) []string {
	mark := []byte("\x00" + Marker + "=" + strconv.Itoa(os.Getpid()) + "\x00")
	var left []string
	for _, info := range processes() {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", info.pid))
		marked := bytes.Contains(slices.Concat([]byte{0}, env), mark)
		grouped := slices.ContainsFunc(started, func(p *Process) bool { return p.Pid() == info.group })
		if (marked || grouped) && info.pid != os.Getpid() {
			left = append(left, fmt.Sprintf("%d %s", info.pid, strings.Join(CommandLine(info.pid), " ")))
		}
	}
	return left
}

// MustLeaveNothing fails the test at its end if processes started by it still
// run. Call it first, so that it is checked after everything else was closed.
// It is for tests that do not run in parallel with others of their package.
func MustLeaveNothing(t TB) {
	t.Helper()
	t.Cleanup(func() {
		err := Await(shortWait, func() error {
			if left := Survivors(); len(left) > 0 {
				return fmt.Errorf("processes left behind:\n%s", strings.Join(left, "\n"))
			}
			return nil
		})
		if err != nil {
			t.Errorf("%v", err)
		}
	})
}
