package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/bundled"
)

const pluginExecName = "plugin-exec" // core/runner knows it

// pluginExec is what the runner executes for a stage of a bundled plugin. The
// second argument is the stage's address, for ps(1) to show.
func (a *app) pluginExec() *cobra.Command {
	return &cobra.Command{
		Use:    pluginExecName + " KIND-TYPE [ADDRESS]",
		Short:  "Become a stage (for the runner)",
		Hidden: true,
		Args:   takes(1, 2, "a bundled plugin"),
		RunE: func(_ *cobra.Command, args []string) error {
			i := slices.Index(bundledNames(), args[0])
			if i < 0 {
				return fmt.Errorf("there is no bundled plugin %q; there are %s", args[0], strings.Join(bundledNames(), ", "))
			}
			return plugin.Serve(bundled.Definitions[i])
		},
	}
}
