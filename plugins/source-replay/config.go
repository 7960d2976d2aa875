package sourcereplay

import (
	"math"
	"path/filepath"

	"github.com/sluice-project/sluice/core/plugin"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSource,
	Type:    "replay",
	Summary: "Sends the events of a file that `sluice record` wrote.",
	Config:  func() any { return &Config{Speed: 1, Limit: 1 << 20} },
}

// Config is the plugin's block.
type Config struct {
	File  string  `hcl:"file" doc:"The recording, an absolute path."`
	Speed float64 `hcl:"speed,optional" doc:"How many times as fast as recorded: 1 is as it was, 0.5 half as fast. 0 is as fast as the stages below take it."`
	Loop  bool    `hcl:"loop,optional" doc:"Begin again at the end. Otherwise the source stays, and sends nothing more but replays."`
	Limit uint32  `hcl:"limit,optional" doc:"Flows and expectations to remember for replays, some 300 bytes each. With more in the recording at once than that it refuses to replay."`
}

// Validate checks what the types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	if !filepath.IsAbs(c.File) {
		d.Add(plugin.Path("file"), "Relative path", "%q depends on where the runner was started: write the whole path, or abspath(%q) for one beside this file.", c.File, c.File)
	}
	if c.Speed < 0 || math.IsInf(c.Speed, 0) || math.IsNaN(c.Speed) || c.Speed > 0 && c.Speed < 1e-6 {
		d.Add(plugin.Path("speed"), "Number out of range", "Time goes neither backwards nor so slowly: write a number from 0.000001 on, or 0.")
	}
	return d
}

// Traits tells what the stage must be allowed: to read a file that belongs to the
// runner's user, who made it.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{Needs: plugin.Needs{RunnerUser: true, Read: []string{c.File}}}
}

// Build makes the source.
func (c *Config) Build() (any, error) { return newSource(c), nil }
