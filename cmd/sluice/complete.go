package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/plugin"
)

// completionTimeout is how long a shell waits for the runner when the tab key
// is pressed.
const completionTimeout = 2 * time.Second

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeTargets completes the names of the running pipelines that have
// stages of a kind, of those stages, and words of the command's own. Without a
// runner to ask it is silent: an error would garble the prompt.
func (a *app) completeTargets(kind plugin.Kind, most int, words ...string) completion {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := append(a.targets(cmd.Context(), kind), words...)
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) targets(ctx context.Context, kind plugin.Kind) (names []string) {
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	status, err := a.client().Status(ctx)
	if err != nil {
		return nil
	}
	for _, p := range status.Pipelines {
		named := false
		for _, s := range p.Stages {
			if s.Kind != string(kind) {
				continue
			}
			if !named {
				names, named = append(names, p.Name), true
			}
			names = append(names, s.Address)
		}
	}
	return names
}

// completePipelineFiles completes the names of files and directories.
func completePipelineFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"hcl"}, cobra.ShellCompDirectiveFilterFileExt
}
