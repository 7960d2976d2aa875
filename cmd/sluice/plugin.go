package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// plugin is the group of commands for who makes plugins, and who installs them.
// Each subcommand has a file of its own, plugin….go.
func (a *app) plugin() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plugin COMMAND",
		Short: "Make, check and trust plugins",
		Args:  takes(0, -1, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("name a command; `sluice help plugin` lists them")
			}
			return usageError(fmt.Sprintf("there is no command %q of plugin; `sluice help plugin` lists them", args[0]))
		},
	}
	for _, c := range []*cobra.Command{a.pluginInit(), a.pluginCheck(), a.pluginLock(), a.pluginList(), a.pluginVerify()} {
		c.DisableFlagsInUseLine = true
		cmd.AddCommand(c)
	}
	return cmd
}
