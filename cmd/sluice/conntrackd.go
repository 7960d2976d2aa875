package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/conntrackdcli"
	"github.com/sluice-project/sluice/internal/conntrackdconf"
)

const conntrackdName = "conntrackd"

func (a *app) conntrackd() *cobra.Command {
	return &cobra.Command{
		Use:   conntrackdName + " [OPTION]...",
		Short: "Be conntrackd: its command line, its configuration, its output",
		Long: `Take conntrackd's command line, read its conntrackd.conf, listen at its UNIX Path and answer as it does, for scripts
that were written for it. A link named conntrackd to this program does the same.

Without a command it runs in the foreground, with -d in the background. What runs is a runner like any other: ` + "`sluice\nstatus --socket PATH`" + ` and the other commands work on it. docs/migration.md says how to put it in conntrackd's place.`,
		Example: `  sluice conntrackd -C /etc/conntrackd/conntrackd.conf -d
  ln -s /usr/bin/sluice /usr/local/sbin/conntrackd && conntrackd -s`,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := a.likeConntrackd(cmd.Context(), args); err != nil {
				if !errors.Is(err, errReported) {
					conntrackdcli.Report(a.stderr, conntrackdcli.Failure, oneLine(err))
				}
				return errReported
			}
			return nil
		},
	}
}

// likeConntrackd does what conntrackd does with these arguments.
func (a *app) likeConntrackd(ctx context.Context, args []string) error {
	o := conntrackdcli.Parse(args, a.stdout, a.stderr)
	switch o.Mode {
	case conntrackdcli.ShowVersion:
		return conntrackdcli.WriteVersion(a.stdout, thisBuild().Version)
	case conntrackdcli.ShowHelp:
		return conntrackdcli.WriteUsage(a.stdout)
	case conntrackdcli.Done:
		if o.Status != 0 {
			return errReported
		}
		return nil
	case conntrackdcli.Daemon:
		return a.daemonize(ctx, o)
	case conntrackdcli.Foreground:
		return a.serveLikeConntrackd(ctx, o)
	}
	file, err := a.readConntrackdConf(o.Config)
	if err != nil {
		return err
	}
	return conntrackdcli.NewClient(setupOf(file.Settings()), a.stdout).Do(ctx, o)
}

// readConntrackdConf reads a conntrackd.conf and shows what is wrong with it.
func (a *app) readConntrackdConf(path string) (*conntrackdconf.File, error) {
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("can't open config file `%s'", path)
	case err != nil:
		return nil, fmt.Errorf("can't open config file: %w", err)
	}
	file, diags := conntrackdconf.Parse(path, text)
	if diags.HasErrors() {
		return nil, a.broken(file, diags)
	}
	return file, nil
}

// broken shows the errors of a file.
func (a *app) broken(file *conntrackdconf.File, diags hcl.Diagnostics) error {
	if err := pipeline.WriteText(a.stderr, file.Files(), diags); err != nil {
		return err
	}
	return fmt.Errorf("%s has %s", file.Name, plural(pipeline.Judge(nil, diags).Errors, "error"))
}

func setupOf(s conntrackdconf.Settings) conntrackdcli.Setup {
	setup := conntrackdcli.Setup{
		Socket: s.Socket, Sync: s.Sync, Stats: s.Stats, InternalCache: s.InternalCache, ExternalCache: s.ExternalCache,
		Active: s.Active,
	}
	for _, l := range s.Links {
		kind := l.Kind
		if kind == "Multicast" {
			kind = strings.ToLower(kind)
		}
		setup.Links = append(setup.Links, conntrackdcli.Link{Kind: kind, Interface: l.Interface})
	}
	return setup
}
