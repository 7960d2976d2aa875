package cachememory

import (
	"github.com/sluice-project/sluice/core/plugin"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindCache,
	Type:    "memory",
	Summary: "Keeps flows in memory, passes their changes on, and replays them.",
	Config: func() any {
		return &Config{Limit: defaultLimit, ExpectationLimit: defaultExpectationLimit, ReplayRate: defaultReplayRate, ReplayRateMax: defaultReplayRateMax}
	},
}

const (
	defaultLimit = 1 << 20
	maxLimit     = 1 << 27

	defaultExpectationLimit = 1 << 14
	maxExpectationLimit     = 1 << 20

	defaultReplayRate    = 50000
	defaultReplayRateMax = 1000000 // some 750 Mbit/s
)

// Config is the plugin's block. None of it needs a privilege.
type Config struct {
	Limit            uint32 `hcl:"limit,optional" doc:"Most flows that the cache keeps. At the limit new flows are refused and counted, and the runner is told. A flow takes about 110 bytes, 50 more with IPv6, and its labels, helper and master what they need. Choose what nf_conntrack_max allows, on both firewalls."`
	ExpectationLimit uint32 `hcl:"expectation_limit,optional" doc:"Most expectations that the cache keeps, besides. They are few: one a transfer that a helper waits for. An expectation takes about 270 bytes."`
	Hold             bool   `hcl:"hold,optional" doc:"Pass nothing on until the flows are committed: conntrackd's external cache. Leave it out in front of a cache or sink that is to follow at once."`
	ReplayRate       uint32 `hcl:"replay_rate,optional" doc:"Records a second that a replay sends to peers of which nobody learns what they miss, as conntrackd, so that it does not overrun their receive buffers; 0 for as fast as it goes, whoever receives it. A commit is never paced."`
	ReplayRateMax    uint32 `hcl:"replay_rate_max,optional" doc:"Records a second that a replay begins with when all who receive it report what they miss, as Sluice does. Each one that they ask for again at once goes half as fast, down to replay_rate."`
}

// Validate checks the limits.
func (c *Config) Validate() (d plugin.Diagnostics) {
	if c.Limit < 1 || c.Limit > maxLimit {
		d.Add(plugin.Path("limit"), "Bad limit", "The limit is a number of flows from 1 to %d.", maxLimit)
	}
	if c.ExpectationLimit < 1 || c.ExpectationLimit > maxExpectationLimit {
		d.Add(plugin.Path("expectation_limit"), "Bad limit", "The limit is a number of expectations from 1 to %d.", maxExpectationLimit)
	}
	if c.ReplayRateMax < c.ReplayRate {
		d.Add(plugin.Path("replay_rate_max"), "Bad pace", "The pace is no less than replay_rate, which is %d.", c.ReplayRate)
	}
	return d
}

// Traits tells the runner the commands, and whether the cache holds.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{Commands: []string{"dump", "flush", "stats"}, Hold: c.Hold}
}

// Build makes the cache.
func (c *Config) Build() (any, error) { return newCache(*c), nil }
