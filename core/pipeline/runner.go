package pipeline

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/core/trust"
)

// DefaultRunner returns the runner that a configuration without a runner block
// has.
func DefaultRunner() Runner {
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	dir := runtimeDirectory()
	return Runner{
		Name:       name,
		PluginPath: []string{"/usr/lib/sluice/plugins"},
		LockFile:   filepath.Join(dir, "sluice.lock"),
		Control:    Control{Path: filepath.Join(dir, "control.sock"), Backlog: 20},
		Log:        Log{Level: "info", Format: "text"},
		Metrics:    Metrics{Page: true},
	}
}

// runtimeDirectory is where a runner's socket and lock are: what systemd made for
// the service (RuntimeDirectory=), since there may be several, or else one for
// all. Nothing else sets this variable.
func runtimeDirectory() string {
	if first, _, _ := strings.Cut(os.Getenv("RUNTIME_DIRECTORY"), ":"); strings.HasPrefix(first, "/run/sluice") {
		return first
	}
	return "/run/sluice"
}

// runnerDefinition lets the runner block be described, decoded and checked by
// the same code as a stage.
var runnerDefinition = plugin.Definition{Type: "runner", Config: func() any { r := DefaultRunner(); return &r }}

// RunnerSchema returns what the runner block may hold, with the defaults of
// DefaultRunner.
func RunnerSchema() *stagepb.Schema {
	defaults := DefaultRunner()
	defaults.Name = "" // this host's name is no one else's default
	schema := schemaOf(&defaults)
	for _, b := range schema.Blocks {
		switch b.Name {
		case "control":
			b.Schema = schemaOf(&defaults.Control)
		case "log":
			b.Schema = schemaOf(&defaults.Log)
		case "metrics":
			b.Schema = schemaOf(&defaults.Metrics)
		}
	}
	return schema
}

func schemaOf(config any) *stagepb.Schema {
	return plugin.Describe(plugin.Definition{Config: func() any { return config }}).Schema
}

// loadRunner decodes the runner block, if there is one.
func (l *loader) loadRunner(blocks hcl.Blocks) Runner {
	if len(blocks) == 0 {
		return DefaultRunner()
	}
	for _, b := range blocks[1:] {
		l.runnerBroken = true
		l.add(hcl.Diagnostics{failure("Duplicate runner block",
			fmt.Sprintf("There is a runner block already, at %s.", blocks[0].DefRange), &b.DefRange)})
	}
	b := blocks[0]
	spec, err := specOf(RunnerSchema())
	if err != nil {
		panic(err) // our own schema
	}
	block, diags := l.scope.decode(b.Body, b.DefRange, spec)
	l.add(diags)
	config, reply := plugin.Configure(runnerDefinition, block.json)
	diags = l.scope.point(reply.Diagnostics, b.Body, b.DefRange, block)
	l.add(diags)
	if !block.complete || diags.HasErrors() {
		l.runnerBroken = true
		return DefaultRunner()
	}
	return *config.(*Runner)
}

var (
	logLevels  = []string{"debug", "info", "warn", "error"}
	schedulers = []string{"other", "rr", "fifo"}
	logFormats = []string{"text", "json"}
	facilities = []string{"", "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron",
		"authpriv", "ftp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}
)

// maxSocketPath is what fits into struct sockaddr_un beside the final zero.
const maxSocketPath = 107

// Validate implements plugin.Validator.
func (r *Runner) Validate() (d plugin.Diagnostics) {
	if r.Name == "" || strings.ContainsFunc(r.Name, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		d.Add(plugin.Path("name"), "Invalid name", "A node's name is one word, like a host's.")
	}
	for i, dir := range r.PluginPath {
		if !filepath.IsAbs(dir) {
			d.Add(plugin.Path("plugin_path", i), "Relative path", "The directory %q must be absolute: the runner executes "+
				"what is in it, and must not depend on where it was started. abspath(%q) is a path beside this file.", dir, dir)
		}
	}
	if r.PluginLock != "" && !filepath.IsAbs(r.PluginLock) {
		d.Add(plugin.Path("plugin_lock"), "Relative path", "The path %q must be absolute. abspath(%q) is a path beside this file.", r.PluginLock, r.PluginLock)
	}
	for i, key := range r.LockKeys {
		if _, err := trust.PublicKey(key); err != nil {
			d.Add(plugin.Path("lock_keys", i), "Invalid key", "This can't be a key that signatures are checked with: %v.", err)
		}
	}
	if len(r.Control.Path) > maxSocketPath || r.Control.Path == "" {
		d.Add(plugin.Path("control", "path"), "Invalid path", "The path of a Unix socket has 1 to %d bytes; this one has %d.",
			maxSocketPath, len(r.Control.Path))
	}
	if r.TrackFile != "" && !filepath.IsAbs(r.TrackFile) {
		d.Add(plugin.Path("track_file"), "Relative path", "The path %q must be absolute: keepalived is told the same.", r.TrackFile)
	}
	if r.Control.Backlog < 1 {
		d.Add(plugin.Path("control", "backlog"), "Number out of range", "The backlog must be at least 1.")
	}
	r.Metrics.validate(&d)
	if r.Scheduler != nil {
		r.Scheduler.validate(&d)
	}
	oneOf(&d, plugin.Path("log", "level"), "log level", r.Log.Level, logLevels)
	oneOf(&d, plugin.Path("log", "format"), "log format", r.Log.Format, logFormats)
	oneOf(&d, plugin.Path("log", "syslog"), "syslog facility", r.Log.Syslog, facilities)
	return d
}

func (m *Metrics) validate(d *plugin.Diagnostics) {
	path, isPath := strings.CutPrefix(m.Listen, "unix:")
	_, port, err := net.SplitHostPort(m.Listen)
	number, notNumber := strconv.ParseUint(port, 10, 16)
	listen := plugin.Path("metrics", "listen")
	switch {
	case m.Listen == "" && *m == DefaultRunner().Metrics: // there is no such block
	case isPath && (len(path) > maxSocketPath || !filepath.IsAbs(path)):
		d.Add(listen, "Invalid path", "The path of a Unix socket is absolute and has at most %d bytes.", maxSocketPath)
	case !isPath && (err != nil || notNumber != nil || number == 0):
		d.Add(listen, "Invalid address", "Write an address and a port, as in 127.0.0.1:9783 or [::1]:9783, or the path of a socket, as in unix:/run/sluice/metrics.sock.")
	case !isPath && m.Group != "":
		d.Add(plugin.Path("metrics", "group"), "Group without effect", "Only a Unix socket has one.")
	}
	if m.WebConfig != "" && !filepath.IsAbs(m.WebConfig) {
		d.Add(plugin.Path("metrics", "web_config"), "Relative path", "The path %q must be absolute. abspath(%q) is one beside this file.", m.WebConfig, m.WebConfig)
	}
}

func (s *Scheduler) validate(d *plugin.Diagnostics) {
	priority, nice := plugin.Path("scheduler", "priority"), plugin.Path("scheduler", "nice")
	realTime := s.Type == "rr" || s.Type == "fifo"
	switch {
	case !slices.Contains(schedulers, s.Type):
		oneOf(d, plugin.Path("scheduler", "type"), "type of scheduler", s.Type, schedulers)
	case realTime && (s.Priority < 1 || s.Priority > 99):
		d.Add(priority, "Priority out of range", "Write a priority from 1 to 99 beside type = %q.", s.Type)
	case realTime && s.Nice != 0:
		d.Add(nice, "Nice without effect", "Only type = \"other\" has it; %s has a priority.", s.Type)
	case !realTime && s.Priority != 0:
		d.Add(priority, "Priority without effect", "Only rr and fifo have a priority; other has nice.")
	case s.Nice < -20 || s.Nice > 19:
		d.Add(nice, "Number out of range", "Nice is a number from -20 to 19.")
	}
}

func oneOf(d *plugin.Diagnostics, path []any, what, given string, known []string) {
	if !slices.Contains(known, given) {
		named := slices.DeleteFunc(slices.Clone(known), func(s string) bool { return s == "" })
		d.Add(path, "Unknown "+what, "There is no %s %q.%s", what, given,
			didYouMean(given, named, " Write one of "+list(named)+"."))
	}
}
