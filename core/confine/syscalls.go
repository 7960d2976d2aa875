package confine

import (
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// ordinary are the system calls that programs compute, wait, and read and write
// with, in any language. What is not here is refused: processes (fork, but not
// threads), tracing, mounts, modules, keys, BPF, io_uring, other processes'
// memory and descriptors, System V IPC, memory without a limit (memfd_create).
var ordinary = []string{
	// descriptors and files
	"read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2",
	"open", "openat", "openat2", "creat", "close", "close_range", "dup", "dup2", "dup3", "pipe", "pipe2",
	"lseek", "_llseek", "stat", "fstat", "lstat", "newfstatat", "fstatat64", "stat64", "fstat64", "lstat64", "statx",
	"statfs", "fstatfs", "statfs64", "fstatfs64", "access", "faccessat", "faccessat2", "readlink", "readlinkat",
	"getdents", "getdents64", "getcwd", "chdir", "fchdir", "umask", "truncate", "ftruncate", "truncate64", "ftruncate64",
	"fsync", "fdatasync", "sync_file_range", "fallocate", "fadvise64", "fadvise64_64", "readahead", "flock", "sendfile", "sendfile64",
	"splice", "tee", "copy_file_range", "mkdir", "mkdirat", "rmdir", "unlink", "unlinkat", "rename", "renameat", "renameat2",
	"link", "linkat", "symlink", "symlinkat", "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat",
	"utime", "utimes", "utimensat", "futimesat", "getxattr", "lgetxattr", "fgetxattr", "listxattr", "llistxattr", "flistxattr",
	"inotify_init", "inotify_init1", "inotify_add_watch", "inotify_rm_watch",
	// waiting
	"poll", "ppoll", "select", "_newselect", "pselect6", "epoll_create", "epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "epoll_pwait2",
	"eventfd", "eventfd2", "signalfd", "signalfd4", "timerfd_create", "timerfd_settime", "timerfd_gettime",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "time", "times", "alarm", "pause",
	"getitimer", "setitimer", "timer_create", "timer_settime", "timer_gettime", "timer_getoverrun", "timer_delete",
	"futex", "futex_waitv", "futex_wake", "futex_wait", "futex_requeue", "restart_syscall",
	// memory; mmap is below
	"munmap", "mprotect", "mremap", "madvise", "brk", "mincore", "msync", "mlock", "mlock2", "munlock", "mlockall", "munlockall",
	"membarrier", "get_mempolicy", "pkey_alloc", "pkey_free", "pkey_mprotect", "mseal",
	// signals, the thread and the process; kill, clone and prctl are below
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "rt_sigpending", "rt_sigsuspend", "rt_sigtimedwait", "sigaltstack", "sigreturn",
	"exit", "exit_group", "execve", "execveat", "wait4", "waitid", "set_tid_address", "set_robust_list", "get_robust_list", "rseq", "arch_prctl",
	"set_thread_area", "get_thread_area", "getpid", "getppid", "gettid", "getpgid", "getpgrp", "getsid", "setsid",
	"getuid", "geteuid", "getgid", "getegid", "getresuid", "getresgid", "getgroups", "getuid32", "geteuid32", "getgid32", "getegid32",
	"capget", "getrlimit", "setrlimit", "ugetrlimit", "getrusage", "getpriority", "sysinfo", "uname", "getcpu", "getrandom",
	"sched_yield", "sched_getaffinity", "sched_getparam", "sched_getscheduler", "sched_getattr",
	"sched_get_priority_max", "sched_get_priority_min", "sched_rr_get_interval", "ioprio_get",
	"seccomp", "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self",
	// sockets that there are, and Unix ones that others connect to
	"bind", "listen", "accept", "accept4", "getsockname", "getpeername", "getsockopt", "setsockopt",
	"recv", "recvfrom", "recvmsg", "recvmmsg", "send", "sendmsg", "sendmmsg",
}

// networking takes no conditions where there is a network.
var networking = []string{"connect", "sendto", "shutdown", "socketpair"}

// calls are those of the rules. A process may send itself signals, and limit itself:
// others of its user, which are the runner and all if that is not root, it could
// end by a limit of CPU time.
func (r *Rules) calls(pid int) (calls []call) {
	for _, name := range ordinary {
		calls = append(calls, call{name: name})
	}
	calls = append(calls,
		call{"kill", [][]test{{equal(0, pid)}}},
		call{"tgkill", [][]test{{equal(0, pid)}}},
		call{"prlimit64", [][]test{{equal(0, 0)}, {equal(0, pid)}}},
		call{"sched_setaffinity", [][]test{{equal(0, 0)}, {equal(0, pid)}}},
		call{"clone", [][]test{{bits(0, unix.CLONE_THREAD), noBits(0, namespaces)}}},
	)
	calls = append(calls, r.sockets()...)
	if !r.Strict {
		return append(calls, call{name: "mmap"}, call{name: "mmap2"}, call{name: "fcntl"}, call{name: "fcntl64"}, call{name: "ioctl"}, call{name: "prctl"})
	}
	return append(calls,
		// Shared memory is private to nobody, so no limit would count it.
		call{"mmap", [][]test{{noBits(3, unix.MAP_SHARED)}, {noBits(3, unix.MAP_ANONYMOUS)}}},
		call{"mmap2", [][]test{{noBits(3, unix.MAP_SHARED)}, {noBits(3, unix.MAP_ANONYMOUS)}}},
		// Not F_SETOWN and what it is as an ioctl: who owns a descriptor is sent
		// signals when data comes, any process and any signal.
		call{"fcntl", anyOf(1, fcntls)},
		call{"fcntl64", anyOf(1, fcntls)},
		call{"ioctl", anyOf(1, ioctls)},
		// Not PR_SET_PDEATHSIG: the runner's end must be the plugin's.
		call{"prctl", anyOf(0, prctls)},
	)
}

// namespaces are the flags that make new ones.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET

var fcntls = []int{unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_GETLK, unix.F_SETLK, unix.F_SETLKW,
	unix.F_OFD_GETLK, unix.F_OFD_SETLK, unix.F_OFD_SETLKW, unix.F_GETPIPE_SZ, unix.F_GET_SEALS}

// asm-generic/ioctls.h, as all architectures have it that we know.
const (
	fionbio  = 0x5421
	fioclex  = 0x5451
	fionclex = 0x5450
)

var ioctls = []int{unix.TIOCINQ, fionbio, fioclex, fionclex, unix.TCGETS, unix.TIOCGWINSZ, unix.TIOCOUTQ,
	unix.SIOCGIFNAME, unix.SIOCGIFCONF, unix.SIOCGIFFLAGS, unix.SIOCGIFADDR, unix.SIOCGIFNETMASK, unix.SIOCGIFMTU, unix.SIOCGIFHWADDR, unix.SIOCGIFINDEX}

var prctls = []int{unix.PR_SET_NAME, unix.PR_GET_NAME, unix.PR_SET_VMA, unix.PR_GET_DUMPABLE, unix.PR_SET_DUMPABLE, unix.PR_GET_PDEATHSIG,
	unix.PR_CAPBSET_READ, unix.PR_SET_NO_NEW_PRIVS, unix.PR_GET_NO_NEW_PRIVS, unix.PR_GET_SECCOMP, unix.PR_GET_KEEPCAPS, unix.PR_GET_SECUREBITS,
	unix.PR_SET_TIMERSLACK, unix.PR_GET_TIMERSLACK, unix.PR_SET_THP_DISABLE, unix.PR_GET_THP_DISABLE, unix.PR_CAP_AMBIENT}

// sockets: without a network only what the control connection takes, a Unix
// stream socket that listens. A datagram socket could reach any other by
// sendmsg, whose address no filter sees. Shutting down an edge would be for ever
// and hit the neighbour, so only who has a network for which it is needed may.
func (r *Rules) sockets() (calls []call) {
	if !r.Network {
		var stream [][]test
		for _, flags := range []int{0, unix.SOCK_CLOEXEC, unix.SOCK_NONBLOCK, unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK} {
			stream = append(stream, []test{equal(0, unix.AF_UNIX), equal(1, unix.SOCK_STREAM|flags)})
		}
		return []call{
			{"socket", stream},
			{"socketpair", stream},
			{"sendto", [][]test{{equal(4, 0), {argument: 4, cond: bpf.JumpEqual, upper: true}}}},
		}
	}
	for _, name := range networking {
		calls = append(calls, call{name: name})
	}
	families := []int{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}
	if slices.Contains(r.Capabilities, "net_raw") {
		families = append(families, unix.AF_PACKET)
	}
	return append(calls, call{"socket", anyOf(0, families)})
}

func equal(argument, value int) test {
	return test{argument: argument, cond: bpf.JumpEqual, value: uint32(value)}
}
func bits(argument, value int) test {
	return test{argument: argument, cond: bpf.JumpBitsSet, value: uint32(value)}
}
func noBits(argument, value int) test {
	return test{argument: argument, cond: bpf.JumpBitsNotSet, value: uint32(value)}
}

// anyOf are the sets of tests by which an argument is one of the values.
func anyOf(argument int, values []int) (sets [][]test) {
	for _, value := range values {
		sets = append(sets, []test{equal(argument, value)})
	}
	return sets
}
