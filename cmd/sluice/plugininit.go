package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/cmd/sluice/internal/scaffold"
	"github.com/sluice-project/sluice/core/plugin"
)

func (a *app) pluginInit() *cobra.Command {
	var dir, module, sdk string
	cmd := &cobra.Command{
		Use:   "init KIND NAME",
		Short: "Begin a plugin: a Go module that builds, passes its tests and runs",
		Long: `Begin a plugin: write a Go module with a small source, filter, cache or sink that builds, passes its tests and runs in a
pipeline as it is, with a README and a workflow for continuous integration.

Its executable will be named sluice-KIND-NAME, and its block in a pipeline KIND "NAME".`,
		Example: `  sluice plugin init filter mark
  sluice plugin init sink archive --module github.com/example/sluice-sink-archive
  sluice plugin init cache disk --sdk ../sluice`,
		Args: takes(2, 2, "a kind (source, filter, cache or sink) and a name"),
		RunE: func(_ *cobra.Command, args []string) error {
			p := scaffold.Plugin{
				Kind: plugin.Kind(args[0]), Name: args[1], Module: module, Version: thisBuild().Version, Bundled: bundledNames(),
			}
			if err := p.Check(); err != nil {
				return usageError(err.Error())
			}
			if dir == "" {
				dir = p.Executable()
			}
			return a.initPlugin(dir, sdk, p)
		},
		ValidArgsFunction: cobra.FixedCompletions([]string{"source", "filter", "cache", "sink"}, cobra.ShellCompDirectiveNoFileComp),
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", "", "the `folder` to make (default sluice-KIND-NAME)")
	flags.StringVar(&module, "module", "", "the module's `path` (default sluice-KIND-NAME)")
	flags.StringVar(&sdk, "sdk", "", "build with the checkout of Sluice in this `folder` rather than with a release")
	return cmd
}

func (a *app) initPlugin(dir, sdk string, p scaffold.Plugin) (err error) {
	if sdk != "" {
		if p.SDK, err = filepath.Abs(sdk); err != nil {
			return err
		}
	}
	files, err := scaffold.Write(dir, p)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(map[string]any{"folder": dir, "executable": p.Executable(), "files": files})
	}
	fmt.Fprintf(a.stdout, "%s:\n", dir)
	for _, file := range files {
		fmt.Fprintf(a.stdout, "  %s\n", file)
	}
	tidy := ""
	if sdk == "" {
		tidy = "go mod tidy && "
	}
	_, err = fmt.Fprintf(a.stdout, "next: cd %s && %smake build test && sluice run -f pipeline.hcl\n", dir, tidy)
	return err
}
