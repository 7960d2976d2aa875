package sourcenetlink

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/testbed"
)

// A lossHost looks, in the moment of the signal of an overrun, at what the
// reader has not sent yet.
type lossHost struct {
	source *source
	once   sync.Once
	behind chan int
}

func (h *lossHost) Start() plugin.Start  { return plugin.Start{} }
func (h *lossHost) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }
func (h *lossHost) Done(plugin.Report)   {}

func (h *lossHost) Signal(s plugin.Signal, _ string) {
	if s == plugin.SignalOverrun {
		h.once.Do(func() {
			queued, _ := h.source.events.Read()
			h.behind <- queued + h.source.building.Len()
		})
	}
}

// A signalHost notes which signals were raised.
type signalHost struct {
	lossHost
	raised chan plugin.Signal
}

func (h *signalHost) Signal(s plugin.Signal, _ string) { h.raised <- s }

// "none" leaves a loss to the next poll; "0s" tells of it at once.
func TestOverrunResync(t *testing.T) {
	for delay, want := range map[Delay]plugin.Signal{{None: true}: plugin.SignalPoll, {}: plugin.SignalOverrun} {
		n := testbed.MustNamespace(t, "fw")
		c := Definition.Config().(*Config)
		c.BufferSize, c.BufferSizeMax, c.OverrunResync, c.Poll = 64<<10, 64<<10, delay, plugin.Duration(3*time.Second)
		s := newSource(c)
		h := &signalHost{raised: make(chan plugin.Signal, 1000)}
		if err := n.Do(func() error { return s.Open(t.Context(), h) }); err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		create(t, mustWriter(t, n, 0), 0, 2000) // overruns the buffer, since nobody reads yet
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx, &plugin.Output{}) }()
		if got := <-h.raised; got != want || s.stats.overruns.Load() == 0 {
			t.Errorf("%v: signal %q after %d overruns", delay, got, s.stats.overruns.Load())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
}

// New flows are ignored for a time, not for ever, and only where they would be
// this node's own.
func TestIgnoringNewFlowsEnds(t *testing.T) {
	for _, dropOwn := range []bool{true, false} {
		n := testbed.MustNamespace(t, "fw")
		s := newSource(Definition.Config().(*Config))
		h := &signalHost{raised: make(chan plugin.Signal, 1)}
		if err := n.Do(func() error { return s.Open(t.Context(), h) }); err != nil {
			t.Fatal(err)
		}
		s.start.DropOwn = dropOwn
		if err := s.ignoreNew(time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if dropOwn {
			if got := <-h.raised; got != plugin.SignalOverrun {
				t.Error(got)
			}
		}
		create(t, mustWriter(t, n, 0), 0, 1)
		if n, err := s.events.Read(); n != 1 || err != nil {
			t.Errorf("drop own %v: %d events, %v", dropOwn, n, err)
		}
		if err := s.ignoreNew(time.Hour); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if ignored, err := s.hearNew(); ignored || err != nil {
			t.Error("after the end:", ignored, err)
		}
	}
}

// A slowHost takes its time with signals.
type slowHost struct {
	lossHost
	raised int
	answer chan struct{}
}

func (h *slowHost) Signal(plugin.Signal, string) { h.raised++; <-h.answer }

// Polls end with Run, also if one is under way.
func TestPollsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Definition.Config().(*Config)
		c.Poll = plugin.Duration(time.Second)
		s, h := newSource(c), &slowHost{answer: make(chan struct{})}
		s.host = h
		stop := s.startTimers()
		time.Sleep(time.Second)
		synctest.Wait()
		stop()
		close(h.answer)
		time.Sleep(time.Minute)
		if h.raised != 1 {
			t.Errorf("%d signals, want 1", h.raised)
		}
	})
}

// Events that were queued when others were lost are older than those. Sent
// behind the begin of the replay that is to repair the loss, they would beat it.
func TestLossIsToldBehindWhatCameBeforeIt(t *testing.T) {
	n := testbed.MustNamespace(t, "fw")
	c := Definition.Config().(*Config)
	c.BufferSize, c.BufferSizeMax = 64<<10, 64<<10
	s := newSource(c)
	h := &lossHost{source: s, behind: make(chan int, 1)}
	if err := n.Do(func() error { return s.Open(t.Context(), h) }); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	create(t, mustWriter(t, n, 0), 0, 2000) // overruns the buffer, since nobody reads yet
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, &plugin.Output{}) }()
	if behind := <-h.behind; behind != 0 {
		t.Errorf("the loss was told before %d events that came before it were sent", behind)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
