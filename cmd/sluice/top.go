package main

import (
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/cmd/sluice/internal/top"
	"github.com/sluice-project/sluice/core/control"
)

func (a *app) top() *cobra.Command {
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Watch the stages and their rates",
		Long: `Watch the stages of a running node: events a second in and out, what was lost, bytes waiting in the input, CPU and
memory, and the last signals.

Keys: o sorts in the pipelines' order, i by events in, u out, l lost, w by bytes that wait, c by CPU, m by memory;
r reverses; p or space pauses; arrows scroll; q quits. It needs a terminal: status prints the same once.`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case a.json() || !a.terminal():
				return usageError("top needs a terminal: `sluice status` prints once, and -o json is for programs")
			case interval < 100*time.Millisecond:
				return usageError("--interval must be 100ms or more")
			}
			client := a.client()
			if _, err := client.Status(cmd.Context()); err != nil {
				return err // before the screen is cleared
			}
			_, err := tea.NewProgram(top.New(top.Options{
				Ask: func() (*control.Status, error) { return client.Status(cmd.Context()) }, Interval: interval, Color: a.color(),
			}), tea.WithContext(cmd.Context()), tea.WithInput(a.stdin), tea.WithOutput(a.stdout)).Run()
			if cmd.Context().Err() != nil {
				return nil // interrupted, as top is ended
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", 2*time.Second, "time between two looks")
	return cmd
}
