package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) commit() *cobra.Command {
	return &cobra.Command{
		Use:   "commit [PIPELINE|STAGE]...",
		Short: "Put the peers' flows into the kernel",
		Long: `Put what the hold caches have received from peers into the kernel, and wait until it is there.

This is one step of a takeover; ` + "`sluice role primary`" + ` does all of them.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), control.Request{Command: "commit", Targets: args})
		},
		ValidArgsFunction: a.completeTargets(plugin.KindCache, 0),
	}
}
