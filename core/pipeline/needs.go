package pipeline

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// checkNeeds warns where a vendor's plugin says that it needs more than it is
// granted. It is what the plugin says: it may do with less.
func (l *loader) checkNeeds(s *stageDraft, blocks hcl.Blocks) {
	if s.Grant == nil || l.plugins.Bundled(s.Kind, s.Type) {
		return
	}
	missing := s.Grant.lacks(s.Traits.GetNeeds())
	if len(missing) == 0 {
		return
	}
	where := &s.Range
	if len(blocks) > 0 {
		where = &blocks[0].DefRange
	}
	l.add(hcl.Diagnostics{warning("Less granted than needed", fmt.Sprintf(
		"%s says that it needs more than it is granted, and may not work. If you want that, write into its grant block: %s",
		s.label(), strings.Join(missing, "; ")), where)})
}

// lacks returns the attributes that would grant what is needed and is not granted.
func (g *Grant) lacks(n *stagepb.Needs) (attributes []string) {
	add := func(name string, needed, granted []string, covers func(granted, needed string) bool) {
		needed = slices.DeleteFunc(slices.Clone(needed), func(one string) bool {
			return slices.ContainsFunc(granted, func(given string) bool { return covers(given, one) })
		})
		if len(needed) > 0 {
			attributes = append(attributes, fmt.Sprintf("%s = [%s]", name, quoted(needed)))
		}
	}
	add("capabilities", n.GetCapabilities(), g.Capabilities, func(granted, needed string) bool { return granted == needed })
	if n.GetNetwork() && !g.Network {
		attributes = append(attributes, "network = true")
	}
	add("paths", n.GetWrite(), g.Paths, holds)
	add("read_paths", n.GetRead(), slices.Concat(g.Paths, g.ReadPaths, []string{"/usr", "/bin", "/sbin", "/lib"}), holds)
	return attributes
}

// holds says whether a path is another one, or below it.
func holds(above, path string) bool {
	below, err := filepath.Rel(above, path)
	return err == nil && below != ".." && !strings.HasPrefix(below, "../")
}

// quoted writes a list of what a plugin said: whatever it holds, on one line.
func quoted(texts []string) string {
	var all []string
	for _, text := range texts {
		all = append(all, fmt.Sprintf("%q", text))
	}
	return strings.Join(all, ", ")
}
