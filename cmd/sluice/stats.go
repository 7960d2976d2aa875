package main

import (
	"bufio"
	"errors"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) stats() *cobra.Command {
	return &cobra.Command{
		Use:   "stats PIPELINE|STAGE",
		Short: "Count a cache's flows",
		Long: `Count a cache's flows: by protocol, by state, by the peers that own them. It walks through the whole cache; what
stages count as they work is in status -v.

A pipeline names its cache if it has one.`,
		Example: `  sluice stats peers`,
		Args:    takes(1, 1, "the pipeline or the stage whose flows to count"),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := bufio.NewWriter(a.stdout)
			err := a.client().Dump(cmd.Context(), control.DumpRequest{Target: args[0], What: control.DumpStats, JSON: a.json()}, out)
			return errors.Join(err, out.Flush())
		},
		ValidArgsFunction: a.completeTargets(plugin.KindCache, 1),
	}
}
