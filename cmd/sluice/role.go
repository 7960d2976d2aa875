package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/control"
)

var roles = []string{"primary", "backup", "fault"}

func (a *app) role() *cobra.Command {
	return &cobra.Command{
		Use:   "role [primary|backup|fault]",
		Short: "Take over, hand back, or stand aside",
		Long: `Take a role, and wait until it is taken. keepalived's notify scripts call it.

  primary  take over: call off a purge, put the peers' flows into the kernel, empty their cache, read the kernel's
           table into this node's own cache, and send peers all of it
  backup   hand back: schedule the purge, and ask the peers for all their flows
  fault    stand aside: schedule the purge

Without a role it prints the one that was taken last, which is kept over a restart of the runner, but not over a boot.`,
		Example: `  notify_master "/usr/sbin/sluice role primary"
  notify_backup "/usr/sbin/sluice role backup"
  notify_fault  "/usr/sbin/sluice role fault"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if err := takes(0, 1, "a role: "+strings.Join(roles, ", "))(cmd, args); err != nil || len(args) == 0 {
				return err
			}
			if !slices.Contains(roles, args[0]) {
				return usageError(fmt.Sprintf("there is no role %q: name primary, backup or fault", args[0]))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.showRole(cmd.Context())
			}
			return a.act(cmd.Context(), control.Request{Command: "role", Targets: args})
		},
		ValidArgs: roles,
	}
}

// showRole prints the role that was taken last.
func (a *app) showRole(ctx context.Context) error {
	status, err := a.client().Status(ctx)
	if err != nil {
		return err
	}
	if a.json() {
		return a.printJSON(map[string]string{"role": status.Role})
	}
	role := status.Role
	if role == "" {
		role = "none was taken"
	}
	_, err = fmt.Fprintln(a.stdout, role)
	return err
}
