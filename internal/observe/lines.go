package observe

import (
	"log/slog"
	"slices"
	"strings"
	"sync"
)

const (
	keepLines = 200 // of the log, for the page
	maxLine   = 500 // bytes of each
)

// Lines are the last lines of a log. Its zero value is empty.
type Lines struct {
	mu   sync.Mutex
	last []string // oldest first
}

// Handler returns a handler that keeps what it is given.
func (l *Lines) Handler(level slog.Leveler) slog.Handler {
	return slog.NewTextHandler(l, &slog.HandlerOptions{Level: level})
}

// Write implements io.Writer for one line.
func (l *Lines) Write(p []byte) (int, error) {
	line := strings.ToValidUTF8(strings.TrimSuffix(string(p[:min(len(p), maxLine)]), "\n"), "…")
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.last) >= keepLines {
		l.last = slices.Delete(l.last, 0, len(l.last)-keepLines+1)
	}
	l.last = append(l.last, line)
	return len(p), nil
}

// newest returns the lines, the newest first.
func (l *Lines) newest() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := slices.Clone(l.last)
	slices.Reverse(lines)
	return lines
}
