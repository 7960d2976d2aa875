package main

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) flush() *cobra.Command {
	var all, expectations bool
	cmd := &cobra.Command{
		Use:   "flush [--expectations] PIPELINE|STAGE...|kernel|--all",
		Short: "Empty caches, or the kernel's table",
		Long: `Empty the caches that are named, or all of them with --all. Nobody is told: peers keep what they have.

kernel deletes from the kernel's connection-tracking table, at once, what the filters of the pipeline that a kernel
sink names as its scope accept. Those connections break or are tracked anew.`,
		Example: `  sluice flush peers
  sluice flush kernel`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) > 0:
				return usageError("--all stands for every cache: name none beside it")
			case !all && len(args) == 0:
				return usageError("name a pipeline or a stage, kernel, or --all")
			case len(args) > 1 && slices.Contains(args, "kernel"):
				return usageError("kernel stands alone: flush caches by a command of their own")
			case expectations && slices.Contains(args, "kernel"):
				return usageError("--expectations is for caches: the kernel's end with their masters")
			}
			return a.act(cmd.Context(), control.Request{Command: "flush", Targets: args, All: all, Expectations: expectations})
		},
		ValidArgsFunction: a.completeTargets(plugin.KindCache, 0, "kernel"),
	}
	cmd.Flags().BoolVar(&all, "all", false, "every cache")
	cmd.Flags().BoolVar(&expectations, "expectations", false, "only the expectations of helpers, and no flows")
	return cmd
}
