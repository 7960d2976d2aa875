package runner

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
)

// reopenCommand is the command of stages that write files of their own.
const reopenCommand = "reopen"

// Reopen opens the log's file again, and has the stages that write files do the
// same: a rotation has moved them away. What went wrong is logged. It waits for
// stages that hang no longer than a control call may take each.
func (r *Runner) Reopen(ctx context.Context) {
	err := r.reopen(steps{ctx, func(control.Step) {}})
	if err != nil {
		r.log.Error("files not opened again", "error", err)
		return
	}
	r.log.Info("log opened again")
}

func (r *Runner) reopen(do steps) error {
	var errs []error
	if r.options.Reopen != nil {
		errs = append(errs, do.step("reopen", "log", func() ([]control.Count, error) { return nil, r.options.Reopen() }))
	}
	for _, s := range r.graph().stages {
		// One that does not run opens its file when it does.
		if s.runs() && slices.Contains(s.conf().Traits.GetCommands(), reopenCommand) {
			errs = append(errs, do.step("reopen", s.address, func() ([]control.Count, error) {
				ctx, cancel := context.WithTimeout(do.ctx, callTimeout)
				defer cancel()
				return nil, s.command(ctx, plugin.Command{Name: reopenCommand}, io.Discard)
			}))
		}
	}
	return errors.Join(errs...)
}
