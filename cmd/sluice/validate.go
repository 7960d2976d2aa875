package main

import (
	"fmt"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) validate() *cobra.Command {
	var c configuration
	cmd := &cobra.Command{
		Use:   "validate -f FILE|DIR",
		Short: "Check pipelines",
		Long: `Check pipelines as run would, without starting them and without privilege.

What is wrong is shown with the file's lines; -o json gives it to programs.`,
		Example: `  sluice validate -f /etc/sluice
  sluice validate -f pipelines/hot-standby.hcl --var sync_interface=eth2`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			return a.check(cmd, c)
		},
	}
	c.addFlags(cmd)
	return cmd
}

// A verdict is what validate prints for programs.
type verdict struct {
	pipeline.Verdict
	Pipelines []pipelineSummary `json:"pipelines"`
}

type pipelineSummary struct {
	Name   string         `json:"name"`
	Stages []stageSummary `json:"stages"`
}

type stageSummary struct {
	Address string `json:"address"`
	Kind    string `json:"kind"`
	Type    string `json:"type"`
}

func (a *app) check(cmd *cobra.Command, c configuration) error {
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	conf, files, diags := c.load(cmd.Context(), log)
	v := verdict{Verdict: pipeline.Judge(files, diags), Pipelines: summarize(conf)}
	if a.json() {
		if err := a.printJSON(v); err != nil {
			return err
		}
	} else if err := pipeline.WriteText(a.stderr, files, diags); err != nil {
		return err
	}
	if !v.Valid {
		return invalid(v.Verdict)
	}
	if !a.json() {
		a.printSummary(v)
	}
	return nil
}

func summarize(conf *pipeline.Configuration) []pipelineSummary {
	all := []pipelineSummary{}
	if conf == nil {
		return all
	}
	for _, p := range conf.Pipelines {
		one := pipelineSummary{Name: p.Name}
		for _, s := range p.Stages {
			one.Stages = append(one.Stages, stageSummary{s.Address(), string(s.Kind), s.Type})
		}
		all = append(all, one)
	}
	return all
}

func (a *app) printSummary(v verdict) {
	stages := 0
	for _, p := range v.Pipelines {
		stages += len(p.Stages)
	}
	fmt.Fprintf(a.stdout, "valid: %s, %s\n", plural(len(v.Pipelines), "pipeline"), plural(stages, "stage"))
	for _, p := range v.Pipelines {
		fmt.Fprintf(a.stdout, "  %s: %s\n", p.Name, chain(p))
	}
}

// chain writes a pipeline in a line: stages follow each other, sinks share what
// is above them.
func chain(p pipelineSummary) string {
	var text strings.Builder
	sink := false
	for i, s := range p.Stages {
		switch {
		case i == 0:
		case sink:
			text.WriteString(", ")
		default:
			text.WriteString(" -> ")
		}
		sink = s.Kind == string(plugin.KindSink)
		text.WriteString(strings.TrimPrefix(s.Address, p.Name+"."))
	}
	return text.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
