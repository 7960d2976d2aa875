package main

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/cmd/sluice/internal/logging"
	"github.com/sluice-project/sluice/cmd/sluice/internal/service"
	"github.com/sluice-project/sluice/cmd/sluice/internal/trackfile"
	"github.com/sluice-project/sluice/core/runner"
)

// tellInterval is how often the runner is looked at. No stage is woken for it.
const tellInterval = 500 * time.Millisecond

// A teller tells systemd and keepalived how a runner is, for as long as it runs.
type teller struct {
	runner  *runner.Runner
	service *service.Manager
	track   *trackfile.File // nil: keepalived watches none
	isReady atomic.Bool     // it was told to be: the first that systemd hears
	ended   chan struct{}   // closed when keep has returned
}

func newTeller(r *runner.Runner, manager *service.Manager, trackFile string, log *logging.Log) (*teller, error) {
	t := &teller{runner: r, service: manager, ended: make(chan struct{})}
	if trackFile != "" {
		file, err := trackfile.Open(trackFile, log.Logger)
		if err != nil {
			return nil, fmt.Errorf("track_file: %w", err)
		}
		t.track = file
	}
	return t, nil
}

// ready tells that all stages run, and feeds the watchdog from now on.
func (t *teller) ready(ctx context.Context) {
	t.service.Ready(t.line())
	t.isReady.Store(true)
	go t.service.Watch(ctx, t.runner.Supervision())
}

// keep tells what changes until ctx ends, and then that the runner ends.
func (t *teller) keep(ctx context.Context) {
	defer close(t.ended)
	ticker := time.NewTicker(tellInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		t.look()
		select {
		case <-ticker.C:
		case <-ctx.Done():
		}
	}
	t.service.Stopping()
	if t.track != nil {
		t.track.End(t.primary())
	}
}

func (t *teller) look() {
	if t.track != nil {
		t.track.Judge(time.Now(), t.runner.OutOfSync(), t.primary())
	}
	if t.isReady.Load() {
		t.service.Status(t.line())
	}
}

func (t *teller) primary() bool { return t.runner.Role() == "primary" }

// line says how the runner is, for `systemctl status`.
func (t *teller) line() string {
	role := t.runner.Role()
	if role == "" {
		role = "none given"
	}
	state := "in sync"
	if missing := t.runner.OutOfSync(); len(missing) > 0 {
		state = strings.Join(missing, "; ")
	}
	return "role " + role + "; " + state
}
