package main

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/cmd/sluice/internal/console"
	"github.com/sluice-project/sluice/core/control"
)

func (a *app) plan() *cobra.Command {
	var c configuration
	cmd := &cobra.Command{
		Use:   "plan [-f FILE|DIR]",
		Short: "Show what a reload would do",
		Long: `Compare pipelines with those that run, and show what a reload would do: which stages it would keep, give other
neighbours, replace, add and remove, for which reason, what that costs, and which replays follow. Nothing is changed.

Without -f the runner reads the files that it was started with, as a reload would. The command fails if a reload would
refuse them.`,
		Example: `  sluice plan
  sluice plan -f /etc/sluice.new`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(c.paths) == 0 && len(c.variables)+len(c.variableFiles) > 0 {
				return usageError("variables are of files: name these with -f")
			}
			return a.showPlan(cmd.Context(), c)
		},
	}
	c.addFlags(cmd)
	return cmd
}

func (a *app) showPlan(ctx context.Context, c configuration) error {
	plan, err := a.askPlan(ctx, c)
	if err != nil {
		return err
	}
	if a.json() {
		err = a.printJSON(plan)
	} else {
		err = console.Plan(a.stdout, plan, a.color())
	}
	if err == nil && len(plan.Refused()) > 0 {
		err = errors.New("a reload would refuse this")
	}
	return err
}

// askPlan has the runner compare what the flags name, or else its own files.
func (a *app) askPlan(ctx context.Context, c configuration) (*control.Plan, error) {
	if len(c.paths) == 0 {
		return a.client().Plan(ctx, nil)
	}
	conf, err := a.loadToRun(ctx, c)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	return a.client().Plan(ctx, text)
}
