package runner

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// How long to wait for peers that were asked to send everything. There is no
// list of peers, and some (conntrackd) send no mark at the end, so the answer is
// over when nothing was heard for a while.
const (
	firstAnswer = 3 * time.Second
	quietAnswer = time.Second
	allAnswers  = time.Minute
)

// askPeers replays a source by having the peers asked: through the sinks on the
// same link, since one transmitter numbers all that a node sends there.
func (p *replayer) askPeers(ctx context.Context, r *replay) error {
	asked := false
	for _, sink := range p.stage.runner.sinksOn(p.stage.conf.Traits.GetLink()) {
		if err := sink.ask(ctx); err != nil {
			return fmt.Errorf("%w: %w", errBroken, err)
		}
		asked = true
	}
	if !asked {
		return fmt.Errorf("nobody to ask through: no sink sends on %s", p.stage.conf.Traits.GetLink())
	}
	p.awaitPeers(ctx, r)
	return nil
}

// ask has a sink ask the peers on its link for everything.
func (s *stage) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.command(ctx, plugin.Command{Name: "request-resync"}, io.Discard)
}

// awaitPeers waits while answers come.
func (p *replayer) awaitPeers(ctx context.Context, r *replay) {
	begin := time.Now()
	heard, received := begin, p.stage.eventsOut()
	before, answers := received, 0
	for time.Since(begin) < allAnswers && ctx.Err() == nil {
		r.mu.Lock()
		answered := r.answers
		r.mu.Unlock()
		if now := p.stage.eventsOut(); now != received && answered == 0 || answered != answers {
			heard, received, answers = time.Now(), now, answered
		}
		patience := firstAnswer
		if answers > 0 {
			patience = quietAnswer
		}
		if time.Since(heard) > patience || p.overtaken() {
			break
		}
		select {
		case <-p.wake: // somebody asks again
		case <-r.broken: // an answer, or a stage that was started again
		case <-time.After(quietAnswer / 4):
		case <-ctx.Done():
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers > 0 {
		r.count("peers", uint64(r.answers))
		return
	}
	// Nobody marked an end, as conntrackd never does: all that is known is what
	// came meanwhile, live changes included.
	r.count("received", p.stage.eventsOut()-min(before, p.stage.eventsOut()))
}

// overtaken says whether an administrator asks again. Peers are asked at once
// then, rather than when an answer is over that may have no end; they send
// everything once more, so this answer is part of the next.
func (p *replayer) overtaken() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.ContainsFunc(p.waiting, func(r *replay) bool { return !r.signal })
}

// sinksOn returns the sinks that transmit on a link.
func (r *Runner) sinksOn(link string) (sinks []*stage) {
	for _, s := range r.stages {
		if s.conf.Kind == plugin.KindSink && s.conf.Traits.GetLink() == link && link != "" {
			sinks = append(sinks, s)
		}
	}
	return sinks
}

// command has the stage carry out a command and copies what it answers.
func (s *stage) command(ctx context.Context, c plugin.Command, out io.Writer) error {
	p := s.process()
	if p == nil {
		return fmt.Errorf("%s does not run at the moment: see `sluice status`", s.address)
	}
	stream, err := p.Command(ctx, &stagepb.CommandRequest{Name: c.Name, Args: c.Args, Json: c.JSON})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", s.address, c.Name, plain(err))
	}
	for {
		piece, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", s.address, c.Name, plain(err))
		}
		if _, err := out.Write(piece.Data); err != nil {
			return err
		}
	}
}
