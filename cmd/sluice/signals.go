package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/cmd/sluice/internal/logging"
	"github.com/sluice-project/sluice/core/runner"
)

// signals acts on the signals to a process that runs pipelines, from before it
// has locked: TERM and INT end it, during the start too, and a second one at
// once, and neither leaves the lock file or the socket behind.
type signals struct {
	stop  context.CancelCauseFunc
	heard chan os.Signal

	mu       sync.Mutex
	release  func() // of the lock; nil: it is not held
	runner   *runner.Runner
	listener net.Listener
	log      *logging.Log
}

// watchSignals acts on signals until end is called.
func watchSignals(stop context.CancelCauseFunc) *signals {
	s := &signals{stop: stop, heard: make(chan os.Signal, 8)}
	signal.Notify(s.heard, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1)
	go s.watch()
	return s
}

func (s *signals) end() {
	signal.Stop(s.heard)
	close(s.heard)
}

// lock runs what locks. No signal ends the process within.
func (s *signals) lock(acquire func() (release func(), err error)) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if release, err = acquire(); err != nil {
		return nil, err
	}
	s.release = sync.OnceFunc(release)
	return s.release, nil
}

// runs tells what there is besides the lock.
func (s *signals) runs(r *runner.Runner, listener net.Listener, log *logging.Log) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runner, s.listener, s.log = r, listener, log
}

func (s *signals) watch() {
	stopping := false
	for one := range s.heard {
		s.mu.Lock()
		log := slog.New(slog.DiscardHandler) // what came so early is no news
		if s.log != nil {
			log = s.log.Logger
		}
		switch one {
		case unix.SIGUSR1:
			if s.runner != nil { // a stage that hangs must not keep us from ending
				go s.runner.Reopen(context.Background())
			}
		case unix.SIGHUP:
			if s.runner != nil {
				go func(r *runner.Runner) { _ = r.Reload(context.Background()) }(s.runner) // it logs how it ended
			}
		default:
			if stopping {
				log.Warn("ends without draining", "signal", one)
				s.abandon()
			}
			stopping = true
			log.Info("drains", "signal", one)
			s.stop(nil)
		}
		s.mu.Unlock()
	}
}

// abandon ends the process at once; the kernel ends the stages.
func (s *signals) abandon() {
	if s.listener != nil {
		s.listener.Close() // removes the socket
	}
	if s.release != nil {
		s.release()
	}
	os.Exit(exitFailed)
}
