package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) resync() *cobra.Command {
	return &cobra.Command{
		Use:   "resync [PIPELINE|STAGE]...",
		Short: "Read the kernel's table into the caches",
		Long:  `Read the kernel's whole table into the caches below its source, and wait until they agree with it.`,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), control.Request{Command: "resync", Targets: args})
		},
		ValidArgsFunction: a.completeTargets(plugin.KindSource, 0),
	}
}
