// Package logging makes the runner's log from the log block of a
// configuration: text or JSON, to standard error, a file or syslog.
//
// The runner and its stages write to one slog.Logger; this package decides
// where lines go and nothing else. A file is opened again when Reopen is
// called, so that logrotate can move it away.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/sluice-project/sluice/core/pipeline"
)

// A Log is a logger and what it holds open.
type Log struct {
	*slog.Logger
	Level slog.LevelVar

	stderr io.Writer
	target *target
}

// Open makes the log that c describes. Lines go to the file, or to stderr if
// none is named, and to syslog as well if a facility is.
func Open(c pipeline.Log, stderr io.Writer) (*Log, error) {
	l := &Log{stderr: stderr, target: &target{}}
	commit, err := l.Reconfigure(c)
	if err != nil {
		return nil, err
	}
	commit()
	l.Logger = slog.New(&switched{target: l.target})
	return l, nil
}

// Reconfigure opens what c describes; commit has lines go there from then on,
// and closes what was open before. After an error nothing has changed.
func (l *Log) Reconfigure(c pipeline.Log) (commit func(), err error) {
	level := slog.LevelInfo
	if c.Level != "" {
		if err := level.UnmarshalText([]byte(c.Level)); err != nil {
			return nil, fmt.Errorf("log: level: %w", err)
		}
	}
	next, out := &opened{}, l.stderr
	if c.File != "" {
		f, err := openFile(c.File)
		if err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
		next.file, next.close, out = f, append(next.close, f), f
	}
	handlers := []slog.Handler{handler(c.Format, out, &l.Level)}
	if c.Syslog != "" {
		h, closer, err := newSyslog(c.Syslog, c.Format, &l.Level)
		if err != nil {
			next.end()
			return nil, fmt.Errorf("log: syslog: %w", err)
		}
		handlers, next.close = append(handlers, h), append(next.close, closer)
	}
	next.handler = slog.NewMultiHandler(handlers...)
	return func() {
		l.Level.Set(level)
		l.target.set(next)
	}, nil
}

// handler writes lines of the format "text" or "json".
func handler(format string, out io.Writer, level slog.Leveler) slog.Handler {
	o := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.NewJSONHandler(out, o)
	}
	return slog.NewTextHandler(out, o)
}

// Reopen opens the log's file by its name again, if it has one. After an error
// lines go on to the old one.
func (l *Log) Reopen() error {
	if f := l.target.now.Load().file; f != nil {
		return f.reopen()
	}
	return nil
}

// Close closes what is open.
func (l *Log) Close() { l.target.now.Load().end() }

// A file is a log file that can be opened again while others write to it.
type file struct {
	path string
	mu   sync.Mutex
	f    *os.File
}

func openFile(path string) (*file, error) {
	l := &file{path: path}
	return l, l.reopen()
}

func (l *file) reopen() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
	}
	l.f = f
	return nil
}

func (l *file) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Write(p)
}

func (l *file) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.f.Close()
}
