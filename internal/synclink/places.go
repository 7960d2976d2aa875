package synclink

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// Places are where a stage's links are, as its block says: in the block itself,
// or in blocks of their own. P is what a plugin says of a place.
type Places[P any] struct {
	Only  *P   // what the stage's block says; it counts if there are no others
	Given bool // it says anything

	all      []*P
	defaults []int // those that are marked as default
}

// Add adds the place of a block of its own.
func (s *Places[P]) Add(p *P, isDefault bool) {
	if isDefault {
		s.defaults = append(s.defaults, len(s.all))
	}
	s.all = append(s.all, p)
}

// maxLinks is more than anybody needs; conntrackd has four.
const maxLinks = 8

// Check calls check for each place with its path, and reports what is wrong with
// all of them together. name names a place: no two may be the same.
func (s Places[P]) Check(d *plugin.Diagnostics, check func(p *P, path []any), name func(P) string) {
	if len(s.all) == 0 {
		check(s.Only, nil)
		return
	}
	if s.Given {
		d.Add(nil, "Both links and a link's attributes", "What says where a link is belongs into its `link` block, as soon as there is one.")
	}
	if len(s.defaults) > 1 {
		d.Add(plugin.Path("link", s.defaults[1], "default"), "Two default links", "Only one link can be the default. Remove the others' `default`.")
	}
	if len(s.all) > maxLinks {
		d.Add(plugin.Path("link", maxLinks), "Too many links", "There can be %d.", maxLinks)
	}
	seen := map[string]bool{}
	for i, p := range s.all {
		path := plugin.Path("link", i)
		check(p, path)
		if seen[name(*p)] {
			d.Add(path, "The same link twice", "Two links lead to the same place, %s. Remove one.", name(*p))
		}
		seen[name(*p)] = true
	}
}

// Ordered returns the places in the order in which they are preferred: the
// default, then the others as they are written.
func (s Places[P]) Ordered() []*P {
	if len(s.all) == 0 {
		return []*P{s.Only}
	}
	all := slices.Clone(s.all)
	if len(s.defaults) > 0 {
		i := s.defaults[0]
		all = slices.Insert(slices.Delete(all, i, i+1), 0, s.all[i])
	}
	return all
}

// Name names the places together, as plugin.Traits.Link wants it: equal for the
// source and the sinks of the same links. netns is the namespace of all of them,
// "" for the runner's own.
func (s Places[P]) Name(netns string, name func(P) string) string {
	var names []string
	for _, p := range s.Ordered() {
		names = append(names, name(*p))
	}
	return linkName(netns, names)
}

// privileged is the first port that anybody may bind
// (net.ipv4.ip_unprivileged_port_start, unless it was changed).
const privileged = 1024

// Needs are those of a stage with a link: a network, buffers beyond the system's
// limit, and, where it listens, ports that not everybody may.
func (s Places[P]) Needs(listens func(P) uint16) plugin.Needs {
	needs := plugin.Needs{Network: true, Capabilities: []string{"net_admin"}}
	if listens == nil {
		return needs
	}
	for _, p := range s.Ordered() {
		if listens(*p) < privileged {
			needs.Capabilities = []string{"net_admin", "net_bind_service"}
		}
	}
	return needs
}

// CheckGroup reports an address that is no multicast group's. path is that of
// the block around it.
func CheckGroup(d *plugin.Diagnostics, path []any, group netip.Addr) {
	switch {
	case !group.IsValid():
		d.Add(in(path, "group"), "Missing attribute", "Write the multicast group, as in `group = \"225.0.0.50\"`.")
	case !group.IsMulticast():
		d.Add(in(path, "group"), "No multicast group",
			"%v is no multicast address: write one like \"225.0.0.50\" or \"ff15::50\".", group)
	}
}

const maxInterface = 15 // bytes of an interface's name (linux/if.h, IFNAMSIZ)

// CheckInterface reports a name that no interface can have.
func CheckInterface(d *plugin.Diagnostics, path []any, name string) {
	switch {
	case name == "":
		d.Add(in(path, "interface"), "Missing attribute", "Write the interface that the link is on, as in `interface = \"eth2\"`.")
	case len(name) > maxInterface || name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n"):
		d.Add(in(path, "interface"), "Bad interface name",
			"%q is no name of an interface: it has 1 to %d characters, and no space, colon or slash among them, as in \"eth2\".", name, maxInterface)
	}
}

// CheckPort reports a port that is none, and returns the one that is meant: in a
// link's block nothing is the usual one.
func CheckPort(d *plugin.Diagnostics, path []any, port uint16) uint16 {
	switch {
	case port != 0:
		return port
	case len(path) == 0:
		d.Add(in(path, "port"), "Number out of range", "There is no port 0: %d is usual.", notrack.DefaultPort)
	}
	return notrack.DefaultPort
}

// CheckFamily reports an address that can't reach another.
func CheckFamily(d *plugin.Diagnostics, path []any, attribute string, a, other netip.Addr) {
	if a.IsValid() && other.IsValid() && FamilyOf(a) != FamilyOf(other) {
		d.Add(in(path, attribute), "Wrong address family",
			"%v and %v can't talk to each other: both must be IPv4, or both IPv6.", a, other)
	}
}

// CheckOwnAddress reports an address that is not that of one node.
func CheckOwnAddress(d *plugin.Diagnostics, path []any, a netip.Addr) {
	if a.IsUnspecified() || a.IsMulticast() {
		d.Add(in(path, "address"), "No address of a node", "%v is not the address of this node alone.", a)
	}
}

// CheckZone reports an IPv6 address with the zone of another interface than the
// link's, and takes that of the link's away: it is what an address is of without.
func CheckZone(d *plugin.Diagnostics, path []any, a *netip.Addr, device string) {
	switch a.Zone() {
	case "":
	case device:
		*a = a.WithZone("")
	default:
		d.Add(path, "Wrong interface", "%v is an address on another interface than the link's, %s: leave out what follows the %%, or correct it.", a, device)
	}
}

func in(path []any, attribute string) []any { return append(slices.Clone(path), attribute) }
