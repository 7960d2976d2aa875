package confine

import (
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A program of a filter judges each system call by its number and arguments.
// This assembler is our own: that of go-seccomp-bpf, whose tables of numbers we
// use, goes on after a condition that failed with the argument in place of the
// number, so that an argument could pass for a call that is allowed.

// A call is a system call that is allowed: always, or if all tests of one of
// the sets of its arguments hold.
type call struct {
	name string
	if_  [][]test
}

// A test is of half an argument: of the lower one, which is all that the kernel
// takes as an int, or the upper one.
type test struct {
	argument int
	cond     bpf.JumpTest
	value    uint32
	upper    bool
}

// offset is where in struct seccomp_data it is. All architectures that we know
// are little-endian.
func (t test) offset() uint32 {
	offset := offsetArguments + argumentSize*t.argument
	if t.upper {
		offset += argumentSize / 2
	}
	return uint32(offset)
}

// SeccompSupported says whether there is seccomp, and system calls are known
// for this architecture.
func SeccompSupported() bool {
	if _, err := arch.GetInfo(""); err != nil {
		return false
	}
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	return errno == 0
}

// seccomp must come last: it also refuses most of the steps before it.
func (r *Rules) seccomp() error {
	if !SeccompSupported() {
		return nil
	}
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	code, err := assemble(info, r.calls(unix.Getpid()))
	if err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	runtime.KeepAlive(&program)
	return err
}

// The kernel's struct seccomp_data (linux/seccomp.h).
const (
	offsetNumber    = 0
	offsetArch      = 4
	offsetArguments = 16
	argumentSize    = 8
)

func refuse(errno unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(errno)}
}

var allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}

// assemble returns a filter that allows the calls and refuses all others with
// EPERM, or ENOSYS if a C library tries something older then. Those without
// conditions cost next to nothing: the kernel knows them beforehand
// (seccomp_cache_prepare).
func assemble(info *arch.Info, calls []call) ([]unix.SockFilter, error) {
	last := 0
	for _, number := range info.SyscallNames {
		last = max(last, number)
	}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(info.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}, // of another architecture, whose numbers mean something else
		bpf.LoadAbsolute{Off: offsetNumber, Size: 4},
	}
	for _, c := range calls {
		number, known := info.SyscallNames[c.name]
		if !known {
			continue // an architecture may lack it
		}
		body := c.body()
		program = append(program,
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(number), SkipTrue: 1},
			bpf.Jump{Skip: uint32(len(body))})
		program = append(program, body...)
	}
	if number, known := info.SyscallNames["clone3"]; known {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: uint32(number), SkipTrue: 1}, refuse(unix.ENOSYS))
	}
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: uint32(last), SkipTrue: 1}, refuse(unix.ENOSYS), // newer, or x32
		refuse(unix.EPERM))
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble: %w", err)
	}
	var code []unix.SockFilter
	for _, i := range raw {
		code = append(code, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	return code, nil
}

// body decides about a call, whatever it decides.
func (c *call) body() (body []bpf.Instruction) {
	if c.if_ == nil {
		return []bpf.Instruction{allow}
	}
	for _, set := range c.if_ {
		var tests []bpf.Instruction
		for _, t := range slices.Backward(set) { // each skips what follows it in its set
			tests = append([]bpf.Instruction{
				bpf.LoadAbsolute{Off: t.offset(), Size: 4},
				bpf.JumpIf{Cond: t.cond, Val: t.value, SkipFalse: uint8(len(tests) + 1)},
			}, tests...)
		}
		body = append(append(body, tests...), allow)
	}
	return append(body, refuse(unix.EPERM))
}
