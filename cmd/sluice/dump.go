package main

import (
	"bufio"
	"errors"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) dump() *cobra.Command {
	var expectations bool
	cmd := &cobra.Command{
		Use:   "dump [--expectations] PIPELINE|STAGE [ARGUMENT]...",
		Short: "Print a cache's flows",
		Long: `Print a cache's flows, or its expectations, as conntrack(8) prints them or, with -o json, one object a line.

A pipeline names its cache if it has one. Further arguments are for the cache's plugin, which says what it knows if it
is asked for something else; write -- before those that begin with a dash.`,
		Example: `  sluice dump local
  sluice dump local protocol=tcp state=ESTABLISHED
  sluice dump peers.cache.memory -o json
  sluice dump --expectations peers`,
		Args: takes(1, -1, "the pipeline or the stage whose flows to print"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := bufio.NewWriterSize(a.stdout, 64<<10)
			request := control.DumpRequest{Target: args[0], Args: args[1:], JSON: a.json()}
			if expectations {
				request.What = control.DumpExpectations
			}
			err := a.client().Dump(cmd.Context(), request, out)
			return errors.Join(err, out.Flush())
		},
		ValidArgsFunction: a.completeTargets(plugin.KindCache, 1),
	}
	cmd.Flags().BoolVar(&expectations, "expectations", false, "the expectations of helpers instead of the flows")
	return cmd
}
