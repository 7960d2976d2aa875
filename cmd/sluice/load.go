package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/runner"
)

// A configuration is where pipelines come from: the flags -f, --var and
// --var-file.
type configuration struct {
	paths, variables, variableFiles []string

	texts map[string][]byte // made by a program, not read
}

func (c *configuration) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&c.paths, "file", "f", nil, "a `file` of pipelines, or a directory of *.hcl; may be repeated")
	flags.StringArrayVar(&c.variables, "var", nil, "`NAME=VALUE` of a variable; may be repeated")
	flags.StringArrayVar(&c.variableFiles, "var-file", nil, "a `file` of values of variables; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("file", completePipelineFiles)
}

// check refuses a command line that names no file.
func (c *configuration) check() error {
	if len(c.paths) == 0 {
		return usageError("name a file or a directory of pipelines with -f")
	}
	return nil
}

// load reads and checks a configuration. It starts each plugin that is named
// once, to ask it.
func (c *configuration) load(ctx context.Context, log *slog.Logger) (*pipeline.Configuration, pipeline.Files, hcl.Diagnostics) {
	var catalog *runner.Catalog
	defer func() {
		if catalog != nil {
			catalog.Close()
		}
	}()
	return pipeline.Load(ctx, pipeline.Options{
		Paths: c.paths, Texts: c.texts, Variables: c.variables, VariableFiles: c.variableFiles,
		Catalog: func(r pipeline.Runner) (_ pipeline.Catalog, err error) {
			catalog, err = runner.NewCatalog(pluginsOf(r), log)
			return catalog, err
		},
	})
}

// maxFaults bounds how many faults of a configuration an error tells.
const maxFaults = 10

// loadAgain is load for a runner that runs: what is wrong is one error, of one
// line, that says where.
func (c *configuration) loadAgain(ctx context.Context) (*pipeline.Configuration, error) {
	conf, files, diags := c.load(ctx, slog.New(slog.DiscardHandler))
	if conf != nil {
		return conf, nil
	}
	var faults []string
	for _, d := range pipeline.Judge(files, diags).Diagnostics {
		if d.Severity != "error" {
			continue
		}
		if len(faults) == maxFaults {
			faults = append(faults, "and more: `sluice validate` shows all")
			break
		}
		fault := d.Summary + ": " + d.Detail
		if d.File != "" {
			fault = fmt.Sprintf("%s:%d,%d: %s", d.File, d.Line, d.Column, fault)
		}
		faults = append(faults, strings.Join(strings.Fields(fault), " "))
	}
	return nil, errors.New(strings.Join(faults, "; "))
}

func pluginsOf(r pipeline.Runner) runner.Plugins {
	return runner.Plugins{Bundled: bundledNames(), Path: r.PluginPath}
}

// invalid is the one line behind the diagnostics.
func invalid(verdict pipeline.Verdict) error {
	if verdict.Errors == 1 {
		return fmt.Errorf("the configuration has an error")
	}
	return fmt.Errorf("the configuration has %d errors", verdict.Errors)
}
