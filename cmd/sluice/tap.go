package main

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
)

func (a *app) tap() *cobra.Command {
	var (
		input       bool
		rate, count int
	)
	cmd := &cobra.Command{
		Use:   "tap [--input] [--rate N] [--count N] STAGE [CONDITION]...",
		Short: "Watch events leave a stage",
		Long: `Watch events leave a stage or, of a sink or with --input, enter it, as conntrack -E prints them or, with -o json, one
object a line. Conditions choose them as they do for dump: protocol=, state=, family=, source=, destination=, zone=,
mark=, owner=.

It never holds the stage up: at most 8 MiB a second are copied for it, some 60,000 events, and of those that are chosen
--rate are shown. What was left out is told every second, in lines that begin with #.`,
		Example: `  sluice tap local.cache.memory
  sluice tap local.source.netlink protocol=tcp destination=192.0.2.0/24
  sluice tap --count 10 -o json peers.source.multicast`,
		Args: takes(1, -1, "the stage to watch"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if rate < 0 || count < 0 {
				return usageError("--rate and --count are numbers from 0 on")
			}
			words := append([]string{"rate=" + strconv.Itoa(rate), "count=" + strconv.Itoa(count)}, args[1:]...)
			if input {
				words = append(words, "edge=input")
			}
			request := control.DumpRequest{Target: args[0], What: control.DumpTap, Args: words, JSON: a.json()}
			err := a.client().Dump(cmd.Context(), request, a.stdout)
			if errors.Is(cmd.Context().Err(), context.Canceled) {
				return nil // interrupted, as a tap is ended
			}
			return err
		},
		ValidArgsFunction: a.completeStages,
	}
	flags := cmd.Flags()
	flags.BoolVar(&input, "input", false, "what enters the stage instead of what leaves it")
	flags.IntVar(&rate, "rate", 100, "events to show a second at most; 0 for all")
	flags.IntVar(&count, "count", 0, "end after so many events; 0 for never")
	return cmd
}

// completeStages completes the addresses of the running stages.
func (a *app) completeStages(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	status, err := a.client().Status(ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			names = append(names, s.Address)
		}
	}
	return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
}
