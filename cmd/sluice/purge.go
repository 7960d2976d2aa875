package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) purge() *cobra.Command {
	return &cobra.Command{
		Use:   "purge [PIPELINE|STAGE]...",
		Short: "Schedule the deletion of the flows this node no longer carries",
		Long: `Schedule the deletion, from the kernel's table and the cache, of what the filters of the pipeline that a kernel sink
names as its scope accept. It happens after the sink's purge_timeout, unless the node becomes primary before.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), control.Request{Command: "purge", Targets: args})
		},
		ValidArgsFunction: a.completeTargets(plugin.KindSink, 0),
	}
}
