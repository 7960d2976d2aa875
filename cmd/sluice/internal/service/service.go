package service

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// A Manager tells the service manager about one runner. Its methods may be
// called from any number of goroutines, and never wait.
type Manager struct {
	log *slog.Logger

	mu     sync.Mutex
	status string // told last
}

// New returns a Manager that logs to log what it could not tell.
func New(log *slog.Logger) *Manager { return &Manager{log: log} }

// Ready tells that all that is configured runs: after the start, and after each
// Reloading.
func (m *Manager) Ready(status string) {
	m.tell(daemon.SdNotifyReady, m.take(status))
}

// Reloading tells that another configuration is being loaded. Ready must follow,
// whatever came of it: until then `systemctl reload` waits. The time lets systemd
// tell the end of this reload from that of the one before
// (Type=notify-reload).
func (m *Manager) Reloading() {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		m.log.Warn("service manager not told", "error", err) // no kernel lacks this clock
	}
	m.tell(daemon.SdNotifyReloading, fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/int64(time.Microsecond)), m.take("loads its configuration"))
}

// Stopping tells that the end has begun.
func (m *Manager) Stopping() { m.tell(daemon.SdNotifyStopping, m.take("drains")) }

// Status tells in a line, for people, what the runner does, unless that was told
// last.
func (m *Manager) Status(line string) {
	m.mu.Lock()
	same := line == m.status
	m.mu.Unlock()
	if !same {
		m.tell(m.take(line))
	}
}

// take remembers a line as the last that was told and returns it as the protocol
// has it.
func (m *Manager) take(line string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status = line
	return "STATUS=" + strings.ReplaceAll(line, "\n", "; ")
}

func (m *Manager) tell(words ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(words, "\n")); err != nil {
		m.log.Warn("service manager not told", "words", words, "error", err)
	}
}

// Watch feeds the unit's watchdog (WatchdogSec=), if it has one, until ctx ends: as
// long as stuck returns nothing. What stuck returns is logged when it changes; if
// it goes on for as long as the unit says, systemd kills the service and
// starts it again.
func (m *Manager) Watch(ctx context.Context, stuck func() []string) {
	limit, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		m.log.Warn("no watchdog", "error", err)
	}
	if limit <= 0 {
		return
	}
	ticker := time.NewTicker(limit / 3)
	defer ticker.Stop()
	before := ""
	for {
		why := strings.Join(stuck(), "; ")
		switch {
		case why == "":
			m.tell(daemon.SdNotifyWatchdog)
		case why != before && ctx.Err() == nil:
			m.log.Error("the watchdog is not fed", "reason", why, "limit", limit)
			m.Status("stuck: " + why)
		}
		before = why
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
