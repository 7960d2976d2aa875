package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/cmd/sluice/internal/lockfile"
	"github.com/sluice-project/sluice/cmd/sluice/internal/logging"
	"github.com/sluice-project/sluice/cmd/sluice/internal/service"
	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/runner"
)

const runName = "run"

func (a *app) run() *cobra.Command {
	var c configuration
	cmd := &cobra.Command{
		Use:   runName + " -f FILE|DIR",
		Short: "Run pipelines in the foreground",
		Long: `Run pipelines in the foreground until they are told to end.

Signals: TERM and INT drain the pipelines and end the runner, a second one ends it at once; HUP reads the
configuration again and goes over to it, as sluice reload does; USR1 opens log files again, those of stages included.
Started by systemd (Type=notify) it reports when it is ready.`,
		Example: `  sluice run -f /etc/sluice`,
		Args:    takes(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			return a.runPipelines(cmd.Context(), c)
		},
	}
	c.addFlags(cmd)
	return cmd
}

// runPipelines loads a configuration and runs it.
func (a *app) runPipelines(ctx context.Context, c configuration) error {
	conf, err := a.loadToRun(ctx, c)
	if err != nil {
		return err
	}
	return a.runLoaded(ctx, conf, manner{stderr: a.stderr, lock: lockRunner, load: c.loadAgain})
}

// A manner is what the two commands that run pipelines do differently.
type manner struct {
	stderr io.Writer // for the log, if it goes there
	lock   func(path string) (release func(), err error)
	notes  []note // to be logged at the start
	ready  func() // called once all stages run; nil: nothing is to be done

	// load reads the configuration again, for a reload; nil: there is none.
	load func(context.Context) (*pipeline.Configuration, error)
}

// A note is something to know about a configuration that was converted.
type note struct {
	level slog.Level
	text  string
}

func lockRunner(path string) (release func(), err error) {
	lock, err := lockfile.Acquire(path)
	if err != nil {
		return nil, err
	}
	return lock.Release, nil
}

// runLoaded locks, listens and runs, and undoes that in reverse.
func (a *app) runLoaded(ctx context.Context, conf *pipeline.Configuration, m manner) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	signals := watchSignals(stop) // before there is anything that a signal could leave behind
	defer signals.end()
	if conf.Runner.LockFile != "" {
		release, err := signals.lock(func() (func(), error) { return m.lock(conf.Runner.LockFile) })
		if err != nil {
			return err
		}
		defer release()
	}
	log, err := logging.Open(conf.Runner.Log, m.stderr)
	if err != nil {
		return err
	}
	defer log.Close()
	socket := conf.Runner.Control
	listener, err := control.Listen(control.Socket{Path: socket.Path, Group: socket.Group, Backlog: socket.Backlog})
	if err != nil {
		return err
	}
	defer listener.Close()
	watched, err := observe(conf.Runner.Metrics, log)
	if err != nil {
		return err
	}
	defer watched.close()
	manager := service.New(log.Logger)
	r, err := runner.New(runner.Options{
		Config: conf, Plugins: pluginsOf(conf.Runner), Version: thisBuild().Version, Log: log.Logger, Level: &log.Level, Reopen: log.Reopen,
		RoleFile: socket.Path + ".role", Load: m.load, Reloading: tellReload(manager), Replayed: watched.replayed(),
		Reconfigure: func(next pipeline.Runner) (func(), error) { return log.Reconfigure(next.Log) },
	})
	if err != nil {
		return err
	}
	log.Info("runner starts", "node", conf.Runner.Name, "version", thisBuild().Version, "pid", os.Getpid(), "socket", socket.Path)
	for _, note := range m.notes {
		log.Log(ctx, note.level, note.text)
	}
	signals.runs(r, listener, log)
	tells, err := newTeller(r, manager, conf.Runner.TrackFile, log)
	if err != nil {
		return err
	}
	err = serveAndRun(ctx, stop, r, served{listener, watched, tells}, log, m.ready)
	if err != nil {
		log.Error("runner ended", "error", err)
	}
	return err
}

// loadToRun loads a configuration and shows what is wrong with it.
func (a *app) loadToRun(ctx context.Context, c configuration) (*pipeline.Configuration, error) {
	log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	conf, files, diags := c.load(ctx, log)
	if err := pipeline.WriteText(a.stderr, files, diags); err != nil {
		return nil, err
	}
	if conf == nil {
		return nil, invalid(pipeline.Judge(files, diags))
	}
	return conf, nil
}

// answerGrace is how long the last requests have to end after the pipelines.
const answerGrace = 2 * time.Second

// served is what a runner is reached by, and who is told of it.
type served struct {
	control net.Listener
	metrics *observer
	tells   *teller
}

// serveAndRun runs until ctx ends, which stop does, or the runner does.
func serveAndRun(ctx context.Context, stop context.CancelCauseFunc, r *runner.Runner, to served, log *logging.Log, ready func()) error {
	server, tells := control.NewServer(to.metrics.commands(r), log.Logger), to.tells
	go func() {
		if err := server.Serve(to.control); err != nil {
			stop(err)
		}
	}()
	go to.metrics.serve(r)
	telling, cease := context.WithCancel(ctx)
	go tells.keep(telling)
	err := r.Run(ctx, func() {
		tells.ready(ctx)
		if ready != nil {
			ready()
		}
	})
	cease()
	<-tells.ended
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = errors.Join(cause, err)
	}
	grace, cancel := context.WithTimeout(context.Background(), answerGrace)
	defer cancel()
	if err := server.Shutdown(grace); err != nil {
		log.Warn("control requests cut off", "error", err)
	}
	return err
}

// tellReload keeps the service manager waiting while a reload runs.
func tellReload(manager *service.Manager) func() (ended func()) {
	return func() func() {
		manager.Reloading()
		return func() { manager.Ready("the configuration was loaded") }
	}
}
