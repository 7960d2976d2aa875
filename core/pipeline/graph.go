package pipeline

import (
	"context"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A Configuration is everything that an administrator's files say, checked.
type Configuration struct {
	Runner    Runner
	Pipelines []*Pipeline
}

// Runner is the runner block.
type Runner struct {
	Name       string
	PluginPath []string
	LockFile   string
	Control    Control
	Log        Log
}

// Control is the administrator's socket.
type Control struct {
	Path    string
	Group   string
	Backlog int
}

// Log says where the runner's log goes, and how.
type Log struct {
	Level  string // debug, info, warn or error
	Format string // text or json
	File   string // "" for standard error
	Syslog string // a facility, or ""
}

// A Pipeline is a source, then filters and caches, then one sink or more.
type Pipeline struct {
	Name   string
	Stages []*Stage // in that order
	Range  hcl.Range
}

// A Stage is one configured plugin.
type Stage struct {
	Pipeline string
	Kind     plugin.Kind
	Type     string // the plugin's
	Name     string // its own, or Type
	Config   []byte // its block as a JSON object
	Traits   *stagepb.Traits
	Range    hcl.Range // the block's header
}

// Address returns the stage's address, as in "local.cache.memory".
func (s *Stage) Address() string { return s.Pipeline + "." + string(s.Kind) + "." + s.Name }

// A Catalog knows the plugins that there are.
type Catalog interface {
	// Describe returns a plugin's description. An error wraps ErrUnknownPlugin
	// if there is no such plugin.
	Describe(ctx context.Context, kind plugin.Kind, typ string) (*stagepb.Description, error)

	// Configure checks a configuration, a JSON object, without side effects.
	Configure(ctx context.Context, kind plugin.Kind, typ string, config []byte) (*stagepb.Configured, error)

	// Types returns the types of one kind that are known, for suggestions.
	Types(kind plugin.Kind) []string
}
