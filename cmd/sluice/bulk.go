package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) bulk() *cobra.Command {
	return &cobra.Command{
		Use:   "bulk [PIPELINE|STAGE]...",
		Short: "Send peers all flows",
		Long:  `Send peers all flows that the caches above a link hold, and wait until they are sent.`,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), control.Request{Command: "bulk", Targets: args})
		},
		ValidArgsFunction: a.completeTargets(plugin.KindCache, 0),
	}
}
