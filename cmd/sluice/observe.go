package main

import (
	"log/slog"
	"time"

	"github.com/sluice-project/sluice/cmd/sluice/internal/logging"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/runner"
	metrics "github.com/sluice-project/sluice/internal/observe"
)

// An observer is the listener for metrics, if the configuration has one: a nil
// server does nothing.
type observer struct{ server *metrics.Server }

func observe(c pipeline.Metrics, log *logging.Log) (*observer, error) {
	if c.Listen == "" {
		return &observer{}, nil
	}
	server, err := metrics.Listen(c, log.Logger)
	if err != nil {
		return nil, err
	}
	if lines := server.Lines(); lines != nil {
		log.Logger = slog.New(slog.NewMultiHandler(log.Handler(), lines.Handler(&log.Level)))
	}
	return &observer{server}, nil
}

// replayed returns runner.Options.Replayed.
func (o *observer) replayed() func(stage, reason string, elapsed time.Duration, err error) {
	if o.server == nil {
		return nil
	}
	return o.server.Replayed
}

// commands returns the backend of the administrator's socket.
func (o *observer) commands(r *runner.Runner) control.Backend {
	if o.server == nil {
		return r
	}
	return o.server.Commands(r)
}

func (o *observer) serve(r *runner.Runner) {
	if o.server != nil {
		o.server.Serve(r)
	}
}

func (o *observer) close() {
	if o.server != nil {
		o.server.Close()
	}
}
