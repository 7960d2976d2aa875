package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/picture"
	"github.com/sluice-project/sluice/internal/rates"
)

func (a *app) graph() *cobra.Command {
	var (
		c        configuration
		format   string
		live     bool
		interval time.Duration
	)
	cmd := &cobra.Command{
		Use:   "graph -f FILE|DIR | --live [--format svg|dot]",
		Short: "Draw pipelines as SVG or DOT",
		Long: `Draw pipelines as SVG, for a browser or a page, or as DOT for Graphviz.

With -f what the files say is drawn, without privilege. With --live it is what runs: stages with their state and CPU,
what was lost, and on the edges the events a second, measured for as long as --interval says.`,
		Example: `  sluice graph -f /etc/sluice > pipelines.svg
  sluice graph -f /etc/sluice --format dot | dot -Tpng > pipelines.png
  sluice graph --live --interval 10s > now.svg`,
		Args: takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if live == (len(c.paths) > 0) {
				return usageError("name files with -f, or ask the runner with --live")
			}
			write, known := map[string]func(io.Writer, *picture.Graph) error{"svg": picture.WriteSVG, "dot": picture.WriteDOT}[format]
			if !known {
				return usageError(fmt.Sprintf("there is no format %q: write --format svg or --format dot", format))
			}
			if interval <= 0 {
				return usageError("--interval must be more than 0")
			}
			g, err := a.graphOf(cmd.Context(), c, live, interval)
			if err != nil {
				return err
			}
			if a.json() {
				return a.printJSON(g)
			}
			return write(a.stdout, g)
		},
	}
	c.addFlags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&format, "format", "svg", "svg or dot")
	flags.BoolVar(&live, "live", false, "what runs, with rates, instead of files")
	flags.DurationVar(&interval, "interval", 2*time.Second, "how long to measure the rates")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"svg", "dot"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) graphOf(ctx context.Context, c configuration, live bool, interval time.Duration) (*picture.Graph, error) {
	if live {
		return a.liveGraph(ctx, interval)
	}
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	conf, files, diags := c.load(ctx, log)
	if err := pipeline.WriteText(a.stderr, files, diags); err != nil {
		return nil, err
	}
	if conf == nil {
		return nil, invalid(pipeline.Judge(files, diags))
	}
	return picture.Configured(conf), nil
}

// liveGraph asks the runner twice.
func (a *app) liveGraph(ctx context.Context, interval time.Duration) (*picture.Graph, error) {
	client, meter := a.client(), rates.Meter{}
	status, err := client.Status(ctx)
	if err != nil {
		return nil, err
	}
	meter.Next(status, time.Now())
	select {
	case <-time.After(interval):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if status, err = client.Status(ctx); err != nil {
		return nil, err
	}
	return picture.Running(status, meter.Next(status, time.Now())), nil
}
