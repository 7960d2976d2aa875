package sourcenetlink

import (
	"fmt"
	"math"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/ctnl"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSource,
	Type:    "netlink",
	Summary: "Reads the kernel's conntrack events over netlink, and its table as replays.",
	Config: func() any {
		return &Config{
			BufferSize: 2 << 20, BufferSizeMax: 8 << 20, Coalesce: plugin.Duration(2 * time.Millisecond),
			Reliable: true, QueueLimit: 32 << 20, ReplayRate: 100_000, Poll: plugin.Duration(15 * time.Minute),
		}
	},
}

// Config is the plugin's block. Its sizes are in bytes.
type Config struct {
	BufferSize    plugin.Size      `hcl:"buffer_size,optional" doc:"Receive buffer of the event socket as getsockopt shows it. An event takes 1280 bytes of it. More than twice net.core.rmem_max needs CAP_NET_ADMIN."`
	BufferSizeMax plugin.Size      `hcl:"buffer_size_max,optional" doc:"How far the receive buffer grows: it doubles each time events are lost."`
	Coalesce      plugin.Duration  `hcl:"coalesce,optional" doc:"While events keep coming, at most one batch goes out in this time; the first after quiet goes at once. \"0s\" never waits, for active-active pairs whose packets may take either firewall."`
	Reliable      bool             `hcl:"reliable,optional" doc:"Have the kernel keep back events that do not fit and report them again (NETLINK_BROADCAST_ERROR). Packets are never dropped for it."`
	QueueLimit    plugin.Size      `hcl:"queue_limit,optional" doc:"Memory for events that the next stage does not take yet. Beyond it events are dropped and counted, and the table is replayed afterwards."`
	ReplayRate    uint32           `hcl:"replay_rate,optional" doc:"Flows a second of a replay; 0 is as fast as the pipeline takes them."`
	OverrunResync Delay            `hcl:"overrun_resync,optional" doc:"How long after events were lost the table is read again. \"0s\" asks at once; the runner puts pauses between one time and the next in any case. \"none\" leaves it to poll: until then what was lost stays lost."`
	Poll          plugin.Duration  `hcl:"poll,optional" doc:"How often the table is read again even though nothing seems lost: it finds the end of flows that began before the first start, of which the kernel sends no event. \"0s\" is never."`
	KernelFilter  bool             `hcl:"kernel_filter,optional" doc:"Have the kernel drop what the filters right below drop by protocol and address, so that it takes neither time nor room in the receive buffer."`
	Expectations  plugin.Selection `hcl:"expectations,optional" doc:"Send expectations too: the flows that helpers wait for, as the data connections of FTP. true for those of all helpers, or a list of the helpers' names."`
	NetNS         string           `hcl:"netns,optional" doc:"Network namespace to read, as in \"/run/netns/blue\". Default: the runner's own."`
}

// A Delay is a duration, or "none", in which case what it delays is not done.
type Delay struct {
	After plugin.Duration
	None  bool
}

// UnmarshalText reads a delay.
func (d *Delay) UnmarshalText(text []byte) error {
	*d = Delay{None: string(text) == "none"}
	if d.None {
		return nil
	}
	if err := d.After.UnmarshalText(text); err != nil {
		return fmt.Errorf(`%q is no duration: write a number with a unit, as in "0s" or "30s", or "none"`, text)
	}
	return nil
}

// String writes the delay as in a pipeline.
func (d Delay) String() string {
	if d.None {
		return "none"
	}
	return d.After.String()
}

// The bounds of sizes: what setsockopt takes, and one batch.
const (
	maxBuffer = math.MaxInt32 - 1
	minQueue  = flow.MaxBatch

	maxHelperName = 15 // NF_CT_HELPER_NAME_LEN without the NUL
)

// Validate checks the relations between the values.
func (c *Config) Validate() (d plugin.Diagnostics) {
	if c.BufferSizeMax < c.BufferSize {
		d.Add(plugin.Path("buffer_size_max"), "Maximum below the size",
			"The receive buffer begins with %v and can't grow to %v: raise buffer_size_max or lower buffer_size.",
			c.BufferSize, c.BufferSizeMax)
	}
	if c.BufferSizeMax > maxBuffer {
		d.Add(plugin.Path("buffer_size_max"), "Size out of range", "A socket's buffer is less than 2GiB.")
	}
	if c.QueueLimit < minQueue {
		d.Add(plugin.Path("queue_limit"), "Size out of range", "The queue must have room for one batch: at least %v.",
			plugin.Size(minQueue))
	}
	if time.Duration(c.Coalesce) > time.Second {
		d.Add(plugin.Path("coalesce"), "Duration out of range",
			"Events would wait for %v, while the receive buffer fills: at most \"1s\" makes sense, and \"2ms\" is usual.", c.Coalesce)
	}
	if poll := time.Duration(c.Poll); poll > 0 && poll < time.Second {
		d.Add(plugin.Path("poll"), "Duration out of range",
			"Reading the whole table every %v would be all that this stage does: write \"15s\" or more, or \"0s\" for never.", c.Poll)
	}
	for i, name := range c.Expectations.Names {
		if name == "" || len(name) > maxHelperName {
			d.Add(plugin.Path("expectations", i), "Bad helper", "%q is no helper's name: write one like \"ftp\" or \"sip\".", name)
		}
	}
	return d
}

// Traits tells the runner where the stage is to run.
func (c *Config) Traits() plugin.Traits {
	t := plugin.Traits{NetNS: c.NetNS, Kernel: true, Screened: c.KernelFilter, Needs: plugin.Needs{
		Capabilities: []string{"net_admin"}, Network: true,
		Read: []string{"/proc"}, Write: []string{ctnl.Settings},
	}}
	// Expectations take their zone from the event that their master began with.
	if c.Expectations.None() {
		t.Commands = []string{plugin.IgnoreNew, plugin.HearNew}
	}
	return t
}

// Build makes the source.
func (c *Config) Build() (any, error) { return newSource(c), nil }
