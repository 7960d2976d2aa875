package pipeline

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/plugin"
)

// A Grant is what a vendor's plugin may do beyond computing. DefaultGrant has the
// defaults.
type Grant struct {
	Capabilities []string    `hcl:"capabilities,optional" doc:"Capabilities that the plugin keeps, as in net_admin, where the runner has them."`
	Network      bool        `hcl:"network,optional" doc:"The plugin may use the network."`
	Paths        []string    `hcl:"paths,optional" doc:"Absolute paths of files, and of directories with all below them, that the plugin may read and write, as far as its user may."`
	ReadPaths    []string    `hcl:"read_paths,optional" doc:"Paths that it may read."`
	User         string      `hcl:"user,optional" doc:"The user that it runs as, not root. Default: one of its own, without a name."`
	Memory       plugin.Size `hcl:"memory,optional" doc:"Private memory that it may have, in bytes. 0 is no limit."`
	Descriptors  int         `hcl:"descriptors,optional" doc:"Descriptors that it may have open."`
	Threads      int         `hcl:"threads,optional" doc:"Threads that its user may have, if that is one of its own."`
}

// DefaultGrant returns what a plugin may do to which nothing was granted.
func DefaultGrant() Grant { return Grant{Memory: 1 << 30, Descriptors: 256, Threads: 256} }

var grantDefinition = plugin.Definition{Type: "grant", Config: func() any { g := DefaultGrant(); return &g }}

// Validate implements plugin.Validator.
func (g *Grant) Validate() (d plugin.Diagnostics) {
	known := confine.Capabilities()
	for i, name := range g.Capabilities {
		if !slices.Contains(known, name) {
			d.Add(plugin.Path("capabilities", i), "Unknown capability", "There is no capability %q.%s", name,
				didYouMean(name, known, ` They are written as in "net_admin"; see capabilities(7).`))
		}
	}
	for name, paths := range map[string][]string{"paths": g.Paths, "read_paths": g.ReadPaths} {
		for i, path := range paths {
			if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
				d.Add(plugin.Path(name, i), "Invalid path", "%q can't be granted: write the absolute path of a file or of a directory below /.", path)
			}
		}
	}
	if g.User == "root" {
		d.Add(plugin.Path("user"), "Privileged user", "A vendor's plugin never runs as root. Grant it the capabilities that it needs.")
	}
	if g.Descriptors < 32 || g.Descriptors > 1<<20 {
		d.Add(plugin.Path("descriptors"), "Number out of range", "A plugin needs from 32 to 1048576 descriptors.")
	}
	if g.Threads < 16 || g.Threads > 1<<20 {
		d.Add(plugin.Path("threads"), "Number out of range", "A plugin needs from 16 to 1048576 threads.")
	}
	if g.Memory != 0 && g.Memory < 128<<20 {
		d.Add(plugin.Path("memory"), "Size out of range", "No plugin starts with so little: 128MiB is the least, and 0 no limit.")
	}
	return d
}

// loadGrant decodes a stage's grant blocks, of which there is one at most.
func (l *loader) loadGrant(s *stageDraft, blocks hcl.Blocks) {
	grant := DefaultGrant()
	s.Grant = &grant
	if len(blocks) == 0 {
		return
	}
	b := blocks[0]
	if l.plugins.Bundled(s.Kind, s.Type) {
		l.add(hcl.Diagnostics{failure("Grant to a bundled plugin", fmt.Sprintf(
			"%s is a part of Sluice and is allowed what it needs. Only a vendor's plugin is granted more than nothing.", s.label()), &b.DefRange)})
		return
	}
	for _, other := range blocks[1:] {
		l.add(hcl.Diagnostics{failure("Duplicate grant block", fmt.Sprintf("The stage has a grant block already, at %s.", b.DefRange), &other.DefRange)})
	}
	s.Grant = l.decodeGrant(b)
}

func (l *loader) decodeGrant(b *hcl.Block) *Grant {
	grant := DefaultGrant()
	spec, err := specOf(schemaOf(&grant))
	if err != nil {
		panic(err) // our own schema
	}
	block, diags := l.scope.decode(b.Body, b.DefRange, spec)
	l.add(diags)
	config, reply := plugin.Configure(grantDefinition, block.json)
	l.add(l.scope.point(reply.Diagnostics, b.Body, b.DefRange, block))
	return config.(*Grant)
}
