package sourcenetlink

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/ctnl"
)

const (
	// oneShotReplay is the id of a one-shot's only replay, which no runner
	// asked for.
	oneShotReplay = 1

	// yield is how long a replay's batch waits for queued live ones at most:
	// an edge that is always full must not keep the replay from ending, which
	// is what repairs the losses.
	yield = 50 * time.Millisecond

	// dumpAttempts bounds how often a dump is begun again that the kernel
	// marks as inconsistent.
	dumpAttempts = 3
)

// Replay sends the kernel's table beside Run.
func (s *source) Replay(ctx context.Context, r plugin.Replay, out *plugin.Output) error {
	if s.start.OneShot {
		return errors.New("replay: the stage replays once, by itself")
	}
	if r.Flags&flow.SyncKeep != 0 {
		s.barrier(r)
		return nil
	}
	return s.replay(ctx, r, out, s.config.ReplayRate)
}

func headerOf(r plugin.Replay) flow.Header {
	return flow.Header{Replay: r.ID, Edge: r.Edge, Time: time.Now().UnixNano()}
}

// A replayer sends one replay.
type replayer struct {
	*source
	ctx     context.Context
	replay  plugin.Replay
	out     *plugin.Output
	limiter *rate.Limiter // nil: unlimited
	batch   flow.Builder
	sent    uint64 // records, marks excluded
}

// replay sends the table between its marks. The begin is sent before the dump
// is begun, so that below it every live event that the dump may contradict is
// known to be newer.
func (s *source) replay(ctx context.Context, r plugin.Replay, out *plugin.Output, flowsPerSecond uint32) error {
	p := &replayer{source: s, ctx: ctx, replay: r, out: out}
	if flowsPerSecond > 0 {
		// A burst of one batch: it has 583 records at most.
		p.limiter = rate.NewLimiter(rate.Limit(flowsPerSecond), max(int(flowsPerSecond/100), flow.MaxBatch/100))
	}
	p.batch.Reset(headerOf(r))
	if err := p.mark(flow.SyncBegin, 0); err != nil {
		return err
	}
	if err := p.dump(); err != nil {
		return err
	}
	if err := p.mark(flow.SyncEnd, p.sent); err != nil {
		return err
	}
	s.stats.replays.Add(1)
	return nil
}

// dump sends the table, then the expectations, whose masters are known by then.
func (p *replayer) dump() error {
	err := p.dumpWhole(func() (*ctnl.Dump, error) { return ctnl.OpenDump(ctnl.Filter{}) })
	if err == nil && !p.config.Expectations.None() {
		err = p.dumpWhole(ctnl.OpenExpectationDump)
	}
	return err
}

// dumpWhole sends a dump, again if it was torn: flows that are named twice merge.
func (p *replayer) dumpWhole(open func() (*ctnl.Dump, error)) error {
	for range dumpAttempts {
		torn, err := p.dumpOnce(open)
		if err != nil || !torn {
			return err
		}
	}
	return errors.New("replay: the table changed its size during each of the dumps")
}

func (p *replayer) dumpOnce(open func() (*ctnl.Dump, error)) (torn bool, err error) {
	d, err := open()
	if err != nil {
		return false, fmt.Errorf("replay: %w", err)
	}
	defer d.Close()
	for more := true; more; {
		if more, err = d.Next(p.add); err != nil {
			return false, fmt.Errorf("replay: %w", err)
		}
	}
	if d.Malformed() > 0 { // not named, they would be swept
		return false, fmt.Errorf("replay: %d entries did not decode", d.Malformed())
	}
	return d.Interrupted(), p.flush()
}

func (p *replayer) add(e *flow.Event) error {
	if !p.wants(e) || p.batch.Append(e) {
		return nil
	}
	if err := p.flush(); err != nil {
		return err
	}
	p.batch.Append(e)
	return nil
}

// mark sends a mark in a batch of its own.
func (p *replayer) mark(kind flow.Kind, count uint64) error {
	p.batch.Append(&flow.Event{Kind: kind, Sync: flow.Sync{Flags: p.replay.Flags, Count: count}})
	return p.send()
}

// flush sends the records gathered.
func (p *replayer) flush() error {
	n := p.batch.Len()
	if p.limiter != nil && n > 0 {
		if err := p.limiter.WaitN(p.ctx, min(n, p.limiter.Burst())); err != nil {
			return fmt.Errorf("replay: %w", err)
		}
	}
	if err := p.send(); err != nil {
		return err
	}
	p.sent += uint64(n)
	p.stats.replayed.Add(uint64(n))
	return nil
}

// send lets live batches pass, then sends without ever holding the output.
func (p *replayer) send() error {
	wait, cancel := context.WithTimeout(p.ctx, yield)
	err := p.queue.awaitEmpty(wait)
	cancel()
	if p.ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	if err == nil {
		err = sendWaiting(p.ctx, &p.batch, p.out)
	}
	if err != nil {
		return fmt.Errorf("replay: %w", err)
	}
	p.batch.Reset(headerOf(p.replay))
	return nil
}
