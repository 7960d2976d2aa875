package logging

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

var facilities = map[string]syslog.Priority{
	"kern": syslog.LOG_KERN, "user": syslog.LOG_USER, "mail": syslog.LOG_MAIL, "daemon": syslog.LOG_DAEMON,
	"auth": syslog.LOG_AUTH, "syslog": syslog.LOG_SYSLOG, "lpr": syslog.LOG_LPR, "news": syslog.LOG_NEWS,
	"uucp": syslog.LOG_UUCP, "cron": syslog.LOG_CRON, "authpriv": syslog.LOG_AUTHPRIV, "ftp": syslog.LOG_FTP,
	"local0": syslog.LOG_LOCAL0, "local1": syslog.LOG_LOCAL1, "local2": syslog.LOG_LOCAL2, "local3": syslog.LOG_LOCAL3,
	"local4": syslog.LOG_LOCAL4, "local5": syslog.LOG_LOCAL5, "local6": syslog.LOG_LOCAL6, "local7": syslog.LOG_LOCAL7,
}

// A severities is the part of a syslog connection that a handler needs.
type severities interface {
	Debug(string) error
	Info(string) error
	Warning(string) error
	Err(string) error
}

// newSyslog connects to the local syslog daemon.
func newSyslog(facility, format string, level slog.Leveler) (slog.Handler, io.Closer, error) {
	f, ok := facilities[strings.ToLower(facility)]
	if !ok {
		return nil, nil, fmt.Errorf("no facility %q; there are %s", facility,
			strings.Join(slices.Sorted(maps.Keys(facilities)), ", "))
	}
	w, err := syslog.New(f|syslog.LOG_INFO, "sluice")
	if err != nil {
		return nil, nil, err
	}
	return newSyslogHandler(w, format, level), w, nil
}

// A syslogHandler has another handler format a line, without the time and the
// level, which syslog has itself, and sends it with the level's severity.
type syslogHandler struct {
	*syslogLine
	format slog.Handler // writes to line.text
}

// A syslogLine is what the handlers that WithAttrs and WithGroup made share.
type syslogLine struct {
	mu   sync.Mutex
	text bytes.Buffer
	to   severities
}

func newSyslogHandler(to severities, format string, level slog.Leveler) slog.Handler {
	line := &syslogLine{to: to}
	o := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if _, ok := a.Value.Any().(slog.Level); ok && a.Key == slog.LevelKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return a
	}}
	if format == "json" {
		return &syslogHandler{line, slog.NewJSONHandler(&line.text, o)}
	}
	return &syslogHandler{line, slog.NewTextHandler(&line.text, o)}
}

func (h *syslogHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return h.format.Enabled(ctx, l)
}

func (h *syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &syslogHandler{h.syslogLine, h.format.WithAttrs(attrs)}
}

func (h *syslogHandler) WithGroup(name string) slog.Handler {
	return &syslogHandler{h.syslogLine, h.format.WithGroup(name)}
}

func (h *syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.Reset()
	r.Time = time.Time{} // is not written
	if err := h.format.Handle(ctx, r); err != nil {
		return err
	}
	text := strings.TrimSuffix(h.text.String(), "\n")
	switch {
	case r.Level >= slog.LevelError:
		return h.to.Err(text)
	case r.Level >= slog.LevelWarn:
		return h.to.Warning(text)
	case r.Level >= slog.LevelInfo:
		return h.to.Info(text)
	}
	return h.to.Debug(text)
}
