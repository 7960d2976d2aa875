package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/flow"
)

// A stage is a plugin at work: its data loop and its replays.
type stage struct {
	plugin any // Source, Filter, Cache or Sink
	host   *host
	in     *input // nil for a source
	out    *Output

	batchesIn, eventsIn, bytesIn, malformed atomic.Uint64
	working                                 atomic.Bool
	refused                                 *rate.Limiter // lines about them
	taps                                    taps          // of what enters
	sizes, ages                             histogram     // of a sink

	turn   sync.Mutex  // held while a batch is read and worked on, and during a pause of the input
	ending atomic.Bool // it reads no more: see drain

	mu     sync.Mutex
	cancel context.CancelFunc // of the running replay
	ended  chan struct{}      // closed when it has returned
}

// run moves data until the input ends or, for a source, ctx does.
func (s *stage) run(ctx context.Context) error {
	switch p := s.plugin.(type) {
	case Source:
		return p.Run(ctx, s.out)
	case Filter:
		f := filterLoop{filter: p, out: s.out, dropped: map[uint64]dropCount{}}
		return s.loop(f.apply)
	case Cache:
		return s.loop(func(b *flow.Batch) error { return p.Apply(b, s.out) })
	case Sink:
		s.sizes, s.ages = newHistogram(sizeBounds), newHistogram(ageBounds)
		return s.loop(func(b *flow.Batch) error { return s.write(p, b) })
	}
	return fmt.Errorf("%T is no source, filter, cache or sink", s.plugin)
}

// loop hands one batch after another to apply. A batch that does not decode is
// counted and dropped: the replay that repairs it is asked for by the gap that
// it leaves, or by the next one.
func (s *stage) loop(apply func(*flow.Batch) error) error {
	for {
		err := s.next(apply)
		if err == errQuiet {
			err = s.in.await()
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
	}
}

// next reads a batch, if one comes soon, and works on it. io.EOF says that there
// will be no more.
func (s *stage) next(apply func(*flow.Batch) error) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.ending.Load() {
		return io.EOF
	}
	packet, err := s.in.read()
	if err != nil {
		return err
	}
	s.working.Store(true)
	b, err := flow.DecodeBatch(packet)
	if err != nil {
		s.refuse(err)
		s.host.Signal(SignalGap, "a batch was malformed")
	} else {
		s.taps.pass(packet, int(b.Count))
		if err := apply(&b); err != nil {
			return err
		}
	}
	s.bytesIn.Add(uint64(len(packet)))
	s.eventsIn.Add(uint64(b.Count))
	s.batchesIn.Add(1) // last: the runner reads it as "all this is done"
	s.working.Store(false)
	return nil
}

// refuseRate bounds the lines about batches that are refused, against a neighbour
// that sends nothing else: the log is not ours alone.
const refuseRate, refuseBurst = 1, 20

// refuse counts a batch that did not decode.
func (s *stage) refuse(err error) {
	n := s.malformed.Add(1)
	if s.refused == nil {
		s.refused = rate.NewLimiter(refuseRate, refuseBurst)
	}
	if s.refused.Allow() {
		s.host.logger.Error("batch refused", "error", err, "refused", n)
	}
}

// write lets a sink write a batch and reports the replay that ends in it, if
// the sink did not do so itself.
func (s *stage) write(sink Sink, b *flow.Batch) error {
	if err := sink.Write(b); err != nil {
		return err
	}
	s.sizes.observe(sizeBounds, uint64(b.Count))
	if b.Replay == 0 {
		s.ages.observeAge(age(b.Time))
		return nil
	}
	var e flow.Event
	for c := b.Cursor(); c.Next(&e); {
		if e.Kind != flow.SyncEnd {
			continue
		}
		owner := ""
		if b.Owner.IsValid() {
			owner = b.Owner.String()
		}
		if !s.host.reported(b.Replay, owner) {
			s.host.Done(Report{Replay: b.Replay, Owner: b.Owner, Counts: []Count{{"flows", e.Sync.Count}}})
			s.host.reported(b.Replay, owner)
		}
	}
	return nil
}

// A replayer is a stage that can replay: a Source or a Cache.
type replayer interface {
	Replay(ctx context.Context, r Replay, out *Output) error
}

// replay begins a replay after ending the one that runs, if any.
func (s *stage) replay(r Replay) error {
	p, ok := s.plugin.(replayer)
	if !ok {
		return errors.New("replay: only sources and caches can")
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	s.mu.Lock()
	cancelLast, last := s.cancel, s.ended
	s.cancel, s.ended = cancel, ended
	s.mu.Unlock()
	if cancelLast != nil {
		cancelLast()
	}
	go func() {
		defer close(ended)
		defer cancel()
		if last != nil {
			<-last
		}
		if err := p.Replay(ctx, r, s.out); err != nil {
			s.host.logger.Warn("replay failed", "replay", r.ID, "error", err)
			s.host.Done(Report{Replay: r.ID, Failed: err.Error()})
		}
	}()
	return nil
}

// filterLoop applies a Filter to batches. Marks pass; a replay's end is lowered
// by the records that were dropped, so that below it a count that does not
// match means loss and nothing else.
type filterLoop struct {
	filter  Filter
	out     *Output
	event   flow.Event
	builder flow.Builder
	dropped map[uint64]dropCount // by replay id
}

// maxReplays bounds how many replays a filter counts for at once, one an owner,
// against a link on which somebody makes owners up.
const maxReplays = 4096

// A dropCount counts what was dropped of a replay that owner began. (Records of
// a cache's replay have the owners of their flows, its marks have none.)
type dropCount struct {
	owner netip.Addr
	n     uint64
}

func (l *filterLoop) apply(b *flow.Batch) error {
	l.builder.Reset(b.Header)
	for c := b.Cursor(); c.Next(&l.event); {
		if l.event.IsMark() {
			l.mark(b)
		} else {
			switch l.filter.Filter(&l.event) {
			case Drop:
				if d, begun := l.dropped[b.Replay]; begun {
					d.n++
					l.dropped[b.Replay] = d
				}
				continue
			case Pass:
				if err := l.add(b, c.Record()); err != nil {
					return err
				}
				continue
			}
		}
		if !l.builder.Append(&l.event) {
			if err := l.add(b, flow.AppendRecord(nil, &l.event)); err != nil {
				return err
			}
		}
	}
	return l.out.Send(&l.builder)
}

// add appends a record, to the next batch if this one is full.
func (l *filterLoop) add(b *flow.Batch, r flow.Record) error {
	if l.builder.AppendRecord(r) {
		return nil
	}
	if err := l.out.Send(&l.builder); err != nil {
		return err
	}
	l.builder.Reset(b.Header)
	if !l.builder.AppendRecord(r) {
		return fmt.Errorf("a record of %d bytes fits in no batch", len(r))
	}
	return nil
}

// mark keeps the counts of dropped records in step with the marks.
func (l *filterLoop) mark(b *flow.Batch) {
	switch l.event.Kind {
	case flow.SyncBegin: // cancels this owner's replay before it
		for id, d := range l.dropped {
			if d.owner == b.Owner {
				delete(l.dropped, id)
			}
		}
		if len(l.dropped) >= maxReplays {
			clear(l.dropped) // the replays that run are begun again
		}
		l.dropped[b.Replay] = dropCount{owner: b.Owner}
	case flow.SyncEnd:
		l.event.Sync.Count -= min(l.dropped[b.Replay].n, l.event.Sync.Count)
		delete(l.dropped, b.Replay)
	}
}
