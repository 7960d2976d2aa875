package main

import (
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/cmd/sluice/internal/console"
)

func (a *app) status() *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the node, its pipelines and stages",
		Long: `Show the node, its pipelines and stages: state, process, restarts, events in and out, events lost, bytes waiting in
the input, CPU time and memory; what each stage may do; then the signals that stages raised and each stage's last
replays.

Numbers from 100000 on are rounded. -o json has all of them in full.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := a.client().Status(cmd.Context())
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(status)
			}
			return console.Status(a.stdout, status, console.Options{Now: a.now(), Color: a.color(), Verbose: verbose})
		},
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "also the stages' own statistics")
	return cmd
}
