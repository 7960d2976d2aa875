package sinkkernel

import (
	"time"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/ctnl"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSink,
	Type:    "kernel",
	Summary: "Puts peers' flows into this node's conntrack table, and purges it.",
	Config: func() any {
		return &Config{
			PurgeTimeout: plugin.Duration(15 * time.Second), DestroyGrace: plugin.Duration(10 * time.Second),
		}
	},
}

// Config is the plugin's block. Durations are used in whole seconds, rounded
// up, since the kernel knows no less.
type Config struct {
	Scope             string          `hcl:"scope,optional" doc:"The pipeline whose source and filters say which flows of the kernel a purge or a flush deletes. Without it there is neither."`
	CommitTimeout     plugin.Duration `hcl:"commit_timeout,optional" doc:"How long a committed flow lives until its traffic refreshes it. Default: what was left of its timeout at the node it comes from."`
	PurgeTimeout      plugin.Duration `hcl:"purge_timeout,optional" doc:"How long after this node stopped being primary the flows in scope are deleted from its kernel."`
	DestroyGrace      plugin.Duration `hcl:"destroy_grace,optional" doc:"How long a flow lives here after it ended at its peer; packets that still come through this node refresh it."`
	TCPWindowTracking bool            `hcl:"tcp_window_tracking,optional" doc:"Check the sequence numbers of committed TCP flows. By default they are not (the kernel's 'be liberal' flag), since a stream goes on while its state travels."`
	NetNS             string          `hcl:"netns,optional" doc:"Network namespace to write to, as in \"/run/netns/blue\". Default: the runner's own."`
}

// Validate checks what types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	if c.DestroyGrace == 0 {
		d.Add(plugin.Path("destroy_grace"), "Duration out of range",
			"A flow that ended at its peer may still have packets here: give it a second at least, or \"10s\" as usual.")
	}
	return d
}

// Traits tells the runner where the stage runs and what it can purge.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		NetNS: c.NetNS, Kernel: true, Scope: c.Scope, PurgeAfter: time.Duration(c.PurgeTimeout).Nanoseconds(),
		Needs: plugin.Needs{Capabilities: []string{"net_admin"}, Network: true, Write: []string{ctnl.Settings}},
	}
}

// Build makes the sink.
func (c *Config) Build() (any, error) { return &sink{config: *c}, nil }

// seconds rounds up.
func seconds(d plugin.Duration) uint32 {
	return uint32((time.Duration(d) + time.Second - 1) / time.Second)
}
