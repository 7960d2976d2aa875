package sinklog

import (
	"fmt"
	"log/syslog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// Definition declares the plugin.
var Definition = plugin.Definition{
	Kind:    plugin.KindSink,
	Type:    "log",
	Summary: "Logs flows that ended, began or changed, to a file or to syslog.",
	Config: func() any {
		return &Config{Format: "text", Events: []string{flow.Destroy.String()}, Mode: 0o640}
	},
}

// Config is the plugin's block. Exactly one of Path and Syslog is given.
type Config struct {
	Path   string   `hcl:"path,optional" doc:"The file to append to, an absolute path. It is opened again when it was moved away or removed."`
	Syslog string   `hcl:"syslog,optional" doc:"The facility of the local syslog daemon to log to instead of a file, as in \"local0\" or \"daemon\". Lines have the severity info."`
	Format string   `hcl:"format,optional" doc:"\"text\" as conntrack(8) prints events, or \"json\": one object a line."`
	Events []string `hcl:"events,optional" doc:"What to log: any of \"new\", \"update\" and \"destroy\"; of expectations \"expect\" and \"unexpect\"."`
	Mode   Mode     `hcl:"mode,optional" doc:"The permissions, in octal, of a file that is made, less the runner's umask."`
}

// Mode is a file's permissions; in a pipeline a string of octal digits: "0640".
type Mode uint32

// UnmarshalText reads octal digits.
func (m *Mode) UnmarshalText(text []byte) error {
	v, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || v > 0o777 {
		return fmt.Errorf("%q are no permissions: write octal digits from \"0000\" to \"0777\", as in \"0640\"", text)
	}
	*m = Mode(v)
	return nil
}

// String writes four octal digits.
func (m Mode) String() string { return fmt.Sprintf("%04o", uint32(m)) }

var kinds = map[string]flow.Kind{"new": flow.New, "update": flow.Update, "destroy": flow.Destroy, "expect": flow.Expect, "unexpect": flow.Unexpect}

var facilities = map[string]syslog.Priority{
	"kern": syslog.LOG_KERN, "user": syslog.LOG_USER, "mail": syslog.LOG_MAIL, "daemon": syslog.LOG_DAEMON,
	"auth": syslog.LOG_AUTH, "syslog": syslog.LOG_SYSLOG, "lpr": syslog.LOG_LPR, "news": syslog.LOG_NEWS,
	"uucp": syslog.LOG_UUCP, "cron": syslog.LOG_CRON, "authpriv": syslog.LOG_AUTHPRIV, "ftp": syslog.LOG_FTP,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1, "local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3,
	"local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5, "local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

// Validate checks what types can't.
func (c *Config) Validate() (d plugin.Diagnostics) {
	switch {
	case c.Path == "" && c.Syslog == "":
		d.Add(nil, "Nowhere to log to", "Write path = FILE or syslog = FACILITY.")
	case c.Path != "" && c.Syslog != "":
		d.Add(plugin.Path("syslog"), "Both path and syslog", "One sink logs to one place. Keep one; a second sink \"log\" can have the other.")
	case c.Path != "" && !filepath.IsAbs(c.Path):
		d.Add(plugin.Path("path"), "Relative path", "%q depends on where the runner was started: write the whole path, as in \"/var/log/flows.log\".", c.Path)
	}
	if _, ok := facilities[c.Syslog]; c.Syslog != "" && !ok {
		d.Add(plugin.Path("syslog"), "Unknown facility", "There is no facility %q. Known are %s.", c.Syslog, known(facilities))
	}
	if c.Format != "text" && c.Format != "json" {
		d.Add(plugin.Path("format"), "Unknown format", "There is no format %q: write \"text\" or \"json\".", c.Format)
	}
	if len(c.Events) == 0 {
		d.Add(plugin.Path("events"), "Empty list", "Nothing would ever be logged. Known are %s.", known(kinds))
	}
	for i, name := range c.Events {
		if _, ok := kinds[name]; !ok {
			d.Add(plugin.Path("events", i), "Unknown event", "There is no event %q. Known are %s.", name, known(kinds))
		}
	}
	return d
}

func known[V any](names map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// Traits names the command that the sink has, and says that it wants every flow,
// unless it logs changes alone.
func (c *Config) Traits() plugin.Traits {
	return plugin.Traits{
		Commands:  []string{reopen},
		EveryFlow: slices.ContainsFunc(c.Events, func(name string) bool { return kinds[name] != flow.Update }),
		Needs:     c.needs(),
	}
}

// needs are the syslog daemon's socket, or a file in a directory that may belong
// to anybody, as root writes it.
func (c *Config) needs() plugin.Needs {
	if c.Path == "" {
		return plugin.Needs{Network: true}
	}
	return plugin.Needs{RunnerUser: true, Capabilities: []string{"dac_override"}, Write: []string{c.Path}}
}

// Build makes the sink.
func (c *Config) Build() (any, error) { return newSink(c), nil }
