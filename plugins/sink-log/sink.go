package sinklog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// reopen is the command that opens the file again at once.
const reopen = "reopen"

const (
	pendingLimit = 4 << 20         // bytes of lines that wait for the output
	closeWait    = 5 * time.Second // for it to take them at the end
)

var errBehind = errors.New("the output does not take lines as fast as they come")

// A sink writes lines in two steps: Write makes them, and loop, a goroutine of
// its own, gives them to the output, which may hang.
type sink struct {
	host   plugin.Host
	to     output // loop's alone after Open
	format format
	wanted [flow.Unexpect + 1]bool // by kind
	event  flow.Event

	mu      sync.Mutex // guards pending
	pending []byte

	wake     chan struct{}   // holds one: there may be something pending
	commands chan chan error // reopen
	stop     chan struct{}   // closed: loop is to write what is pending, and end
	ended    chan struct{}   // closed: it has

	written, lost atomic.Uint64
	complain      rate.Sometimes
	complained    atomic.Bool // and not yet said that it's over
}

func newSink(c *Config) *sink {
	s := &sink{
		to: &file{path: c.Path, mode: os.FileMode(c.Mode)}, format: appendText,
		wake: make(chan struct{}, 1), commands: make(chan chan error), stop: make(chan struct{}), ended: make(chan struct{}),
		complain: rate.Sometimes{First: 1, Interval: time.Minute},
	}
	if c.Syslog != "" {
		s.to, s.format = &system{priority: facilities[c.Syslog] | syslog.LOG_INFO}, appendPlain
	}
	if c.Format == "json" {
		s.format = appendJSON
	}
	for _, name := range c.Events {
		s.wanted[kinds[name]] = true
	}
	return s
}

// Open opens the file. A syslog daemon may come later.
func (s *sink) Open(_ context.Context, host plugin.Host) error {
	s.host = host
	if err := s.to.reopen(); err != nil {
		if _, isFile := s.to.(*file); isFile {
			return fmt.Errorf("sink log: %w", err)
		}
		s.lose(0, err)
	}
	go s.loop()
	return nil
}

// Write makes the lines of a batch. Replayed records are no events.
func (s *sink) Write(b *flow.Batch) error {
	if b.Replay != 0 {
		return nil
	}
	now, lost := time.Now(), uint64(0)
	s.mu.Lock()
	for c := b.Cursor(); c.Next(&s.event); {
		if s.event.IsMark() || !s.wanted[s.event.Kind] {
			continue
		}
		if len(s.pending) >= pendingLimit {
			lost++
			continue
		}
		s.pending = s.format(s.pending, now, &s.event)
	}
	waiting := len(s.pending) > 0
	s.mu.Unlock()
	if lost > 0 {
		s.lose(lost, errBehind)
	}
	if waiting {
		select {
		case s.wake <- struct{}{}:
		default: // it will look anyway
		}
	}
	return nil
}

// loop gives lines to the output.
func (s *sink) loop() {
	defer close(s.ended)
	var spare []byte
	for {
		select {
		case <-s.wake:
			spare = s.flush(spare)
		case done := <-s.commands:
			done <- s.to.reopen()
		case <-s.stop:
			s.flush(spare)
			s.to.close()
			return
		}
	}
}

// flush writes what is pending, and returns its memory for use next time.
func (s *sink) flush(spare []byte) []byte {
	s.mu.Lock()
	p := s.pending
	s.pending = spare[:0]
	s.mu.Unlock()
	if len(p) == 0 {
		return p
	}
	lost, err := s.to.write(p)
	s.written.Add(uint64(lines(p) - lost))
	if err != nil {
		s.lose(uint64(lost), err)
	} else if s.complained.CompareAndSwap(true, false) {
		s.host.Logger().Info("the log is written again", "lost", s.lost.Load())
	}
	return p
}

// lose counts lines that are lost, and complains now and then.
func (s *sink) lose(n uint64, err error) {
	s.lost.Add(n)
	s.complain.Do(func() {
		s.complained.Store(true)
		s.host.Logger().Warn("the log can't be written: lines are lost", "error", err, "lost", s.lost.Load())
	})
}

// Command carries out reopen: when it answers, the old file is closed.
func (s *sink) Command(ctx context.Context, c plugin.Command, _ io.Writer) error {
	if c.Name != reopen {
		return fmt.Errorf("sink log: command %q: there is only %s", c.Name, reopen)
	}
	done := make(chan error, 1)
	select {
	case s.commands <- done:
	case <-s.ended:
		return fmt.Errorf("sink log: %s: the stage is ending", reopen)
	case <-ctx.Done():
		return fmt.Errorf("sink log: %s: the output hangs: %w", reopen, ctx.Err())
	}
	if err := <-done; err != nil {
		return fmt.Errorf("sink log: %s: %w", reopen, err)
	}
	return nil
}

// Close writes what is pending, if the output takes it.
func (s *sink) Close() error {
	close(s.stop)
	select {
	case <-s.ended:
	case <-time.After(closeWait):
		s.mu.Lock()
		s.lose(uint64(lines(s.pending)), errBehind)
		s.mu.Unlock()
	}
	return nil
}

// Statistics implements plugin.Meter.
func (s *sink) Statistics() []plugin.Statistic {
	return []plugin.Statistic{
		{Name: "lines_written", Help: "lines that the file or the syslog daemon took", Value: s.written.Load()},
		{Name: "lines_lost", Help: "lines that could not be written", Type: plugin.Loss, Value: s.lost.Load()},
	}
}
