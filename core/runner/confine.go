package runner

import (
	"hash/fnv"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/control"
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

// rules are those of the stage's processes.
func (s *stage) rules() *confine.Rules {
	if !confined || !s.runner.options.Plugins.bundled(s.conf.Kind, s.conf.Type) {
		return nil
	}
	return bundledRules(&s.runner.users, s.address, s.conf.Traits.GetNeeds())
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
