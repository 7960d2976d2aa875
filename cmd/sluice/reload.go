package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
)

func (a *app) reload() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again and go over to it",
		Long: `Have the runner read the files that it was started with again, and go over to what they say. Stages that did not change
go on: their processes and what they hold stay. HUP to the runner does the same.

When the files have an error, when a setting can't change while the runner runs, or when a new stage does not start,
nothing changes and this command fails. It does not wait for the replays that it begins. ` + "`sluice plan`" + ` shows before
what it would do, ` + "`sluice status`" + ` afterwards how it ended.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.act(cmd.Context(), control.Request{Command: "reload"})
		},
	}
}
