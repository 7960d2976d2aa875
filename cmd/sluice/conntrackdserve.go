package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"os/exec"
	"os/signal"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/cmd/sluice/internal/lockfile"
	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/conntrackdcli"
	"github.com/sluice-project/sluice/internal/conntrackdconf"
)

// backgroundVariable tells a process that daemonize started what it is; its
// value is the descriptor on which the one that waits is told that all runs.
const backgroundVariable = "SLUICE_CONNTRACKD_READY"

// serveLikeConntrackd runs what a conntrackd.conf says, in the foreground.
func (a *app) serveLikeConntrackd(ctx context.Context, o conntrackdcli.Options) error {
	m := manner{stderr: a.stderr, lock: lockLikeConntrackd}
	conf, err := a.loadConntrackdConf(ctx, o.Config, &m)
	if err != nil {
		return err
	}
	nameProcess()
	return a.runLoaded(ctx, conf, m)
}

// loadConntrackdConf makes pipelines of a conntrackd.conf. What they can't
// express is to be logged at the start.
func (a *app) loadConntrackdConf(ctx context.Context, path string, m *manner) (*pipeline.Configuration, error) {
	file, err := a.readConntrackdConf(path)
	if err != nil {
		return nil, err
	}
	result := conntrackdconf.Convert(file)
	if result.Notes.HasErrors() {
		return nil, a.broken(file, result.Notes)
	}
	for _, d := range result.Notes {
		where := path
		if d.Subject != nil {
			where = fmt.Sprintf("%s:%d", path, d.Subject.Start.Line)
		}
		level := slog.LevelWarn
		if strings.HasPrefix(d.Summary, "Not needed") {
			level = slog.LevelInfo
		}
		m.notes = append(m.notes, note{level, fmt.Sprintf("%s: %s: %s", where, d.Summary, d.Detail)})
	}
	conf, err := a.loadToRun(ctx, configuration{texts: map[string][]byte{path + " as HCL": result.HCL}})
	if err != nil {
		return nil, err
	}
	conf.Runner.Control.Path = file.Settings().Socket // where its commands look for it, whether the file says so or not
	if conf.Runner.Log.Syslog != "" && !hasSyslog() {
		m.notes = append(m.notes, note{slog.LevelWarn, path + ": no syslog daemon answers: nothing is logged to it until the next start"})
		conf.Runner.Log.Syslog = ""
	}
	return conf, nil
}

// hasSyslog says whether there is a syslog daemon. conntrackd, whose packaged
// configuration logs to one, starts without.
func hasSyslog() bool {
	w, err := syslog.New(syslog.LOG_DAEMON, conntrackdName)
	if err != nil {
		return false
	}
	w.Close()
	return true
}

// lockLikeConntrackd locks as conntrackd does, by the file's being there: it has
// no other way to see one that runs, and neither has it of us. What a drop-in
// that crashed has left is no lock to us.
func lockLikeConntrackd(path string) (release func(), err error) {
	lock, err := lockfile.AcquireBesideConntrackd(path)
	switch {
	case errors.Is(err, lockfile.ErrLocked):
		return nil, fmt.Errorf("lockfile `%s' exists, perhaps conntrackd already running?", path)
	case err != nil:
		return nil, err
	}
	return lock.Release, nil
}

// nameProcess makes this process's name what pidof and killall look for, however
// it was started.
func nameProcess() {
	_ = os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid()), []byte(conntrackdName), 0) // it works without
}

// daemonize does what -d says. A Go program can't fork, so it starts itself
// once more, in a session of its own, and waits until all stages run: a failure
// is told by the exit status and on standard error, where conntrackd would only
// log it.
func (a *app) daemonize(ctx context.Context, o conntrackdcli.Options) error {
	if fd := os.Getenv(backgroundVariable); fd != "" {
		return a.serveInBackground(ctx, o)
	}
	ready, child, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	var failure bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = os.Args
	cmd.Env = append(os.Environ(), backgroundVariable+"=3")
	cmd.ExtraFiles = []*os.File{child}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("background process: %w", err)
	}
	child.Close()
	defer passOn(cmd.Process)()
	// The other end of standard error is closed with the one of ready, or with
	// the process.
	_, _ = io.Copy(io.MultiWriter(a.stderr, &failure), stderr)
	if n, _ := ready.Read(make([]byte, 1)); n == 1 {
		return nil
	}
	err = cmd.Wait()
	if strings.Contains(failure.String(), "["+string(conntrackdcli.Failure)+"]") {
		return errReported
	}
	if err == nil {
		err = errors.New("it was told to end")
	}
	return fmt.Errorf("the daemon has not started: %w", err)
}

// passOn has the background process end when this one, which waits for it, is
// told to, until the function that it returns is called.
func passOn(p *os.Process) (end func()) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, unix.SIGTERM, unix.SIGINT)
	go func() {
		for range heard {
			_ = p.Signal(unix.SIGTERM)
		}
	}()
	return func() {
		signal.Stop(heard)
		close(heard)
	}
}

// serveInBackground is daemonize's other half.
func (a *app) serveInBackground(ctx context.Context, o conntrackdcli.Options) error {
	ready := os.NewFile(3, "ready")
	unix.CloseOnExec(3)
	os.Unsetenv(backgroundVariable)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	m := manner{stderr: io.Discard, lock: lockLikeConntrackd}
	m.ready = func() {
		// Not before: what keeps it from starting is to be seen.
		_ = unix.Dup2(int(null.Fd()), 2)
		_, _ = ready.Write([]byte{1})
		ready.Close()
	}
	conf, err := a.loadConntrackdConf(ctx, o.Config, &m)
	if err != nil {
		return err
	}
	for _, note := range m.notes {
		if note.level >= slog.LevelWarn {
			conntrackdcli.Report(a.stderr, conntrackdcli.Warning, note.text)
		}
	}
	nameProcess()
	if err := os.Chdir("/"); err != nil {
		return err
	}
	return a.runLoaded(ctx, conf, m)
}
