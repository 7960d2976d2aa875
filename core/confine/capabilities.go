package confine

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/moby/sys/capability"
)

// Capabilities returns the names of all capabilities, as in "net_admin".
func Capabilities() (names []string) {
	for _, c := range capability.ListKnown() {
		names = append(names, c.String())
	}
	return names
}

// present returns those of the named capabilities that the process has.
func present(names []string) (there []capability.Cap, err error) {
	now, err := capability.NewPid2(0)
	if err != nil {
		return nil, err
	}
	if err := now.Load(); err != nil {
		return nil, err
	}
	for _, c := range capability.ListKnown() {
		if slices.Contains(names, c.String()) && now.Get(capability.PERMITTED, c) {
			there = append(there, c)
		}
	}
	return there, nil
}

// boundCapabilities keeps all others from coming back by an executable, if the
// process may. It comes before Landlock, since the library reads /proc.
func boundCapabilities(kept []capability.Cap) error {
	return setCapabilities(kept, capability.BOUNDS, capability.BOUNDING)
}

// dropCapabilities leaves these in all sets, so that they survive exec also with
// a user that is not root.
func dropCapabilities(kept []capability.Cap) error {
	return setCapabilities(kept, capability.CAPS|capability.AMBS, capability.CAPS|capability.AMBIENT)
}

func setCapabilities(kept []capability.Cap, kind, sets capability.CapType) error {
	c, err := capability.NewPid2(0)
	if err != nil {
		return err
	}
	c.Set(sets, kept...)
	return c.Apply(kind)
}

// Has says whether this process has all these capabilities, as in "setuid".
func Has(names ...string) bool {
	there, err := present(names)
	return err == nil && len(there) == len(names)
}

// Mapped says whether the process's user namespace has such a user and such a
// group.
func Mapped(id int) bool {
	return mappedIn("/proc/self/uid_map", id) && mappedIn("/proc/self/gid_map", id)
}

func mappedIn(file string, id int) bool {
	text, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		var first, outside, count int
		if _, err := fmt.Sscan(line, &first, &outside, &count); err == nil && id >= first && id-first < count {
			return true
		}
	}
	return false
}
