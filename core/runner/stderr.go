package runner

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/time/rate"
)

// Bounds on what a plugin may write to standard error.
const (
	maxLogLine   = 8 << 10 // bytes; the rest of a longer line is dropped
	logRate      = 200     // lines a second, after
	logBurst     = 2000    // lines at once
	tailLines    = 5       // kept for error messages
	dropInterval = 5 * time.Second
)

// A stderrLog carries a plugin's standard error into the runner's log. What it
// reads is hostile until shown otherwise: lines are bounded in length and rate,
// and anything that is no log record of ours is logged as text.
type stderrLog struct {
	log     *slog.Logger
	limiter *rate.Limiter

	mu       sync.Mutex
	last     []string
	panicked string // the line that says why a program in Go crashed: many follow it
	dropped  int
	lost     uint64 // lines dropped in all
	told     time.Time
}

func newStderrLog(log *slog.Logger) *stderrLog {
	return &stderrLog{log: log, limiter: rate.NewLimiter(logRate, logBurst)}
}

func (l *stderrLog) read(r io.Reader) {
	lines := bufio.NewReaderSize(r, maxLogLine)
	for {
		line, err := lines.ReadSlice('\n')
		if len(line) > 0 {
			l.line(strings.TrimRight(string(line), "\n"))
		}
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = lines.ReadSlice('\n')
		}
		if err != nil {
			return
		}
	}
}

func (l *stderrLog) line(line string) {
	l.mu.Lock()
	l.last = append(l.last, line)
	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
		l.panicked = line
	}
	if len(l.last) > tailLines {
		l.last = l.last[1:]
	}
	allowed := l.limiter.Allow()
	if !allowed {
		l.dropped++
		l.lost++
	}
	dropped := 0
	if l.dropped > 0 && time.Since(l.told) > dropInterval {
		dropped, l.dropped, l.told = l.dropped, 0, time.Now()
	}
	l.mu.Unlock()
	if dropped > 0 {
		l.log.Warn("log lines of a stage dropped: it writes too many", "lines", dropped)
	}
	if allowed {
		l.record(line)
	}
}

// hclogKeys are the names of hclog, go-plugin's own log, for those of slog.
var hclogKeys = map[string]string{"@message": slog.MessageKey, "@level": slog.LevelKey, "@timestamp": slog.TimeKey}

// record logs a line as the record that it is, or as text.
func (l *stderrLog) record(line string) {
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		l.log.Warn("stage wrote: " + printable(line))
		return
	}
	for theirs, ours := range hclogKeys { // of a plugin that leaves its log to go-plugin
		if value, ok := fields[theirs]; ok {
			fields[ours] = value
			delete(fields, theirs)
		}
	}
	message, isText := fields[slog.MessageKey].(string)
	var level slog.Level
	name, _ := fields[slog.LevelKey].(string)
	if err := level.UnmarshalText([]byte(name)); err != nil || !isText {
		l.log.Warn("stage wrote: " + printable(line))
		return
	}
	var attrs []slog.Attr
	for key, value := range fields {
		switch key {
		case slog.MessageKey, slog.LevelKey, slog.TimeKey, "stage":
		default:
			attrs = append(attrs, slog.Any(printable(key), value))
		}
	}
	l.log.LogAttrs(context.Background(), level, printable(message), attrs...)
}

// printable replaces control characters, so that a plugin can't write to the
// administrator's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' { // those from U+0080 on, too: terminals obey them as they do ESC [
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// droppedLines returns how many lines were dropped.
func (l *stderrLog) droppedLines() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lost
}

// tail returns the last lines, on one; before them why a program in Go crashed, if it
// did.
func (l *stderrLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.last
	if l.panicked != "" && !slices.Contains(lines, l.panicked) {
		lines = append([]string{l.panicked, "…"}, lines...)
	}
	return printable(strings.Join(lines, " | "))
}
