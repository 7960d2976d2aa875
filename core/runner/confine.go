package runner

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The ids of the users that stages run as, one each. systemd's list of ranges
// (UIDS-GIDS) leaves them unused, and warns every other tool to.
const (
	firstUser = 60578
	userCount = 606
)

// confined is false in tests of what a kernel without seccomp lets happen.
var confined = true

// users gives each stage a user of its own: the same as long as the runner lives
// and, unless two names fall on one number, ever after.
type users struct {
	mu    sync.Mutex
	names map[int]string // by id
}

func (u *users) of(name string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.names == nil {
		u.names = map[int]string{}
	}
	hash := fnv.New32a()
	hash.Write([]byte(name))
	first := int(hash.Sum32() % userCount)
	for i := range userCount {
		id := firstUser + (first+i)%userCount
		if owner, taken := u.names[id]; !taken || owner == name {
			u.names[id] = name
			return id
		}
	}
	return firstUser + first // more stages than numbers
}

// canSwitchUsers says whether this process may start others as other users,
// reach their sockets, and kill them.
var canSwitchUsers = sync.OnceValue(func() bool {
	return confine.Has("setuid", "setgid", "chown", "kill") && confine.Mapped(firstUser) && confine.Mapped(firstUser+userCount-1)
})

// othersExecute says whether other users may execute this executable.
var othersExecute = sync.OnceValue(func() bool {
	info, err := os.Stat("/proc/self/exe")
	return err == nil && info.Mode()&0o001 != 0
})

// rules are those of the stage's processes if it is configured so.
func (s *stage) rules(conf *pipeline.Stage) (*confine.Rules, error) {
	switch {
	case !confined:
		return nil, nil
	case s.runner.options.Plugins.bundled(conf.Kind, conf.Type):
		return bundledRules(&s.runner.users, s.address, conf.Traits.GetNeeds()), nil
	}
	return vendorRules(&s.runner.users, s.address, conf.Grant)
}

// vendorRules are those of a vendor's plugin: what it is granted. Only a user of
// its own can have a limit of threads: the kernel counts them by user. It does
// not inherit a real-time priority, since one that spins would leave no time to
// anybody else.
func vendorRules(u *users, name string, g *pipeline.Grant) (*confine.Rules, error) {
	if g == nil {
		nothing := pipeline.DefaultGrant()
		g = &nothing
	}
	r := confine.Nothing()
	r.Strict, r.Programs, r.Ordinary = true, true, true
	r.Capabilities, r.Network, r.Read, r.Write = g.Capabilities, g.Network, g.ReadPaths, g.Paths
	r.Memory, r.Descriptors = uint64(g.Memory), uint64(g.Descriptors)
	switch {
	case g.User != "":
		if err := namedUser(&r, g.User); err != nil {
			return nil, err
		}
	case canSwitchUsers():
		r.User = u.of(name)
		r.Group, r.Threads = r.User, uint64(g.Threads)
	}
	return &r, nil
}

func namedUser(r *confine.Rules, name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		return fmt.Errorf("grant: user %s: %w", name, err)
	}
	id, _ := strconv.Atoi(u.Uid)
	group, _ := strconv.Atoi(u.Gid)
	switch {
	case id == os.Getuid() && id != 0:
	case id == 0 || group == 0:
		return fmt.Errorf("grant: user %s is privileged", name)
	case !canSwitchUsers():
		return fmt.Errorf("grant: user %s: the runner needs CAP_SETUID, CAP_SETGID, CAP_CHOWN and CAP_KILL", name)
	default:
		r.User, r.Group = id, group
	}
	return nil
}

// bundledRules are those of a bundled plugin: what it needs, and no more.
func bundledRules(u *users, name string, needs *stagepb.Needs) *confine.Rules {
	r := confine.Nothing()
	r.Capabilities, r.Network, r.Read = needs.GetCapabilities(), needs.GetNetwork(), needs.GetRead()
	for _, path := range needs.GetWrite() {
		r.Write = append(r.Write, placesOf(path)...)
	}
	if !needs.GetRunnerUser() && canSwitchUsers() && othersExecute() {
		r.User = u.of(name)
		r.Group = r.User
	}
	return &r
}

// placesOf returns where a file that is made and made again must be writable:
// its directory, and that of the file that it leads to.
func placesOf(path string) []string {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return []string{path}
	}
	places := []string{filepath.Dir(path)}
	if target, err := filepath.EvalSymlinks(path); err == nil && filepath.Dir(target) != places[0] {
		places = append(places, filepath.Dir(target))
	}
	return places
}

// userName names root and the runner's own user; the others have no name.
func userName(id int) string {
	if id >= firstUser && id < firstUser+userCount {
		return strconv.Itoa(id)
	}
	if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
		return u.Username
	}
	return strconv.Itoa(id)
}

// permissions tells what a process may do: as the kernel says, where it does.
func (p *process) permissions() *control.Permissions {
	state, err := confine.StateOf(p.pid())
	if err != nil || p.config.rules == nil {
		return nil
	}
	return &control.Permissions{
		User: userName(state.User), Capabilities: state.Capabilities, NoNewPrivileges: state.NoNewPrivileges, Seccomp: state.Seccomp,
		Network: p.config.rules.Network, Read: p.config.rules.Read, Write: p.config.rules.Write, Landlock: confine.LandlockVersion(),
	}
}

// tellLacks says in one line what the kernel can't hold stages to.
func tellLacks(log *slog.Logger, landlock int, seccomp bool) {
	var lacks, free []string
	if landlock == 0 {
		lacks, free = append(lacks, "Landlock"), append(free, "open what files their users may")
	}
	if !seccomp {
		lacks, free = append(lacks, "a seccomp filter"), append(free, "make any system call, sockets included")
	}
	if len(lacks) > 0 {
		log.Warn("the kernel confines stages less than it could", "lacks", strings.Join(lacks, ", "), "stages_can", strings.Join(free, ", "))
	}
}
