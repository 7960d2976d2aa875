package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

const (
	// maxReplayPause bounds the exponential pause between replays that signals
	// ask for. It is short: until then something is known to be missing.
	maxReplayPause = 3 * time.Second
	// replayTimeout is how long a replay may take before it counts as lost.
	replayTimeout = 5 * time.Minute
	// replayTries is how often a replay that something broke off is tried.
	replayTries = 8
	// absentTimeout is how long a replay waits while none of those whose reports
	// it lacks runs. They get another replay when they are started again.
	absentTimeout = 10 * time.Second
	// barrierTimeout is longer than anybody waits for a barrier; the next
	// takeover must not join one that was lost.
	barrierTimeout = 2 * settleTimeout
	// maxAnew is how often a replay begins anew for those who ask meanwhile: then
	// they wait for the next, so that each comes to its end.
	maxAnew = 3
	// maxCounts bounds the counts that stages may report of one replay.
	maxCounts = 32
)

// errBroken says that a replay can't end: it is worth another try.
var errBroken = errors.New("broken off")

// unreached says why peers did not get what they were to be sent. That is no use
// to try again: a sink says link-up when somebody can be reached.
type unreached string

func (e unreached) Error() string { return string(e) }

// A replayer runs the replays of one source or cache, one at a time, in the
// order in which they were asked for. A request like one that waits joins it.
type replayer struct {
	stage *stage
	wake  chan struct{}

	mu      sync.Mutex
	waiting []*replay
	current *replay
	barrier *replay   // of a source with a link: runs beside the current one
	last    []*replay // ended, newest last; for status
	pause   time.Duration
	ended   time.Time
	over    error  // why there will be no more replays, once run has returned
	owed    string // why peers are to be asked as soon as one can be reached, or ""

	failed map[*stage]string // by what it was for: what repairs failed since the last replay that worked
}

// keepReplays is how many ended replays a replayer remembers.
const keepReplays = 4

// A replay is one request for a replay, and what became of it.
type replay struct {
	into   *stage // the sink that it is for alone; nil: all
	flags  flow.SyncFlags
	reason string
	signal bool // asked for by a signal: after a pause
	repair bool // something is known to be missing until it has ended

	// These are guarded by the replayer's lock.
	anew  bool // it is to begin once more
	anews int  // how often it did
	lost  bool // a receiver asked for that

	done chan struct{} // closed when it has ended; then the rest is final

	mu        sync.Mutex
	id        uint64
	receivers []*stage // that have not reported yet
	broken    chan string
	started   time.Time
	elapsed   time.Duration
	counts    []control.Count
	err       error
	answers   int      // of peers, of a replay by link
	owners    []string // whose answers they are
	note      string   // what the counts don't tell
	unreached []string // why sinks sent nothing
	over      bool     // it has ended: late reports change nothing
}

func newReplayer(s *stage) *replayer {
	return &replayer{stage: s, wake: make(chan struct{}, 1)}
}

// request asks for a replay. Hold caches replay to commit alone: any other
// request ends at once, without one.
func (p *replayer) request(into *stage, flags flow.SyncFlags, reason string, signal bool) *replay {
	if p.stage.conf().Traits.GetHold() && flags&flow.SyncCommit == 0 {
		return endedReplay(reason, nil)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over != nil {
		return endedReplay(reason, p.over)
	}
	joinable := p.waiting
	if p.current != nil && flags&(flow.SyncCommit|flow.SyncKeep) != 0 {
		joinable = append([]*replay{p.current}, joinable...) // a second commit joins the first
	}
	for _, r := range joinable {
		if r.into == into && r.flags == flags {
			r.signal, r.repair = r.signal && signal, r.repair || repairs(reason)
			p.rouse() // it may wait out a pause that is for signals alone
			return r
		}
	}
	if p.beginAnew(into, flags, signal) {
		p.current.repair = p.current.repair || repairs(reason)
		return p.current
	}
	r := &replay{into: into, flags: flags, reason: reason, signal: signal, repair: repairs(reason), done: make(chan struct{}), broken: make(chan string, 1)}
	if flags&flow.SyncKeep != 0 && p.byLink() {
		// Peers that are still answering must not make a takeover wait: what
		// they send has other marks than this.
		if p.barrier == nil {
			p.barrier = r
			go p.runBarrier(r)
		}
		return p.barrier
	}
	p.waiting = append(p.waiting, r)
	p.rouse()
	return r
}

// rouse has the loop look at the requests again.
func (p *replayer) rouse() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *replayer) byLink() bool { return p.stage.conf().Traits.GetLink() != "" }

func (p *replayer) runBarrier(r *replay) {
	ctx, cancel := context.WithTimeout(context.Background(), barrierTimeout)
	defer cancel()
	err := p.try(ctx, r)
	p.mu.Lock()
	p.barrier = nil
	p.mu.Unlock()
	r.end(err)
}

func (r *replay) end(err error) {
	r.mu.Lock()
	r.err, r.elapsed, r.over = err, time.Since(r.started), true
	r.mu.Unlock()
	close(r.done)
}

func endedReplay(reason string, err error) *replay {
	r := &replay{reason: reason, done: make(chan struct{}), started: time.Now(), err: err}
	close(r.done)
	return r
}

// wait waits for the end of the replay.
func (r *replay) wait(ctx context.Context) ([]control.Count, error) {
	select {
	case <-r.done:
		return r.counts, r.err
	case <-ctx.Done():
		return nil, fmt.Errorf("the replay goes on, but %w", ctx.Err())
	}
}

func (p *replayer) run(ctx context.Context) {
	for {
		r := p.next(ctx)
		if r == nil {
			p.fail(ctx.Err())
			return
		}
		err := p.try(ctx, r)
		for tries := 1; tries < replayTries && ctx.Err() == nil; tries++ {
			again, anew := p.again(r, err)
			if !again {
				break
			}
			if !anew {
				p.stage.runner.log.Warn("replay again", "stage", p.stage.address, "reason", r.reason, "error", err)
				p.sleep(ctx, min(minBackoff<<tries, maxReplayPause))
			}
			err = p.try(ctx, r)
		}
		p.finish(r, err)
	}
}

// again says whether a replay is to run once more: because it was broken off, or
// for somebody who joined it and needs it from its begin (anew). If not, nobody
// can join it any more.
func (p *replayer) again(r *replay, err error) (again, anew bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	again, anew = errors.Is(err, errBroken) || r.anew, r.anew
	if r.anew = false; !again {
		p.current = nil
	}
	return again, anew
}

// soonAfter is how soon after a replay a signal that asks for another tells of a
// loss, probably.
const soonAfter = 10 * time.Second

// repeats says whether receivers ask for r because they lost some of the last.
func (p *replayer) repeats(r *replay) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	again := r.lost || r.signal && time.Since(p.ended) < soonAfter
	r.lost = false
	return again
}

// beginAnew has the current replay, if it is a bulk into the edge, begin once more
// rather than the next one wait for its end: without its begin it is of no use to
// the peer who asks now.
func (p *replayer) beginAnew(into *stage, flags flow.SyncFlags, signal bool) bool {
	r := p.current
	if r == nil || r.into != into || r.flags != 0 || flags != 0 || r.anews == maxAnew ||
		!slices.ContainsFunc(p.stage.receivers(into), sendsToPeers) {
		return false
	}
	r.anew, r.lost = true, r.lost || signal
	r.anews++
	r.tell("it is asked for again")
	return true
}

// next waits for a request that is due and makes it the current one.
func (p *replayer) next(ctx context.Context) *replay {
	for ctx.Err() == nil {
		p.mu.Lock()
		pause := time.Duration(0)
		if len(p.waiting) > 0 {
			if p.allSignals() {
				pause = p.pause - time.Since(p.ended)
			}
			if pause <= 0 {
				r := p.take()
				p.mu.Unlock()
				return r
			}
		}
		p.mu.Unlock()
		if pause > 0 {
			p.sleep(ctx, pause)
			continue
		}
		select {
		case <-p.wake:
		case <-ctx.Done():
		}
	}
	return nil
}

func (p *replayer) allSignals() bool {
	return !slices.ContainsFunc(p.waiting, func(r *replay) bool { return !r.signal })
}

// take removes the first request, one of an administrator's before one of a
// signal's, and sets the pause before the next that a signal asks for.
func (p *replayer) take() *replay {
	i := max(0, slices.IndexFunc(p.waiting, func(r *replay) bool { return !r.signal }))
	r := p.waiting[i]
	p.waiting = slices.Delete(p.waiting, i, i+1)
	p.current = r
	switch {
	case time.Since(p.ended) > 10*maxReplayPause:
		p.pause = minBackoff
	case r.signal:
		p.pause = min(max(2*p.pause, minBackoff), maxReplayPause)
	}
	return r
}

// sleep waits, or until somebody asks, who may be no signal.
func (p *replayer) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.wake:
	case <-ctx.Done():
	}
}

func (p *replayer) finish(r *replay, err error) {
	p.mu.Lock()
	p.current, p.ended = nil, time.Now()
	p.last = append(p.last, r)
	if len(p.last) > keepReplays {
		p.last = p.last[1:]
	}
	p.note(r, err)
	p.mu.Unlock()
	r.end(err)
	if told := p.stage.runner.options.Replayed; told != nil {
		told(p.stage.address, kindOfReason(r.reason), r.elapsed, err)
	}
	log := p.stage.runner.log.With("stage", p.stage.address, "reason", r.reason, "elapsed", r.elapsed)
	for _, c := range r.counts {
		log = log.With(c.Name, c.Value)
	}
	if r.note != "" {
		log = log.With("note", r.note)
	}
	switch {
	case errors.As(err, new(unreached)):
		log.Info("replay not sent: peers get it when they can be reached", "error", err)
	case err != nil:
		log.Error("replay failed", "error", err)
	default:
		log.Info("replayed")
	}
}

// fail ends all that waits, and all that is asked for from now on.
func (p *replayer) fail(err error) {
	p.mu.Lock()
	p.over = fmt.Errorf("the runner ends: %w", err)
	waiting := p.waiting
	p.waiting = nil
	p.mu.Unlock()
	p.breakOff("the runner ends")
	for _, r := range waiting {
		r.end(p.over)
	}
}

// breakOff has what runs tried again.
func (p *replayer) breakOff(why string) {
	for _, one := range p.running() {
		if one != nil {
			one.tell(why)
		}
	}
}

// try runs a replay once.
func (p *replayer) try(ctx context.Context, r *replay) error {
	ctx, cancel := context.WithTimeout(ctx, replayTimeout)
	defer cancel()
	r.mu.Lock()
	r.id = p.stage.runner.replayID.Add(1)
	r.receivers = p.stage.receivers(r.into)
	r.counts, r.answers, r.owners, r.note, r.unreached = nil, 0, nil, "", nil
	if r.started.IsZero() {
		r.started = time.Now()
	}
	select { // of an earlier try
	case <-r.broken:
	default:
	}
	r.mu.Unlock()
	if p.byLink() && r.flags&flow.SyncKeep == 0 {
		return p.askPeers(ctx, r)
	}
	process := p.stage.process()
	if process == nil {
		return fmt.Errorf("%w: %s does not run", errBroken, p.stage.address)
	}
	request := &stagepb.ReplayRequest{
		Id: r.id, Flags: uint32(r.flags | p.stage.claims(r)), Edge: uint32(r.edge()),
		Tracked: p.stage.tracked(r.into), Repeated: p.repeats(r),
	}
	callCtx, cancelCall := context.WithTimeout(ctx, callTimeout)
	_, err := process.Replay(callCtx, request)
	cancelCall()
	if err != nil {
		return fmt.Errorf("%w: %s: %v", errBroken, p.stage.address, err)
	}
	return r.await(ctx)
}

// await waits until every receiver has reported the end.
func (r *replay) await(ctx context.Context) error {
	there := time.Now()
	for {
		r.mu.Lock()
		left, why := slices.Clone(r.receivers), strings.Join(r.unreached, "; ")
		r.mu.Unlock()
		switch {
		case len(left) == 0 && why != "":
			return unreached(why)
		case len(left) == 0:
			return nil
		case slices.ContainsFunc(left, (*stage).runs):
			there = time.Now()
		case time.Since(there) > absentTimeout:
			return fmt.Errorf("%s does not run: see `sluice status`", left[0].address)
		}
		select {
		case <-time.After(absentTimeout / 10): // to look again who runs
		case why := <-r.broken:
			if why != "" {
				return fmt.Errorf("%w: %s", errBroken, why)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report takes a stage's word on the end of a replay: the first of each
// receiver, and every answer of a peer.
func (r *replay) report(from *stage, report *stagepb.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.Index(r.receivers, from)
	switch {
	case r.over:
		return
	case report.Failed != "":
		r.tell(from.address + ": " + printable(report.Failed))
		return
	case i >= 0:
		r.receivers = slices.Delete(r.receivers, i, i+1)
	case report.Owner == "":
		return
	}
	if report.Unreached != "" {
		r.unreached = append(r.unreached, printable(report.Unreached))
	}
	r.answers++
	if report.Owner != "" && !slices.Contains(r.owners, report.Owner) {
		r.owners = append(r.owners, report.Owner)
	}
	for _, c := range report.Counts {
		r.count(printable(c.Name), c.Value)
	}
	r.tell("")
}

// ended lists the peers whose answers have ended.
func (r *replay) ended() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.owners)
}

// count adds to a count. The caller holds the lock.
func (r *replay) count(name string, n uint64) {
	for i := range r.counts {
		if r.counts[i].Name == name {
			r.counts[i].Value += n
			return
		}
	}
	if len(r.counts) < maxCounts {
		r.counts = append(r.counts, control.Count{Name: name, Value: n})
	}
}

// tell wakes whoever awaits the replay; why says what broke it off, if
// something did.
func (r *replay) tell(why string) {
	for {
		select {
		case r.broken <- why:
			return
		case pending := <-r.broken: // keep the worse news
			if why == "" {
				why = pending
			}
		}
	}
}

// edge returns the number of the edge that the replay is for, or 0 for all. A
// reload may change it.
func (r *replay) edge() uint16 {
	if r.into == nil {
		return 0
	}
	return r.into.edgeNumber()
}

// claims returns flow.SyncClaim if all that a replay of s names is this node's
// own: to peers while it carries the flows, and from cache to cache where peers'
// flows are written through, since foreign ones are left out.
func (s *stage) claims(r *replay) flow.SyncFlags {
	if r.flags&(flow.SyncKeep|flow.SyncCommit) != 0 {
		return 0
	}
	through := s.runner.writeThrough()
	for _, to := range s.receivers(r.into) {
		if through && isCache(s) && isCache(to) || !through && sendsToPeers(to) && s.runner.role.carries() {
			return flow.SyncClaim
		}
	}
	return 0
}

// tracked says whether all who get a replay of s notice what they miss: stages of
// this node do, and peers that mark their own replays. Of conntrackd nobody
// learns what it lost, and who has not been heard may be one.
func (s *stage) tracked(into *stage) bool {
	for _, to := range s.receivers(into) {
		if sendsToPeers(to) && !s.runner.hearsMarks(to.conf().Traits.GetLink()) {
			return false
		}
	}
	return true
}

// hearsMarks says whether somebody is heard on a link and all who are mark their
// replays.
func (r *Runner) hearsMarks(link string) bool {
	var peers []*stagepb.Peer
	for _, s := range r.graph().stages {
		if hearsPeers(s) && s.conf().Traits.GetLink() == link {
			peers = append(peers, s.peers()...)
		}
	}
	return allMark(peers)
}

func allMark(peers []*stagepb.Peer) (marks bool) {
	for _, p := range peers {
		if p.Up && !p.Marks {
			return false
		}
		marks = marks || p.Up
	}
	return marks
}

// receivers returns the stages that a replay of s ends in: the next cache below,
// or the sinks, or the one sink that it is for.
func (s *stage) receivers(into *stage) (found []*stage) {
	for _, b := range s.below() {
		switch {
		case into != nil && b.conf().Kind == plugin.KindSink && b != into:
		case b.conf().Kind == plugin.KindFilter:
			found = append(found, b.receivers(into)...)
		default:
			found = append(found, b)
		}
	}
	return found
}

// replayerAbove returns the nearest cache or source above s.
func (s *stage) replayerAbove() *stage {
	for a := s.above(); a != nil; a = a.above() {
		if a.replays != nil {
			return a
		}
	}
	return nil
}

// passes says whether what s replays passes through t.
func (s *stage) passes(t *stage) bool {
	for a := t; a != nil; a = a.above() {
		if a == s {
			return true
		}
		if a != t && a.replays != nil {
			return false
		}
	}
	return false
}
