package sourcenetlink

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/ctnl"
)

// source is the stage. Run's goroutine is the reader: it alone touches what
// stands below "the reader's".
type source struct {
	config Config
	host   plugin.Host
	start  plugin.Start
	events *ctnl.Events // nil in one-shot mode
	queue  *queue
	zones  ctnl.MasterZones // of masters, for their expectations
	stats  statistics

	mu       sync.Mutex
	barriers []plugin.Replay // to send behind what is queued in the kernel
	ignoring *time.Timer     // while NEW events are ignored: ends that at the latest
	closed   bool            // events

	// The reader's.
	building flow.Builder
	origin   flow.Origin // of building
	event    flow.Event
	tail     []byte
	out      *plugin.Output
	resync   *time.Timer // signals the loss, if it is to wait
	lost     string      // how events were lost that nobody was told of yet
	masters  masters     // of expectations, to be read again
}

func newSource(c *Config) *source { return &source{config: *c} }

// Open subscribes, before anything is dumped: see ctnl.OpenEvents.
func (s *source) Open(_ context.Context, host plugin.Host) error {
	s.host, s.start = host, host.Start()
	s.queue = newQueue(int(s.config.QueueLimit),
		func(events int) { s.stats.queueDropped.Add(uint64(events)) },
		func() { host.Signal(plugin.SignalEdgeFull, "events were dropped while the edge was full") })
	if s.start.OneShot {
		return nil
	}
	c := ctnl.EventsConfig{
		Buffer: int(s.config.BufferSize), Unreliable: !s.config.Reliable, Expectations: !s.config.Expectations.None(),
	}
	if s.start.DropOwn {
		c.DropPorts = s.start.OwnPortIDs
	}
	if s.config.KernelFilter {
		c.Screens = s.start.Screens
	}
	events, err := ctnl.OpenEvents(c)
	if err != nil {
		return err
	}
	s.events = events
	s.tellFilter()
	s.checkBuffer()
	s.enableEvents()
	return nil
}

// tellFilter logs what the kernel filters, where that is less than one may think.
func (s *source) tellFilter() {
	if !s.config.KernelFilter {
		return
	}
	log := s.host.Logger()
	switch unjudged := s.events.Unjudged(); {
	case len(s.start.Screens) == 0:
		log.Warn("kernel_filter has nothing to do: there is no filter by protocol or address right below")
	case unjudged != "":
		log.Warn("the kernel does not take all of the filters: events are judged below by what is left", "left", unjudged)
	}
}

func (s *source) checkBuffer() {
	size, err := s.events.Buffer()
	s.stats.buffer.Store(uint64(size))
	if err == nil && size < int(s.config.BufferSize) {
		s.host.Logger().Warn("receive buffer smaller than asked for: without CAP_NET_ADMIN net.core.rmem_max is the limit",
			"buffer_size", s.config.BufferSize.String(), "got", size)
	}
}

// enableEvents has the kernel report on every flow. By default it does on those
// alone that begin while somebody listens, so the end of a flow that began while
// this stage was being restarted would never be heard of. (That of flows which
// began before the setting never is, whatever is set: they are told of when they
// begin, or not at all.)
func (s *source) enableEvents() {
	before, err := ctnl.EnableEvents()
	switch {
	case err != nil:
		s.host.Logger().Warn("flows that begin while this stage restarts will have no events: nf_conntrack_events can't be set to 1", "error", err)
	case before != "1":
		s.host.Logger().Info("set nf_conntrack_events to 1, so that flows which begin while this stage restarts have events", "was", before)
	}
}

// Close ends the subscription.
func (s *source) Close() error {
	if s.events == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.ignoring != nil {
		s.ignoring.Stop()
	}
	return s.events.Close()
}

// Run reads events until ctx ends. Batches leave as a network card's
// interrupts do: the first event after quiet at once, then at most one batch
// in each interval, or sooner when one is full.
func (s *source) Run(ctx context.Context, out *plugin.Output) error {
	s.out = out
	if s.start.OneShot {
		return s.replay(ctx, plugin.Replay{ID: oneShotReplay}, out, 0)
	}
	defer context.AfterFunc(ctx, s.events.Wake)()
	defer s.startTimers()()
	var sender sync.WaitGroup
	sender.Go(func() { s.queue.run(out) })
	err := s.read(ctx)
	s.queue.close()
	sender.Wait()
	if err == nil {
		err = s.queue.awaitEmpty(context.Background()) // its error, if any
	}
	return err
}

// startTimers starts what signals by the clock, and returns what stops it.
func (s *source) startTimers() (stop func()) {
	if delay := s.config.OverrunResync; delay.After > 0 {
		s.resync = time.AfterFunc(time.Duration(delay.After), func() {
			s.host.Signal(plugin.SignalOverrun, "events were lost "+delay.String()+" ago, or longer")
		})
		s.resync.Stop() // until there is an overrun
	}
	stopped := make(chan struct{})
	if every := time.Duration(s.config.Poll); every > 0 {
		go s.poll(every, stopped)
	}
	return func() {
		close(stopped)
		if s.resync != nil {
			s.resync.Stop()
		}
	}
}

func (s *source) poll(every time.Duration, stopped <-chan struct{}) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			s.host.Signal(plugin.SignalPoll, "the last time was "+s.config.Poll.String()+" ago")
		case <-stopped:
			return
		}
	}
}

func (s *source) read(ctx context.Context) error {
	s.reset(flow.Kernel)
	defer s.masters.close()
	for {
		s.out.Beat()
		n, more, err := s.readAll()
		if err == nil {
			err = s.flush()
		}
		if err == nil {
			err = s.sendBarriers()
		}
		if err != nil {
			return err
		}
		if !more {
			s.tellLoss()
		}
		switch {
		case more:
		case ctx.Err() != nil:
			return nil
		case len(s.masters.waiting) > 0:
			if err := s.readMasters(); err != nil {
				return err
			}
		case n > 0 && s.config.Coalesce > 0:
			err = s.events.Pause(time.Duration(s.config.Coalesce))
		default:
			err = s.events.Wait(plugin.BeatInterval)
		}
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
	}
}

// maxReads bounds the vectors read before barriers and the end of the stage
// get their turn, when events come faster than they can be read.
const maxReads = 64

// readAll reads what is queued, without a pause while reads fill their vector,
// and returns how many events it were and whether there are more. After an
// overrun it reads on to the end, since until then the kernel queues nothing.
func (s *source) readAll() (total int, more bool, err error) {
	for range maxReads {
		n, err := s.events.Read()
		if errors.Is(err, ctnl.ErrOverrun) {
			s.overrun()
			continue
		}
		if err != nil {
			return total, false, err
		}
		for i := range n {
			if err := s.take(s.events.Message(i)); err != nil {
				return total, false, err
			}
		}
		total += n
		if !s.events.Full(n) {
			return total, false, nil
		}
	}
	return total, true, nil
}

// overrun grows the buffer and has the table replayed, once what is queued was
// read.
func (s *source) overrun() {
	s.stats.overruns.Add(1)
	size, grew, err := s.events.Grow(int(s.config.BufferSizeMax))
	if err != nil {
		s.host.Logger().Warn("receive buffer does not grow", "error", err)
	} else {
		s.stats.buffer.Store(uint64(size))
	}
	detail := fmt.Sprintf("receive buffer of %v stays", plugin.Size(size))
	if grew {
		detail = fmt.Sprintf("receive buffer grew to %v", plugin.Size(size))
	}
	s.lost = detail
}

// tellLoss asks for a replay after a loss. It is called when all that came
// before the loss has been sent: an event that follows the replay's begin beats
// what the replay says of its flow, though the loss may have been of newer ones.
func (s *source) tellLoss() {
	switch {
	case s.lost == "" || s.config.OverrunResync.None:
	case s.resync != nil:
		s.resync.Reset(time.Duration(s.config.OverrunResync.After)) // once more from now on
	default:
		s.host.Signal(plugin.SignalOverrun, s.lost)
	}
	s.lost = ""
}

// take adds one event to the batch. A message that does not decode is an event
// lost.
func (s *source) take(message []byte) (err error) {
	if s.tail, err = ctnl.Decode(message, &s.event, s.tail); err != nil {
		if s.stats.malformed.Add(1) == 1 {
			s.host.Logger().Warn("event does not decode", "error", err)
		}
		s.lost = "an event did not decode"
		return nil
	}
	if !s.wants(&s.event) {
		return nil
	}
	s.stats.count(s.event.Kind)
	origin := flow.Kernel
	if port := ctnl.Port(message); port != 0 && slices.Contains(s.start.OwnPortIDs, port) {
		origin = flow.Own
		s.stats.own.Add(1)
	}
	if origin != s.origin {
		if err := s.flush(); err != nil {
			return err
		}
		s.reset(origin)
	}
	if origin == flow.Kernel {
		s.masters.note(&s.event)
	}
	return s.add()
}

// wants says whether an event goes on: an expectation of a helper that was not
// chosen does not. It gives those that do the zone that the kernel does not tell.
func (s *source) wants(e *flow.Event) bool {
	if s.config.Expectations.None() {
		return true // and there are none
	}
	if !e.IsExpectation() {
		s.zones.Note(e)
		return true
	}
	helper, _ := e.Tail.Get(flow.AttrHelper)
	if !s.config.Expectations.Has(string(helper)) {
		return false
	}
	s.zones.Complete(e)
	return true
}

func (s *source) add() error {
	if s.building.Len() == 0 {
		s.reset(s.origin) // for the time
	}
	if s.building.Append(&s.event) {
		return nil
	}
	if err := s.flush(); err != nil {
		return err
	}
	s.reset(s.origin)
	s.building.Append(&s.event)
	return nil
}

func (s *source) reset(o flow.Origin) {
	s.origin = o
	s.building.Reset(flow.Header{Origin: o, Time: time.Now().UnixNano()})
}

func (s *source) flush() error {
	err := s.queue.send(&s.building, s.out)
	s.reset(s.origin)
	return err
}

// barrier has the reader send an empty replay behind all events that the
// kernel has queued by now.
func (s *source) barrier(r plugin.Replay) {
	s.mu.Lock()
	s.barriers = append(s.barriers, r)
	s.mu.Unlock()
	s.events.Wake()
}

// sendBarriers reads once more before it sends the barriers, since one may
// have been posted behind events that the last read did not see.
func (s *source) sendBarriers() error {
	s.mu.Lock()
	barriers := s.barriers
	s.barriers = nil
	s.mu.Unlock()
	if len(barriers) == 0 {
		return nil
	}
	if _, _, err := s.readAll(); err != nil {
		return err
	}
	if err := s.flush(); err != nil {
		return err
	}
	for _, r := range barriers {
		var b flow.Builder
		b.Reset(headerOf(r))
		b.Append(&flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: r.Flags}})
		b.Append(&flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: r.Flags}})
		if err := s.queue.send(&b, s.out); err != nil {
			return err
		}
	}
	return nil
}
