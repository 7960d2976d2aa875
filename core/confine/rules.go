package confine

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// Environment is the variable that holds the rules of a process until it has
// taken them on.
const Environment = "SLUICE_CONFINE"

// Keep as Rules.User and Rules.Group: the one that the process has.
const Keep = -1

// Rules say what a process may do. The zero value is no user of an ordinary
// process (it is root's id): begin with Nothing.
type Rules struct {
	// User and Group are the ids to take, without supplementary groups, or
	// Keep. Others than the own need CAP_SETUID, CAP_SETGID.
	User, Group int

	// Capabilities are those that are kept, as in "net_admin". Those that the
	// process does not have are left out.
	Capabilities []string

	// Network: sockets of other families than Unix stream ones can be made, and
	// sockets connected.
	Network bool

	// Read and Write are files, and directories with all below them. Those that
	// do not exist are left out.
	Read, Write []string

	// Programs: what is installed in the system's directories can be read and
	// executed, as interpreters and libraries must be.
	Programs bool

	// Strict is for programs that may be hostile: the oddest uses of system
	// calls are refused, too, and the out-of-memory killer takes it first.
	Strict bool

	// Limits; 0: as they are. Memory is of private memory, in bytes.
	Memory, Descriptors, Threads uint64

	// Ordinary: a real-time or raised priority is given up.
	Ordinary bool

	// Directory is the descriptor of a directory in which sockets can be made,
	// or 0. It stays open.
	Directory int

	// Image is the descriptor of the program to execute, or 0: the executable
	// of the process itself.
	Image int

	// Parent is the process at whose end this one is killed.
	Parent int
}

// Nothing returns the rules of a process that computes and no more.
func Nothing() Rules { return Rules{User: Keep, Group: Keep, Parent: os.Getpid()} }

// Apply makes cmd, which is yet to be started, a process under the rules. Its
// path is replaced; its arguments are those of the program.
func (r Rules) Apply(cmd *exec.Cmd) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("confine: %w", err)
	}
	cmd.Path = self
	cmd.Err = nil
	cmd.Env = append(cmd.Env, Environment+"="+string(text))
	return nil
}

// self is this process's executable, also when its file was replaced.
const self = "/proc/self/exe"
