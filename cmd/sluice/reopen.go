package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
)

func (a *app) reopen() *cobra.Command {
	return &cobra.Command{
		Use:   "reopen",
		Short: "Open log files again, after a rotation",
		Long: `Open the runner's log file again, and the files of stages that log flows. When this command is done nothing is
written to the old files any more. USR1 to the runner does the same.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.act(cmd.Context(), control.Request{Command: "reopen"})
		},
	}
}
