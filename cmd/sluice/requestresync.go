package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) requestResync() *cobra.Command {
	return &cobra.Command{
		Use:   "request-resync [PIPELINE|STAGE]...",
		Short: "Ask peers for all their flows",
		Long:  `Ask the peers for all their flows, and wait until they have been received.`,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), control.Request{Command: "request-resync", Targets: args})
		},
		ValidArgsFunction: a.completeTargets(plugin.KindSource, 0),
	}
}
