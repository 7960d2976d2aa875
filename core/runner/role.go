package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// roleState is the role that this node was given last.
type roleState struct {
	change sync.Mutex // held while a role is being taken

	mu    sync.Mutex
	last  string
	carry bool
}

func (s *roleState) set(role string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.carry = role, role == "primary"
}

// setCarries notes that this node has begun or ceased to carry the flows that
// peers carried. A script that knows no roles says so by commit and purge.
func (s *roleState) setCarries(carries bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.carry = carries
}

// carries says whether what this node knows of flows is right, and what peers
// may know of them still is not.
func (s *roleState) carries() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.carry
}

func (s *roleState) get() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// changeRole takes a role. One change at a time: keepalived calls again while
// the last call still runs, and the second must see what the first has done.
func (r *Runner) changeRole(do steps, q control.Request) error {
	if len(q.Targets) != 1 {
		return errors.New("role: name one: primary, backup or fault")
	}
	role := q.Targets[0]
	take := map[string]func(steps) error{"primary": r.takeOver, "backup": r.schedulePurges, "fault": r.schedulePurges}[role]
	if take == nil {
		return fmt.Errorf("role: %q is none: name primary, backup or fault", role)
	}
	err := func() error {
		r.role.change.Lock()
		defer r.role.change.Unlock()
		r.takeovers.RLock()
		defer r.takeovers.RUnlock()
		r.role.set(role)
		r.keepRole()
		r.log.Info("role", "role", role)
		return take(do)
	}()
	if role == "backup" {
		// The role is taken: peers that are still answering, or that never say
		// that they have, must not keep the next takeover waiting.
		err = errors.Join(err, r.askPrimary(do))
	}
	return err
}

// takeOver makes this node carry the flows that its peers carried:
//
//  1. a purge that is scheduled or runs is called off: it would delete what the
//     next steps put into the kernel;
//  2. what was received from the peers reaches the hold cache;
//  3. the hold cache is committed, masters first; the kernel makes no events of
//     new flows meanwhile, which is nearly half of its work, since step 5 finds
//     what else began;
//  4. what was committed is taken out of it, so that a later commit does not
//     bring back the dead; what came meanwhile is committed too;
//  5. the kernel's table is read into this node's cache, which claims all of it;
//  6. the peers are sent everything once, as this node's own.
//
// A step that fails does not keep the others from being tried: half a takeover
// is better than none, and the command fails in the end. That no peer can be
// reached is no failure: the node takes over because of it, as often as not.
func (r *Runner) takeOver(do steps) error {
	var errs []error
	if r.purges.cancel() {
		do.report(control.Step{Name: "purge called off"})
	}
	committed := false
	hear := r.ignoreNew(do)
	for _, cache := range r.graph().stages {
		if !isHoldCache(cache) {
			continue
		}
		errs, committed = append(errs, r.commitAll(do, cache)), true
	}
	hear()
	if !committed && !r.writeThrough() {
		do.report(control.Step{Name: "commit", Note: "no cache holds peers' flows and none are written through"})
	}
	for _, s := range r.graph().stages {
		if readsKernel(s) {
			errs = append(errs, do.replay("claim", s, nil, flow.SyncClaim))
		}
	}
	for _, s := range r.graph().stages {
		if r.sendsBulk(s) {
			errs = append(errs, do.ifReached("bulk", s, flow.SyncClaim))
		}
	}
	return errors.Join(errs...)
}

// ignoreNew has sources hear nothing of flows that begin, where they can, until
// the function that it returns is called and a replay follows.
func (r *Runner) ignoreNew(do steps) (hear func()) {
	tell := func(name string, stages []*stage) (told []*stage) {
		for _, s := range stages {
			if !slices.Contains(s.conf().Traits.GetCommands(), name) {
				continue
			}
			ctx, cancel := context.WithTimeout(do.ctx, callTimeout)
			err := s.command(ctx, plugin.Command{Name: name}, io.Discard)
			cancel()
			if err != nil { // slower, or heard again when the source's time is up
				r.log.Warn("takeover goes on", "stage", s.address, "error", err)
			}
			told = append(told, s)
		}
		return told
	}
	told := tell(plugin.IgnoreNew, r.graph().stages)
	return func() { tell(plugin.HearNew, told) }
}

// commitRounds bounds how often a takeover commits what came meanwhile.
const commitRounds = 3

// commitAll commits what a hold cache holds and takes it out, and then what has
// come between the two. If the commit fails the cache keeps what it holds: it
// may be needed for another try.
func (r *Runner) commitAll(do steps, cache *stage) error {
	for range commitRounds {
		if err := r.commit(do, cache); err != nil {
			return err
		}
		counts, err := do.flush(cache, "committed")
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(counts, func(c control.Count) bool { return c.Name == "left" && c.Value > 0 }) {
			return nil
		}
	}
	return nil
}

// askPrimary asks the new primary for what it carries.
func (r *Runner) askPrimary(do steps) error {
	var errs []error
	for _, s := range r.graph().stages {
		if hearsPeers(s) {
			errs = append(errs, do.ifReached("request-resync", s, 0))
		}
	}
	return errors.Join(errs...)
}

// schedulePurges schedules the purge of every sink with a scope and returns.
func (r *Runner) schedulePurges(do steps) error {
	for _, s := range r.graph().stages {
		if purges(s) {
			_ = r.schedulePurge(do, s) // never fails
		}
	}
	return nil
}

func (r *Runner) schedulePurge(do steps, s *stage) error {
	after := time.Duration(s.conf().Traits.GetPurgeAfter())
	r.purges.schedule(r, s, after)
	do.report(control.Step{Name: "purge scheduled", Stage: s.address, Note: fmt.Sprintf("in %v", after)})
	return nil
}
