package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugintest/kit"
)

// A pluginCheck is the flags of `sluice plugin check`.
type pluginCheck struct {
	config, junit string
	only          []string
	patience      time.Duration
	verbose       bool
	kernel        bool
	unconfined    bool
}

func (a *app) pluginCheck() *cobra.Command {
	var c pluginCheck
	cmd := &cobra.Command{
		Use:   "check BINARY",
		Short: "Check that a plugin does what every plugin must",
		Long: `Check that a plugin does what every plugin must: start it as a runner does, feed it, disturb it, and say what it
does otherwise than the guide for plugins and the protocol demand. Its executable is named sluice-KIND-TYPE; the name
of a bundled plugin, as in filter-basic, is taken as well.

What is fed is made up: flows of 10.0.0.0/8 and 2001:db8::/64. A sink does with them what it does with flows, so give it
a configuration by which that harms nobody. A plugin that needs attributes gets them from a file that holds what
stands within its block in a pipeline.

It runs confined, as in a pipeline: with what a block "grant" in that file says, and no more. --unconfined tells what is its
own fault from what it is not granted.

The exit status is 0 if it conforms, 1 if not, and 2 if it could not be checked.

Checks: ` + checkNames() + `.`,
		Example: `  sluice plugin check ./sluice-filter-mark --config mark.hcl
  sluice plugin check ./sluice-filter-mark --config mark.hcl --junit report.xml
  sluice plugin check filter-basic --only data --only order`,
		Args: takes(1, 1, "a plugin's executable"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.checkPlugin(cmd, args[0], c) },
	}
	flags := cmd.Flags()
	flags.StringVar(&c.config, "config", "", "a `file` with what stands within the plugin's block")
	flags.StringVar(&c.junit, "junit", "", "a `file` to write the report to as JUnit's XML")
	flags.StringArrayVar(&c.only, "only", nil, "run this `check` alone; may be repeated")
	flags.DurationVar(&c.patience, "patience", kit.DefaultPatience, "the longest that any step but a start may take")
	flags.BoolVar(&c.kernel, "kernel", false, "feed a sink that changes the kernel's table: best in a network namespace of its own")
	flags.BoolVar(&c.unconfined, "unconfined", false, "let the plugin do what this process may")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "show what the plugin logs")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(kit.Names(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// checkNames lists the checks in lines that fit a terminal.
func checkNames() string {
	var lines []string
	for names := range slices.Chunk(kit.Names(), 12) {
		lines = append(lines, strings.Join(names, ", "))
	}
	return strings.Join(lines, ",\n")
}

var pluginFile = regexp.MustCompile(`^sluice-(source|filter|cache|sink)-(.+)$`)

// options finds the plugin and reads its block.
func (c *pluginCheck) options(name string) (o kit.Options, err error) {
	o = kit.Options{Path: name, Patience: c.patience, Only: c.only, Kernel: c.kernel}
	if c.patience <= 0 {
		return o, usageError("--patience is a time, as in 10s")
	}
	for _, one := range c.only {
		if !slices.Contains(kit.Names(), one) {
			return o, usageError(fmt.Sprintf("there is no check %q: there are %s", one, strings.Join(kit.Names(), ", ")))
		}
	}
	if _, statErr := os.Stat(name); statErr != nil && slices.Contains(bundledNames(), name) {
		kind, typ, _ := strings.Cut(name, "-")
		o.Path, o.Name, o.Args = "/proc/self/exe", name, []string{"sluice", pluginExecName, name}
		o.Kind, o.Type = plugin.Kind(kind), typ
	} else if parts := pluginFile.FindStringSubmatch(filepath.Base(name)); parts != nil {
		o.Kind, o.Type, o.Confined = plugin.Kind(parts[1]), parts[2], !c.unconfined
	} else {
		return o, usageError(fmt.Sprintf("a plugin's executable is named sluice-KIND-TYPE, as in sluice-filter-mark: %s is not", name))
	}
	if o.Path, err = filepath.Abs(o.Path); err != nil || c.config == "" {
		return o, err
	}
	o.BlockName = c.config
	o.Block, err = os.ReadFile(c.config)
	if err != nil {
		err = usageError(err.Error())
	}
	return o, err
}

func (a *app) checkPlugin(cmd *cobra.Command, name string, c pluginCheck) error {
	o, err := c.options(name)
	if err != nil {
		return err
	}
	if c.verbose {
		o.Log = slog.New(slog.NewTextHandler(a.stderr, nil))
	}
	if !a.json() {
		o.Progress = func(r kit.Result) { _ = kit.WriteResult(a.stdout, r) }
	}
	report, err := kit.Check(cmd.Context(), o)
	var block *kit.BlockError
	switch {
	case errors.As(err, &block):
		if err := pipeline.WriteText(a.stderr, block.Files, block.Diagnostics); err != nil {
			return err
		}
		if c.config == "" {
			return usageError("the plugin needs a configuration: name a file with what stands within its block with --config")
		}
		return usageError("the block in " + c.config + " does not fit the plugin")
	case errors.Is(err, kit.ErrKernel):
		return usageError(err.Error() + ": allow it with --kernel, in a network namespace of its own, as in: unshare -n sluice plugin check …")
	case err != nil && report == nil:
		return usageError(err.Error())
	case err != nil:
		return err
	}
	return a.showReport(report, c.junit)
}

func (a *app) showReport(report *kit.Report, junit string) error {
	if junit != "" {
		if err := writeJUnit(report, junit); err != nil {
			return err
		}
	}
	var err error
	if a.json() {
		err = a.printJSON(report)
	} else {
		err = report.WriteSummary(a.stdout)
	}
	if err == nil && !report.Conforms {
		return errReported
	}
	return err
}

func writeJUnit(report interface{ WriteJUnit(io.Writer) error }, path string) error {
	file, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
	if err != nil {
		return err
	}
	defer file.Cleanup()
	if err := report.WriteJUnit(file); err != nil {
		return err
	}
	return file.CloseAtomicallyReplace()
}
