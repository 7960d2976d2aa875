package pipeline

import (
	"context"
	"errors"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// ErrUnknownPlugin is wrapped by a Catalog's error about a plugin that there is
// not.
var ErrUnknownPlugin = errors.New("unknown plugin")

// A Configuration is everything that an administrator's files say, checked.
type Configuration struct {
	Runner    Runner
	Pipelines []*Pipeline
}

// Pipeline returns the pipeline of that name, or nil.
func (c *Configuration) Pipeline(name string) *Pipeline {
	for _, p := range c.Pipelines {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Runner is the runner block. DefaultRunner has the defaults.
type Runner struct {
	Name       string   `hcl:"name,optional" doc:"The node's name, in logs, status and the names of its peers' statistics. Default: the host's name."`
	PluginPath []string `hcl:"plugin_path,optional" doc:"Absolute directories where plugins that are not bundled are looked for, as executables named sluice-<kind>-<type>."`
	PluginLock string   `hcl:"plugin_lock,optional" doc:"Absolute path of the lock file that says which programs of other vendors may run. Default: sluice.lock.hcl beside the pipelines that are named first."`
	LockKeys   []string `hcl:"lock_keys,optional" doc:"Public keys of ed25519, in PEM or as the line of it between the first and the last. With them the lock file must have a signature of one for each plugin. Default: none, and signatures are not looked at."`
	LockFile   string   `hcl:"lock_file,optional" doc:"The file whose lock keeps a second runner of this configuration from starting."`
	Control    Control  `hcl:"control,block" doc:"The administrator's socket."`
	Log        Log      `hcl:"log,block" doc:"Where the log goes, and how."`
	Metrics    Metrics  `hcl:"metrics,block" doc:"A listener for Prometheus, for health checks and for a browser. Without the block there is none."`

	TrackFile string `hcl:"track_file,optional" doc:"Path of a file for keepalived's track_file: 0 while this node is in sync, or primary, and 1 while it is not. In a directory that stays, as /run/sluice does. Default: none."`

	Scheduler *Scheduler `hcl:"scheduler,block" doc:"How the kernel schedules the runner and its stages. Without it, as whoever starts the runner. Needs CAP_SYS_NICE; without that the log has a warning, and the node runs on as it is."`
}

// Scheduler is how the kernel schedules the runner and its stages; see sched(7).
type Scheduler struct {
	Type     string `hcl:"type" doc:"rr or fifo: before all processes that are not real-time, so that a busy machine delays no flow; or other, as usual."`
	Priority int    `hcl:"priority,optional" doc:"Of rr and fifo, from 1 to 99, which wins. 1 is enough to come before ordinary processes."`
	Nice     int    `hcl:"nice,optional" doc:"Of other, from -20, which gets most, to 19."`
}

// Control is the administrator's socket.
type Control struct {
	Path    string `hcl:"path,optional" doc:"Path of the Unix socket, at most 107 bytes."`
	Group   string `hcl:"group,optional" doc:"The group that may use the socket beside root. Default: none."`
	Backlog int    `hcl:"backlog,optional" doc:"Connections that may wait to be accepted."`
}

// Metrics is the listener for Prometheus, health checks and browsers.
type Metrics struct {
	Listen    string `hcl:"listen" doc:"host:port, as in 127.0.0.1:9783 or [::1]:9783, or unix: and the path of a Unix socket. Who can connect can read all that is served there."`
	Group     string `hcl:"group,optional" doc:"The group that may use a Unix socket beside root. Default: none."`
	WebConfig string `hcl:"web_config,optional" doc:"Path of a file in the format of Prometheus' web configuration, for TLS, client certificates and passwords. Default: neither."`
	Page      bool   `hcl:"page,optional" doc:"Serve a page for browsers, too: pipelines, peers, flows by protocol, signals and the log's last lines."`
	Pprof     bool   `hcl:"pprof,optional" doc:"Serve Go's profiles of the runner and of its stages under /debug/pprof/, too. Taking one costs CPU time, so leave it off but to look for a fault."`
}

// Log says where the runner's log goes, and how.
type Log struct {
	Level  string `hcl:"level,optional" doc:"The least severe lines to write: debug, info, warn or error."`
	Format string `hcl:"format,optional" doc:"text or json."`
	File   string `hcl:"file,optional" doc:"Path of a file to append to. Default: standard error."`
	Syslog string `hcl:"syslog,optional" doc:"Syslog facility to log to as well, as in daemon or local0. Default: none."`
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
	Config   []byte // its block as a JSON object: keys sorted, absent members left out
	Traits   *stagepb.Traits
	Grant    *Grant    // of a vendor's plugin
	SHA256   string    // of the program that a vendor's plugin is locked to; "" if it is not
	Unlocked bool      // a vendor's plugin may be any program
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

	// Bundled says whether a plugin is a part of Sluice.
	Bundled(kind plugin.Kind, typ string) bool

	// Program returns where a vendor's plugin lies, and the SHA-256 of what
	// Describe and Configure execute. It executes nothing.
	Program(kind plugin.Kind, typ string) (path, sum string, err error)
}
