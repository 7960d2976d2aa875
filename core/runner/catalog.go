package runner

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/core/trust"
)

// Plugins says where plugins are found.
type Plugins struct {
	// Bundled names those that this executable contains, as in "filter-basic".
	// They are started by executing /proc/self/exe again with the arguments
	// "plugin-exec NAME": the path may by then lead to another version.
	Bundled []string
	// Path lists folders with executables named sluice-KIND-TYPE.
	Path []string
}

// command returns the path and the arguments that start a plugin as the stage
// of the given address, which ps(1) then shows.
func (p Plugins) command(kind plugin.Kind, typ, address string) (path string, args []string, err error) {
	name := string(kind) + "-" + typ
	if slices.Contains(p.Bundled, name) {
		return ownExecutable, []string{"sluice", "plugin-exec", name, address}, nil
	}
	for _, dir := range p.Path {
		path := filepath.Join(dir, "sluice-"+name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			if info.Mode()&0o111 == 0 {
				return "", nil, fmt.Errorf("%s is not executable", path)
			}
			return path, []string{path, address}, nil
		}
	}
	return "", nil, fmt.Errorf("%w: no bundled plugin %s, and no executable sluice-%s in %s",
		pipeline.ErrUnknownPlugin, name, name, strings.Join(p.Path, ", "))
}

// bundled says whether this executable contains the plugin.
func (p Plugins) bundled(kind plugin.Kind, typ string) bool {
	return slices.Contains(p.Bundled, string(kind)+"-"+typ)
}

// rules are those of a process that is only asked.
func (c *Catalog) rules(kind plugin.Kind, typ string) *confine.Rules {
	name := string(kind) + "-" + typ
	if c.plugins.bundled(kind, typ) {
		return bundledRules(&c.users, name, nil)
	}
	rules, _ := vendorRules(&c.users, name, nil) // fails by the user of a grant
	return rules
}

// types returns the types of a kind that can be started.
func (p Plugins) types(kind plugin.Kind) (types []string) {
	for _, name := range p.Bundled {
		if typ, ok := strings.CutPrefix(name, string(kind)+"-"); ok {
			types = append(types, typ)
		}
	}
	for _, dir := range p.Path {
		found, _ := filepath.Glob(filepath.Join(dir, "sluice-"+string(kind)+"-*"))
		for _, path := range found {
			// What a name can't be is no plugin: a copy that is being installed, or a trap for terminals.
			if name := strings.TrimPrefix(filepath.Base(path), "sluice-"); trust.IsPlugin(name) {
				types = append(types, strings.TrimPrefix(name, string(kind)+"-"))
			}
		}
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// A Catalog describes plugins and checks configurations by starting each
// plugin once, unprivileged if need be, and asking it. It implements
// pipeline.Catalog. Close ends the processes.
type Catalog struct {
	plugins Plugins
	spawner *spawner
	log     *slog.Logger

	mu      sync.Mutex
	started map[string]*described
	images  images
	users   users
}

type described struct {
	process     *process
	description *stagepb.Description
}

// NewCatalog returns a catalog of the plugins that p finds.
func NewCatalog(p Plugins, log *slog.Logger) (*Catalog, error) {
	s, err := newSpawner()
	if err != nil {
		return nil, err
	}
	return &Catalog{plugins: p, spawner: s, log: log, started: map[string]*described{}, images: images{}}, nil
}

// Bundled implements pipeline.Catalog.
func (c *Catalog) Bundled(kind plugin.Kind, typ string) bool { return c.plugins.bundled(kind, typ) }

// Types implements pipeline.Catalog.
func (c *Catalog) Types(kind plugin.Kind) []string { return c.plugins.types(kind) }

// Describe implements pipeline.Catalog.
func (c *Catalog) Describe(ctx context.Context, kind plugin.Kind, typ string) (*stagepb.Description, error) {
	d, err := c.start(ctx, kind, typ)
	if err != nil {
		return nil, err
	}
	return d.description, nil
}

// Configure implements pipeline.Catalog.
func (c *Catalog) Configure(ctx context.Context, kind plugin.Kind, typ string, config []byte) (*stagepb.Configured, error) {
	d, err := c.start(ctx, kind, typ)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	reply, err := d.process.Configure(ctx, &stagepb.Configuration{Json: config})
	if err != nil {
		return nil, fmt.Errorf("plugin %s-%s: configure: %w", kind, typ, err)
	}
	return reply, nil
}

// Program implements pipeline.Catalog.
func (c *Catalog) Program(kind plugin.Kind, typ string) (path, sum string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, err := c.image(kind, typ)
	if err != nil || i == nil {
		return "", "", err
	}
	return i.path, i.sum, nil
}

// image returns the program of a vendor's plugin: the same whenever it is asked.
func (c *Catalog) image(kind plugin.Kind, typ string) (*image, error) {
	name := string(kind) + "-" + typ
	if c.plugins.bundled(kind, typ) || c.images[name] != nil {
		return c.images[name], nil
	}
	path, _, err := c.plugins.command(kind, typ, "")
	if err != nil {
		return nil, err
	}
	i, err := openImage(path)
	if err == nil {
		c.images[name] = i
	}
	return i, err
}

func (c *Catalog) start(ctx context.Context, kind plugin.Kind, typ string) (*described, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	name := string(kind) + "-" + typ
	if d := c.started[name]; d != nil {
		return d, nil
	}
	path, args, err := c.plugins.command(kind, typ, "")
	if err != nil {
		return nil, err
	}
	image, err := c.image(kind, typ)
	if err != nil {
		return nil, err
	}
	p, err := startProcess(ctx, c.spawner, processConfig{
		name: "plugin " + name, path: path, args: args, kind: kind, typ: typ, log: c.log, rules: c.rules(kind, typ), image: image,
	})
	if err != nil {
		return nil, err
	}
	d := &described{p, p.description}
	c.started[name] = d
	return d, nil
}

// Close ends the catalog's processes.
func (c *Catalog) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.started {
		d.process.kill()
	}
	c.images.close()
	c.started, c.images = map[string]*described{}, images{}
	c.spawner.close()
}
