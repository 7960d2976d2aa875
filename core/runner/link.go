package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// askPeers replays a source by having the peers asked: through the sinks on the
// same link, since one transmitter numbers all that a node sends there.
func (p *replayer) askPeers(ctx context.Context, r *replay) error {
	peers := newAnswers(time.Now(), p.stage.peers())
	var none error
	asked := false
	p.owe("")
	for _, sink := range p.stage.runner.sinksOn(p.stage.conf().Traits.GetLink()) {
		switch err := sink.ask(ctx); {
		case errors.As(err, new(unreached)):
			p.owe(r.reason)
			none = err
		case err != nil:
			return fmt.Errorf("%w: %w", errBroken, err)
		default:
			asked = true
		}
	}
	switch {
	case !asked && none != nil:
		return none
	case !asked:
		return fmt.Errorf("nobody to ask through: no sink sends on %s", p.stage.conf().Traits.GetLink())
	}
	p.awaitPeers(ctx, r, peers)
	return nil
}

// owe notes why peers that could not be reached are still to be asked; "": they
// are not.
func (p *replayer) owe(reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owed = reason
}

// askOwed asks the peers on a sink's link, if they could not be reached when they
// were to be asked.
func (r *Runner) askOwed(sink *stage) {
	for _, s := range r.graph().stages {
		if !hearsPeers(s) || s.conf().Traits.GetLink() != sink.conf().Traits.GetLink() {
			continue
		}
		s.replays.mu.Lock()
		reason := s.replays.owed
		s.replays.mu.Unlock()
		if reason != "" {
			s.replays.request(nil, 0, reason, true)
		}
	}
}

// ask has a sink ask the peers on its link for everything.
func (s *stage) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.command(ctx, plugin.Command{Name: "request-resync"}, io.Discard)
}

// lookInterval is how often the source is asked whom it heard while peers answer.
const lookInterval = 50 * time.Millisecond

// awaitPeers waits while answers come.
func (p *replayer) awaitPeers(ctx context.Context, r *replay, a *answers) {
	for ctx.Err() == nil && time.Since(a.asked) < allAnswers && !p.overtaken() {
		if now := time.Now(); a.over(now) && p.arrived(ctx, a) {
			break
		}
		select {
		case <-p.wake: // somebody asks again
		case <-r.broken: // an answer, or a stage that was started again
		case <-time.After(lookInterval):
		case <-ctx.Done():
		}
		a.look(time.Now(), p.stage.peers(), r.ended())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.answers > 0 {
		r.count("peers", uint64(r.answers))
	}
	if n := a.unmarked(); n > 0 {
		r.count("received", n)
	}
	r.note = a.note(time.Now())
}

// arrived waits until what the source has received of peers that mark nothing
// is in the cache. It says false if there was more to receive: the source had
// not come to it.
func (p *replayer) arrived(ctx context.Context, a *answers) bool {
	flows := a.unmarked()
	if flows == 0 {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_, _ = p.request(nil, flow.SyncKeep, "settle", false).wait(ctx) // an error: it is down, and gets all again
	now := time.Now()
	a.look(now, p.stage.peers(), nil)
	return a.unmarked() == flows || a.over(now)
}

// peers asks the stage's process whom it hears; nobody, if it does not answer.
func (s *stage) peers() []*stagepb.Peer {
	p := s.process()
	if p == nil {
		return nil
	}
	reply, err := s.measure(p, freshTimeout)
	if err != nil {
		return nil
	}
	return reply.Peers
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
	for _, s := range r.graph().stages {
		if s.conf().Kind == plugin.KindSink && s.conf().Traits.GetLink() == link && link != "" {
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
		if status.Code(err) == codes.FailedPrecondition {
			return unreached(plain(err).Error())
		}
		if err != nil {
			return fmt.Errorf("%s: %s: %w", s.address, c.Name, plain(err))
		}
		if _, err := out.Write(piece.Data); err != nil {
			return err
		}
	}
}
