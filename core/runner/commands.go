package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// Do implements control.Backend.
func (r *Runner) Do(ctx context.Context, q control.Request, report func(control.Step)) error {
	if !r.ready.Load() && q.Command != "stop" {
		return fmt.Errorf("%s: the runner is starting: try again in a moment", q.Command)
	}
	// What changes the kernel is carried through, also when the caller is gone:
	// a notify script that is killed must not leave half a takeover.
	if q.Command == "role" || q.Command == "commit" {
		ctx = context.WithoutCancel(ctx)
	}
	do := steps{ctx, report}
	switch q.Command {
	case "commit":
		if r.purges.cancel() { // it would delete what is committed now
			do.report(control.Step{Name: "purge called off"})
		}
		r.takeovers.RLock()
		defer r.takeovers.RUnlock()
		r.role.setCarries(true)
		r.keepRole()
		return r.onStages(do, q, isHoldCache, "a cache with hold = true", r.commit)
	case "bulk":
		return r.onStages(do, q, r.sendsBulk, "a cache above a sink that sends to peers", func(do steps, s *stage) error {
			return do.replay("bulk", s, nil, 0)
		})
	case "resync":
		return r.onStages(do, q, readsKernel, "a source that reads the kernel", func(do steps, s *stage) error {
			return do.replay("resync", s, nil, 0)
		})
	case "request-resync":
		ask := requestResync
		if q.Background {
			ask = beginResync
		}
		return r.onStages(do, q, hearsPeers, "a source that hears peers", ask)
	case "flush":
		return r.flush(do, q)
	case "purge":
		r.role.setCarries(false)
		r.keepRole()
		purge := r.purgeLater
		if q.Background {
			purge = r.schedulePurge
		}
		return r.onStages(do, q, purges, "a sink with a scope", purge)
	case "role":
		return r.changeRole(do, q)
	case "reopen":
		return r.reopen(do)
	case "reload":
		return r.reload(do)
	case "stop":
		return do.step("stop", "", func() ([]control.Count, error) { return nil, r.Stop(ctx) })
	}
	return fmt.Errorf("unknown command %q: there are %v", q.Command, control.Commands)
}

// steps reports what a command does.
type steps struct {
	ctx    context.Context
	report func(control.Step)
}

// step times f and reports how it ended.
func (d steps) step(name, where string, f func() ([]control.Count, error)) error {
	return d.noted(name, where, func() ([]control.Count, string, error) {
		counts, err := f()
		return counts, "", err
	})
}

// noted is step with a note for people.
func (d steps) noted(name, where string, f func() ([]control.Count, string, error)) error {
	begin := time.Now()
	counts, note, err := f()
	s := control.Step{Name: name, Stage: where, Counts: counts, Note: note, Elapsed: time.Since(begin)}
	if err != nil {
		s.Error = err.Error()
		err = fmt.Errorf("%s: %s: %w", where, name, err)
	}
	d.report(s)
	return err
}

// replay asks s for a replay and waits for it.
func (d steps) replay(name string, s *stage, into *stage, flags flow.SyncFlags) error {
	return d.step(name, s.address, func() ([]control.Count, error) {
		return s.replays.request(into, flags, name, false).wait(d.ctx)
	})
}

// What a stage must be for a command to concern it.
func isCache(s *stage) bool     { return s.conf().Kind == plugin.KindCache }
func isHoldCache(s *stage) bool { return isCache(s) && s.conf().Traits.GetHold() }
func hearsPeers(s *stage) bool {
	return s.conf().Kind == plugin.KindSource && s.conf().Traits.GetLink() != ""
}
func readsKernel(s *stage) bool {
	return s.conf().Kind == plugin.KindSource && s.conf().Traits.GetLink() == ""
}
func purges(s *stage) bool {
	return s.conf().Kind == plugin.KindSink && s.conf().Traits.GetScope() != ""
}

func sendsToPeers(s *stage) bool {
	return s.conf().Kind == plugin.KindSink && s.conf().Traits.GetLink() != ""
}

// sendsBulk says whether s is what replays into a sink with a link.
func (r *Runner) sendsBulk(s *stage) bool {
	return slices.ContainsFunc(r.graph().stages, func(sink *stage) bool {
		return sendsToPeers(sink) && sink.replayerAbove() == s &&
			!s.conf().Traits.GetHold()
	})
}

// onStages does something on every stage that the command concerns: all, or
// those that its targets name. Each is tried, also after one failed.
func (r *Runner) onStages(do steps, q control.Request, concerns func(*stage) bool, what string, f func(steps, *stage) error) error {
	stages, err := r.targets(q.Targets, concerns, what)
	if err != nil {
		return fmt.Errorf("%s: %w", q.Command, err)
	}
	var errs []error
	for _, s := range stages {
		errs = append(errs, f(do, s))
	}
	return errors.Join(errs...)
}

func (r *Runner) targets(names []string, concerns func(*stage) bool, what string) ([]*stage, error) {
	candidates := r.graph().stages
	if len(names) > 0 {
		candidates = nil
		for _, name := range names {
			found, err := r.find(name)
			if err != nil {
				return nil, err
			}
			candidates = append(candidates, found...)
		}
	}
	var stages []*stage
	for _, s := range candidates {
		if concerns(s) && !slices.Contains(stages, s) {
			stages = append(stages, s)
		}
	}
	if len(stages) == 0 {
		return nil, fmt.Errorf("there is nothing to do: no stage of %s is %s", orAll(names), what)
	}
	return stages, nil
}

func orAll(names []string) string {
	if len(names) == 0 {
		return "the configuration"
	}
	return fmt.Sprintf("%q", names)
}

// commit puts what a hold cache holds into the kernel, after all that its
// source has received is in it.
func (r *Runner) commit(do steps, cache *stage) error {
	if err := r.settle(do, cache); err != nil {
		r.log.Warn("commit goes on with what the cache holds", "stage", cache.address, "error", err)
	}
	return do.replay("commit", cache, nil, flow.SyncCommit)
}

// settleTimeout bounds how long a takeover waits for messages in flight.
const settleTimeout = 3 * time.Second

// settle waits until what the source above a cache has received is in it.
func (r *Runner) settle(do steps, cache *stage) error {
	ctx, cancel := context.WithTimeout(do.ctx, settleTimeout)
	defer cancel()
	return steps{ctx, do.report}.replay("settle", cache.line().stages[0], nil, flow.SyncKeep)
}

func requestResync(do steps, source *stage) error {
	return do.noted("request-resync", source.address, func() ([]control.Count, string, error) {
		return source.replays.request(nil, 0, "request-resync", false).noted(do.ctx)
	})
}

// ifReached is replay of something for the peers, or from them, where it is no
// failure that none can be reached: that is said, and made up for later.
func (d steps) ifReached(name string, s *stage, flags flow.SyncFlags) error {
	return d.noted(name, s.address, func() ([]control.Count, string, error) {
		counts, note, err := s.replays.request(nil, flags, name, false).noted(d.ctx)
		if errors.As(err, new(unreached)) {
			return nil, err.Error() + "; it is made up for when they can be reached", nil
		}
		return counts, note, err
	})
}

// noted is wait, with what the counts don't tell.
func (r *replay) noted(ctx context.Context) ([]control.Count, string, error) {
	counts, err := r.wait(ctx)
	if err != nil {
		return counts, "", err
	}
	return counts, r.note, nil
}

// beginResync asks the peers and does not wait for what they answer.
func beginResync(do steps, source *stage) error {
	source.replays.request(nil, 0, "request-resync", false)
	do.report(control.Step{Name: "request-resync", Stage: source.address, Note: "begun"})
	return nil
}

// flush empties caches, or purges the kernel's table at once.
func (r *Runner) flush(do steps, q control.Request) error {
	if slices.Contains(q.Targets, "kernel") {
		if q.Expectations {
			return errors.New("flush: the kernel's expectations end with their masters: flush kernel, or name caches")
		}
		return r.onStages(do, control.Request{Command: "flush"}, purges, "a sink with a scope", func(do steps, s *stage) error {
			return r.purgeNow(do, s, nil)
		})
	}
	if len(q.Targets) == 0 && !q.All {
		return fmt.Errorf("flush: name a cache, a pipeline, kernel, or --all; caches: %s", r.addresses(isCache))
	}
	for _, target := range q.Targets {
		if _, err := r.oneCache(target); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
	}
	var args []string
	if q.Expectations {
		args = append(args, "expectations")
	}
	return r.onStages(do, q, isCache, "a cache", func(do steps, cache *stage) error {
		_, err := do.flush(cache, args...)
		return err
	})
}

// flush empties a cache; args are the cache's own.
func (d steps) flush(cache *stage, args ...string) (counts []control.Count, err error) {
	err = d.step("flush", cache.address, func() ([]control.Count, error) {
		ctx, cancel := context.WithTimeout(d.ctx, flushTimeout)
		defer cancel()
		var answer shortAnswer
		err := cache.command(ctx, plugin.Command{Name: "flush", Args: args, JSON: true}, &answer)
		counts = countsOf(answer.Bytes())
		return counts, err
	})
	return counts, err
}

// What a cache may make of a flush: a takeover waits for it.
const (
	flushTimeout = time.Minute
	maxAnswer    = 64 << 10 // bytes
)

// A shortAnswer refuses to become long.
type shortAnswer struct{ bytes.Buffer }

func (a *shortAnswer) Write(p []byte) (int, error) {
	if a.Len()+len(p) > maxAnswer {
		return 0, fmt.Errorf("an answer of more than %d bytes", maxAnswer)
	}
	return a.Buffer.Write(p)
}

// countsOf reads the counts that a command answered: a JSON object of numbers.
func countsOf(answer []byte) (counts []control.Count) {
	object := map[string]any{}
	if json.Unmarshal(answer, &object) != nil {
		return nil
	}
	for name, value := range object {
		if n, ok := value.(float64); ok {
			counts = append(counts, control.Count{Name: name, Value: uint64(n)})
		}
	}
	slices.SortFunc(counts, func(a, b control.Count) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return counts
}

// addresses lists the stages that a command concerns, for people.
func (r *Runner) addresses(concerns func(*stage) bool) string {
	var addresses []string
	for _, s := range r.graph().stages {
		if concerns(s) {
			addresses = append(addresses, s.address)
		}
	}
	if len(addresses) == 0 {
		return "none"
	}
	return strings.Join(addresses, ", ")
}

// oneCache returns the cache that a target names; a pipeline with several
// caches names none.
func (r *Runner) oneCache(target string) (*stage, error) {
	stages, err := r.find(target)
	if err != nil {
		return nil, err
	}
	stages = slices.DeleteFunc(slices.Clone(stages), func(s *stage) bool { return !isCache(s) })
	switch len(stages) {
	case 0:
		return nil, fmt.Errorf("%q has no cache; caches: %s", target, r.addresses(isCache))
	case 1:
		return stages[0], nil
	}
	var names []string
	for _, s := range stages {
		names = append(names, s.address)
	}
	return nil, fmt.Errorf("%q has several caches: name one of %v", target, names)
}

// Dump implements control.Backend.
func (r *Runner) Dump(ctx context.Context, q control.DumpRequest, out io.Writer) error {
	if q.What == control.DumpTap {
		return r.tap(ctx, q, out)
	}
	cache, err := r.oneCache(q.Target)
	if err != nil {
		return err
	}
	command := plugin.Command{Name: "dump", Args: q.Args, JSON: q.JSON}
	switch q.What {
	case control.DumpExpectations:
		command.Args = append([]string{"expectations"}, q.Args...)
	case control.DumpStats:
		command.Name = "stats"
	}
	return cache.command(ctx, command, out)
}

// tap streams what passes a stage. The stage's library answers, whatever the
// plugin; it ends when the caller goes away.
func (r *Runner) tap(ctx context.Context, q control.DumpRequest, out io.Writer) error {
	stages, err := r.find(q.Target)
	if err != nil {
		return err
	}
	if len(stages) != 1 {
		var names []string
		for _, s := range stages {
			names = append(names, s.address)
		}
		return fmt.Errorf("%q has several stages: name one of %v", q.Target, names)
	}
	err = stages[0].command(ctx, plugin.Command{Name: "tap", Args: q.Args, JSON: q.JSON}, out)
	if ctx.Err() != nil {
		return nil // nobody reads any more
	}
	return err
}
