package sourcereplay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/recording"
)

// source is the stage.
type source struct {
	config *Config
	host   plugin.Host
	first  *os.File // opened by Open, for the first round

	mu    sync.Mutex
	state state

	rounds, missing, forgotten, flows atomic.Uint64
	at                                atomic.Int64 // where it is in the recording
	ended                             atomic.Bool

	event   flow.Event
	builder flow.Builder
}

func newSource(c *Config) *source { return &source{config: c, state: newState(int(c.Limit))} }

// Open opens the file, and says what it is of.
func (s *source) Open(_ context.Context, host plugin.Host) error {
	s.host = host
	file, err := os.Open(s.config.File)
	if err != nil {
		return err
	}
	r, err := recording.NewReader(file)
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err != nil {
		file.Close()
		return fmt.Errorf("%s: %w", s.config.File, err)
	}
	host.Logger().Info("replaying a recording", "file", s.config.File, "of", r.About.String())
	s.first = file
	return nil
}

// Run plays the file, once or again and again, and then waits.
func (s *source) Run(ctx context.Context, out *plugin.Output) error {
	for ctx.Err() == nil {
		played, err := s.round(ctx, out)
		if err != nil || ctx.Err() != nil {
			return err
		}
		s.rounds.Add(1)
		if !s.config.Loop || !played {
			break
		}
	}
	s.ended.Store(true)
	s.pause(ctx, out, time.Time{})
	return nil
}

// round plays the file once and says whether there was anything in it to play. A
// damaged file is played as far as it can be read: to begin it again would not mend
// it.
func (s *source) round(ctx context.Context, out *plugin.Output) (played bool, err error) {
	file := s.first
	if s.first = nil; file == nil {
		if file, err = os.Open(s.config.File); err != nil {
			return false, err
		}
	}
	defer file.Close()
	r, err := recording.NewReader(file)
	if err != nil {
		return false, fmt.Errorf("%s: %w", s.config.File, err)
	}
	began := time.Now()
	for ctx.Err() == nil {
		b, err := r.Read()
		switch {
		case errors.Is(err, io.EOF):
			s.host.Logger().Info("the recording has ended", "file", s.config.File, "end", r.End().String())
			return played, nil
		case errors.Is(err, recording.ErrCutShort), errors.Is(err, recording.ErrMalformed):
			s.host.Logger().Warn("the recording ends early", "file", s.config.File, "error", err)
			return false, nil
		case err != nil:
			return false, fmt.Errorf("%s: %w", s.config.File, err)
		}
		if s.config.Speed > 0 {
			s.pause(ctx, out, began.Add(time.Duration(float64(b.At)/s.config.Speed)))
			if ctx.Err() != nil {
				return played, nil
			}
		}
		s.at.Store(int64(b.At))
		s.missing.Add(b.Lost)
		if b.Packet != nil {
			played = true
			if err := s.send(&b.Batch, out); err != nil {
				return false, err
			}
		}
	}
	return played, nil
}

// pause waits until a time, the zero one for ever, or ctx ends.
func (s *source) pause(ctx context.Context, out *plugin.Output, until time.Time) {
	for ctx.Err() == nil {
		out.Beat()
		wait := plugin.BeatInterval / 3
		if !until.IsZero() {
			if wait = min(wait, time.Until(until)); wait <= 0 {
				return
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// send sends a recorded batch as a live one of now, without marks.
func (s *source) send(b *flow.Batch, out *plugin.Output) error {
	h := flow.Header{Origin: b.Origin, Owner: b.Owner, Time: time.Now().UnixNano()}
	s.builder.Reset(h)
	s.mu.Lock()
	for c := b.Cursor(); c.Next(&s.event); {
		if s.event.IsMark() {
			continue
		}
		if !s.state.note(&s.event, b.Owner) {
			s.forgotten.Add(1)
		}
		s.builder.AppendRecord(c.Record()) // there was room in the batch that it is from
	}
	s.flows.Store(uint64(s.state.size))
	s.mu.Unlock()
	out.Beat()
	return out.Send(&s.builder)
}

// Statistics implements plugin.Meter.
func (s *source) Statistics() []plugin.Statistic {
	return []plugin.Statistic{
		{Name: "rounds", Help: "times that the recording was played to its end", Value: s.rounds.Load()},
		{Name: "position_ms", Help: "place in the recording, in milliseconds since its begin", Type: plugin.Gauge, Value: uint64(s.at.Load() / int64(time.Millisecond))},
		{Name: "events_missing", Help: "events that the recording says are missing from it", Value: s.missing.Load()},
		{Name: "flows", Help: "flows and expectations that are remembered for replays", Type: plugin.Gauge, Value: s.flows.Load()},
		{Name: "flows_forgotten", Help: "new flows and expectations that found no room to be remembered", Type: plugin.Loss, Value: s.forgotten.Load()},
	}
}

// Note implements plugin.Noter.
func (s *source) Note() string {
	at := time.Duration(s.at.Load()).Round(time.Second)
	if s.ended.Load() {
		return fmt.Sprintf("ended after %v", at)
	}
	return fmt.Sprintf("at %v of the recording", at)
}
