package main

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/cases"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugintest/kit"
)

// A testRun is the flags of `sluice test`.
type testRun struct {
	only, junit string
	verbose     bool
	patience    time.Duration
	pattern     *regexp.Regexp
}

func (a *app) test() *cobra.Command {
	var c testRun
	cmd := &cobra.Command{
		Use:   "test [DIR|FILE]...",
		Short: "Run the tests beside pipelines",
		Long: `Run the tests in files *.test.hcl, of the directories that are named, or of this one. A test feeds events, written or
recorded, to a filter, to a cache, or to a whole pipeline without its source and sinks, and states what must come out.

The stages run as they do in a runner, but nothing is read from the network or the kernel, or written there: tests need
no privilege. The exit status is 0 if all pass.`,
		Example: `  sluice test /etc/sluice
  sluice test --run 'ignored|backup' pipelines/primary-backup.test.hcl
  sluice test --junit report.xml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{"."}
			}
			return a.runTests(cmd.Context(), c, args)
		},
		ValidArgsFunction: completePipelineFiles,
	}
	flags := cmd.Flags()
	flags.StringVar(&c.only, "run", "", "run the tests alone whose names match this `regular expression`")
	flags.StringVar(&c.junit, "junit", "", "a `file` to write the report to as JUnit's XML")
	flags.DurationVar(&c.patience, "patience", kit.DefaultPatience, "the longest that a stage may take for what it is fed")
	flags.BoolVarP(&c.verbose, "verbose", "v", false, "show what the stages log")
	return cmd
}

func (a *app) runTests(ctx context.Context, c testRun, paths []string) (err error) {
	if c.pattern, err = regexp.Compile(c.only); err != nil {
		return usageError("--run: " + err.Error())
	}
	if c.patience <= 0 {
		return usageError("--patience is a time, as in 10s")
	}
	names, err := cases.Find(paths)
	if err != nil {
		return usageError(err.Error())
	}
	var report cases.Report
	for _, name := range names {
		if err := a.testFile(ctx, &c, name, &report); err != nil {
			return err
		}
	}
	if len(report.Results) == 0 {
		return usageError(fmt.Sprintf("no test has a name that matches %q", c.only))
	}
	if c.junit != "" {
		if err := writeJUnit(&report, c.junit); err != nil {
			return err
		}
	}
	if a.json() {
		err = a.printJSON(report)
	} else {
		err = report.WriteSummary(a.stdout)
	}
	if err == nil && report.Failed > 0 {
		return errReported
	}
	return err
}

// testFile runs the tests of a file that are asked for.
func (a *app) testFile(ctx context.Context, c *testRun, name string, report *cases.Report) error {
	file, text, diags := cases.Load(name)
	if file == nil {
		return a.brokenTests(name, pipeline.Files{name: text}, diags, report)
	}
	var chosen []*cases.Test
	for _, t := range file.Tests {
		if c.pattern.MatchString(t.Name) {
			chosen = append(chosen, t)
		}
	}
	if len(chosen) == 0 {
		return nil
	}
	bench, files, diags := a.bench(ctx, c, file)
	if bench == nil {
		return a.brokenTests(name, files, diags, report)
	}
	for _, t := range chosen {
		began := time.Now()
		err := bench.Run(ctx, t)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		result := cases.ResultOf(file, t, err, time.Since(began))
		report.Add(result)
		if !a.json() {
			if err := result.Write(a.stdout); err != nil {
				return err
			}
		}
	}
	return nil
}

// brokenTests reports a file of tests that can't be run: something is wrong in it, or in
// the pipelines that it is about.
func (a *app) brokenTests(name string, files pipeline.Files, diags hcl.Diagnostics, report *cases.Report) error {
	var lines []string
	for _, d := range pipeline.Judge(files, diags).Diagnostics {
		if d.Severity == "error" {
			lines = append(lines, fmt.Sprintf("%s:%d: %s: %s", d.File, d.Line, d.Summary, d.Detail))
		}
	}
	result := cases.Result{File: name, Test: "its tests can be run", Detail: strings.Join(lines, "\n")}
	report.Add(result)
	if a.json() {
		return nil
	}
	if err := pipeline.WriteText(a.stderr, files, diags); err != nil {
		return err
	}
	result.Detail = "see above"
	return result.Write(a.stdout)
}

// bench loads the pipelines that a file is about. It returns no bench and what is
// wrong with them, or one.
func (a *app) bench(ctx context.Context, c *testRun, file *cases.File) (*cases.Bench, pipeline.Files, hcl.Diagnostics) {
	log := slog.New(slog.DiscardHandler)
	if c.verbose {
		log = slog.New(slog.NewTextHandler(a.stderr, nil))
	}
	from := configuration{paths: file.Pipelines, variables: file.Variables}
	conf, files, diags := from.load(ctx, log)
	if conf == nil {
		return nil, files, diags
	}
	return &cases.Bench{Configuration: conf, Plugins: pluginsOf(conf.Runner), Log: log, Patience: c.patience}, files, nil
}
