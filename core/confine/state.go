package confine

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"
)

// State is what the kernel says that a process may do.
type State struct {
	User            int
	Capabilities    []string // effective, sorted
	NoNewPrivileges bool
	Seccomp         bool
}

// StateOf reads a process's state from /proc. An error is that of a process
// that is gone.
func StateOf(pid int) (s State, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return s, fmt.Errorf("confine: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		fields := strings.Fields(value)
		if len(fields) == 0 {
			continue
		}
		switch name {
		case "Uid":
			s.User, _ = strconv.Atoi(fields[min(1, len(fields)-1)]) // the effective one
		case "CapEff":
			set, _ := strconv.ParseUint(fields[0], 16, 64)
			s.Capabilities = namesOf(set)
		case "NoNewPrivs":
			s.NoNewPrivileges = fields[0] == "1"
		case "Seccomp":
			s.Seccomp = fields[0] == "2"
		}
	}
	return s, nil
}

func namesOf(set uint64) (names []string) {
	for _, c := range capability.ListKnown() {
		if set&(1<<uint(c)) != 0 {
			names = append(names, c.String())
		}
	}
	slices.Sort(names)
	return names
}
