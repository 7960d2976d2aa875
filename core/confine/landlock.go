package confine

import (
	"debug/elf"
	"fmt"
	"os"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// What everybody may read: the local time, and what Go and C programs look at
// when they start.
var harmless = []string{"/etc/localtime", "/usr/share/zoneinfo", "/dev/null", "/dev/urandom", "/sys/kernel/mm/transparent_hugepage"}

// Where programs, interpreters, and libraries are, and what the loader reads.
var programs = []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives"}

// What programs with a network read to find names.
var resolver = []string{"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/protocols", "/etc/gai.conf", "/etc/ssl", "/etc/pki", "/etc/ca-certificates"}

// landlock restricts, as far as the kernel can: files to those of the rules, and
// to the program itself; TCP, for which seccomp does not tell binding from the
// same of a Unix socket; and signals and abstract sockets to the process itself,
// and with that what /proc has of others. What comes after ABI 6 would also
// keep stages from the local syslog.
func (r *Rules) landlock() error {
	config := landlock.V6
	if r.Network {
		config.HandledAccessNet = 0
	}
	rules := []landlock.Rule{landlock.PathAccess(readFileAccess|execute, self)}
	read := append(append([]string{}, harmless...), r.Read...)
	if r.Network {
		read = append(read, resolver...)
	}
	rules = append(rules, pathRules(read, readFileAccess, readDirAccess)...)
	if r.Programs || r.Image == 0 && needsLoader() {
		rules = append(rules, pathRules(programs, readFileAccess|execute, readDirAccess|execute)...)
	}
	rules = append(rules, pathRules(append([]string{"/dev/null"}, r.Write...), writeFileAccess, writeDirAccess)...)
	if r.Directory != 0 {
		rules = append(rules, landlock.PathAccess(socketAccess, fmt.Sprintf("/proc/self/fd/%d", r.Directory)))
	}
	return config.BestEffort().Restrict(rules...)
}

// needsLoader says whether this executable was linked dynamically, as tests are.
func needsLoader() bool {
	f, err := elf.Open(self)
	if err != nil {
		return true
	}
	defer f.Close()
	return slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// Rights. What is written can't be executed: no file is a program that the
// runner did not start. Nor are device files made, or used as devices.
const (
	execute         = landlock.AccessFSSet(ll.AccessFSExecute)
	readFileAccess  = landlock.AccessFSSet(ll.AccessFSReadFile)
	readDirAccess   = readFileAccess | ll.AccessFSReadDir
	writeFileAccess = readFileAccess | ll.AccessFSWriteFile | ll.AccessFSTruncate
	writeDirAccess  = writeFileAccess | readDirAccess | ll.AccessFSRemoveDir | ll.AccessFSRemoveFile |
		ll.AccessFSMakeDir | ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSMakeFifo | ll.AccessFSMakeSym
	// go-plugin finds a name for its socket by making a file.
	socketAccess = readFileAccess | ll.AccessFSWriteFile | ll.AccessFSMakeReg | ll.AccessFSMakeSock | ll.AccessFSRemoveFile
)

// pathRules makes a rule for each path that exists.
func pathRules(paths []string, file, dir landlock.AccessFSSet) (rules []landlock.Rule) {
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.IsDir():
			rules = append(rules, landlock.PathAccess(dir, path))
		default:
			rules = append(rules, landlock.PathAccess(file, path))
		}
	}
	return rules
}

// LandlockVersion returns the version of the kernel's Landlock ABI, 0 if there
// is none.
func LandlockVersion() int {
	version, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return version
}
