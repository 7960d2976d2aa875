package logging

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
)

// opened is where lines go: one handler, and what it holds open.
type opened struct {
	handler slog.Handler
	file    *file // nil if there is none
	close   []io.Closer

	inUse sync.RWMutex // held while a line is written
	ended bool
}

// end closes all, after the lines that are being written.
func (o *opened) end() {
	o.inUse.Lock()
	defer o.inUse.Unlock()
	if o.ended {
		return
	}
	o.ended = true
	for _, c := range o.close {
		c.Close()
	}
}

// A target is where lines go at the moment.
type target struct{ now atomic.Pointer[opened] }

func (t *target) set(next *opened) {
	if last := t.now.Swap(next); last != nil {
		last.end()
	}
}

// switched is a handler whose lines go wherever its target says. Loggers that
// were derived from it are, too.
type switched struct {
	target *target
	with   []func(slog.Handler) slog.Handler // attributes and groups, in order
	cached atomic.Pointer[derived]
}

// derived is a target's handler with the attributes and groups.
type derived struct {
	of      *opened
	handler slog.Handler
}

// handler returns the handler for now. The caller holds now's lock.
func (s *switched) handler(now *opened) slog.Handler {
	if d := s.cached.Load(); d != nil && d.of == now {
		return d.handler
	}
	h := now.handler
	for _, with := range s.with {
		h = with(h)
	}
	s.cached.Store(&derived{now, h})
	return h
}

func (s *switched) Enabled(ctx context.Context, level slog.Level) bool {
	return s.target.now.Load().handler.Enabled(ctx, level)
}

func (s *switched) Handle(ctx context.Context, r slog.Record) error {
	for {
		now := s.target.now.Load()
		now.inUse.RLock()
		if now.ended && now != s.target.now.Load() { // switched in between
			now.inUse.RUnlock()
			continue
		}
		err := s.handler(now).Handle(ctx, r)
		now.inUse.RUnlock()
		return err
	}
}

func (s *switched) WithAttrs(attrs []slog.Attr) slog.Handler {
	return s.derive(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

func (s *switched) WithGroup(name string) slog.Handler {
	return s.derive(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (s *switched) derive(with func(slog.Handler) slog.Handler) slog.Handler {
	return &switched{target: s.target, with: append(s.with[:len(s.with):len(s.with)], with)}
}
