package main

import "github.com/spf13/cobra"

func (a *app) stop() *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "Drain the pipelines and end the runner",
		Long: `Drain the pipelines and end the runner: sources stop, what is under way reaches the sinks, and every process ends.
When this command is done another runner can be started. The kernel's table stays as it is.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			steps := a.steps()
			return steps.End(a.client().Stop(cmd.Context(), steps.Step))
		},
	}
}
