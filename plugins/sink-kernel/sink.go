package sinkkernel

import (
	"context"
	"fmt"
	"math/bits"
	"sync"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/ctnl"
)

// unknownTimeout is the timeout, in seconds, of a flow whose sender did not
// tell it: what is usual for conntrackd in this case.
const unknownTimeout = 60

// sink is the stage.
type sink struct {
	config Config
	host   plugin.Host
	start  plugin.Start
	writer *ctnl.Writer
	event  flow.Event
	replay *replay // that has begun and not ended
	logged uint64  // failures, for the log to keep quiet

	mu    sync.Mutex // guards total, which Statistics reads
	total ctnl.Counts
	ended struct{ commits, replays, incomplete uint64 }
}

// A replay is one that has begun to arrive.
type replay struct {
	id           uint64
	generation   uint32 // of the stage above
	flags        flow.SyncFlags
	records      uint64
	expectations uint64 // of the records
	counts       ctnl.Counts
}

// is says whether a batch belongs to the replay. Its id alone tells: the records
// of a cache's replay have the owners of their flows, its marks have none.
func (r *replay) is(b *flow.Batch) bool { return r != nil && r.id == b.Replay }

// Open binds the port id by which everybody tells the events that this node
// causes itself.
func (s *sink) Open(_ context.Context, host plugin.Host) error {
	s.host, s.start = host, host.Start()
	w, err := ctnl.OpenWriter(ctnl.WriterConfig{
		Port: s.start.PortID, WindowTracking: s.config.TCPWindowTracking,
	})
	s.writer = w
	if err == nil && s.start.WriteThrough && !s.start.OneShot && !s.config.TCPWindowTracking {
		s.beLiberal()
	}
	return err
}

// beLiberal lets connections change sides. Flows that are injected are marked
// one by one, but those that this node's own packets made can't be: no event
// tells when their packets begin to pass the peer.
func (s *sink) beLiberal() {
	before, err := ctnl.BeLiberal()
	switch {
	case err != nil:
		s.host.Logger().Warn("TCP connections that come back from the peer will be dropped as invalid: "+
			"set net.netfilter.nf_conntrack_tcp_be_liberal to 1", "error", err)
	case before != "1":
		s.host.Logger().Info("set nf_conntrack_tcp_be_liberal to 1, so that connections may pass either node", "was", before)
	}
}

// Close closes the socket. All requests were carried out: see Write.
func (s *sink) Close() error { return s.writer.Close() }

// Write carries out a batch. Nothing of it is pending when Write returns, but
// for related flows of a replay that wait for their masters until its end.
func (s *sink) Write(b *flow.Batch) error {
	for c := b.Cursor(); c.Next(&s.event); {
		if err := s.take(b, &s.event); err != nil {
			return err
		}
	}
	finish := s.writer.Finish
	// The end of a replay never comes if its sender was started again meanwhile.
	if s.replay != nil && s.replay.generation == b.Generation {
		finish = s.writer.Flush
	}
	if err := finish(); err != nil {
		return err
	}
	if s.replay.is(b) {
		s.count(s.replay)
	} else {
		s.count(nil)
	}
	return nil
}

func (s *sink) take(b *flow.Batch, e *flow.Event) error {
	switch e.Kind {
	case flow.SyncBegin:
		return s.begin(b, e)
	case flow.SyncEnd:
		return s.end(b, e)
	}
	if b.Replay != 0 && s.replay.is(b) {
		s.replay.records++
		if e.IsExpectation() {
			s.replay.expectations++
		}
	}
	if e.IsExpectation() {
		return s.takeExpectation(b, e)
	}
	switch {
	case s.start.OneShot:
		return s.purge(e)
	case e.Kind == flow.Destroy:
		return s.writer.Shorten(&e.Flow, seconds(s.config.DestroyGrace))
	}
	s.setTimeout(&e.Flow)
	if s.replay.is(b) && s.replay.flags&flow.SyncCommit != 0 {
		return s.writer.Commit(&e.Flow)
	}
	return s.writer.Inject(&e.Flow, e.Kind == flow.New)
}

// takeExpectation is take for an expectation. Its timeout is the one that it had
// at the peer: helpers ask for theirs, and no traffic refreshes it.
func (s *sink) takeExpectation(b *flow.Batch, e *flow.Event) error {
	switch {
	case s.start.OneShot && e.Kind == flow.Unexpect:
		return nil
	case s.start.OneShot: // with its id, as purge
		return s.writer.DeleteExpectation(&e.Flow)
	case e.Kind == flow.Unexpect:
		e.Present &^= flow.HasID // the peer's
		return s.writer.DeleteExpectation(&e.Flow)
	case s.replay.is(b) && s.replay.flags&flow.SyncCommit != 0:
		return s.writer.CommitExpectation(&e.Flow)
	}
	return s.writer.InjectExpectation(&e.Flow)
}

// purge deletes a flow that this node's own source dumped: its id makes sure
// that no later flow with the same tuple goes with it.
func (s *sink) purge(e *flow.Event) error {
	if e.Kind == flow.Destroy {
		return nil
	}
	return s.writer.Delete(&e.Flow)
}

// setTimeout chooses how long a flow lives that no packet refreshes. After a
// commit, that holds for the changes that follow too.
func (s *sink) setTimeout(f *flow.Flow) {
	switch {
	case s.config.CommitTimeout > 0 && (!s.start.WriteThrough || !f.Has(flow.HasTimeout)):
		f.Timeout = seconds(s.config.CommitTimeout)
	case !f.Has(flow.HasTimeout):
		f.Timeout = unknownTimeout
	}
	f.Present |= flow.HasTimeout
}

// begin begins a replay, and cancels the one before.
func (s *sink) begin(b *flow.Batch, e *flow.Event) error {
	if err := s.writer.Finish(); err != nil {
		return err
	}
	s.count(s.replay)
	s.replay = &replay{id: b.Replay, generation: b.Generation, flags: e.Sync.Flags}
	return nil
}

// end waits for all of a replay and reports it.
func (s *sink) end(b *flow.Batch, e *flow.Event) error {
	if err := s.writer.Finish(); err != nil {
		return err
	}
	r := s.replay
	if !r.is(b) {
		r = &replay{id: b.Replay}
	}
	s.count(r)
	report := plugin.Report{Replay: b.Replay, Owner: b.Owner, Counts: reportCounts(r)}
	if r.records != e.Sync.Count {
		report.Failed = fmt.Sprintf("%d of %d records arrived", r.records, e.Sync.Count)
	}
	s.replay = nil
	s.mu.Lock()
	s.ended.replays++
	if r.flags&flow.SyncCommit != 0 {
		s.ended.commits++
	}
	if report.Failed != "" {
		s.ended.incomplete++
	}
	s.mu.Unlock()
	for _, f := range r.counts.Failures {
		_, several := subject(&f)
		s.host.Logger().Warn("the kernel refused "+several, "error", f.Reason(), "count", f.Count, "first", f.Sample)
	}
	s.host.Done(report)
	return nil
}

// subject names what failed.
func subject(f *ctnl.Failure) (one, several string) {
	if f.Expectation {
		return "an expectation", "expectations"
	}
	return "a flow", "flows"
}

func reportCounts(r *replay) []plugin.Count {
	c, x := &r.counts, &r.counts.Expectations
	counts := []plugin.Count{{Name: "flows", Value: r.records - r.expectations}}
	for _, one := range []plugin.Count{
		{Name: "created", Value: c.Created}, {Name: "updated", Value: c.Updated}, {Name: "replaced", Value: c.Replaced},
		{Name: "deleted", Value: c.Deleted}, {Name: "gone", Value: c.Missing}, {Name: "failed", Value: c.Failed()},
		{Name: "without_helper", Value: c.WithoutHelper}, {Name: "without_labels", Value: c.WithoutLabels},
		{Name: "without_master", Value: c.WithoutMaster}, {Name: "expectations", Value: r.expectations},
		{Name: "expectations_created", Value: x.Created + x.Replaced}, {Name: "expectations_updated", Value: x.Updated},
		{Name: "expectations_deleted", Value: x.Deleted}, {Name: "expectations_gone", Value: x.Missing},
		{Name: "expectations_failed", Value: c.FailedExpectations()},
	} {
		if one.Value > 0 {
			counts = append(counts, one)
		}
	}
	return counts
}

// count takes over what the writer counted since the last time, which a batch
// of the replay r caused, or a live one (nil).
func (s *sink) count(r *replay) {
	c := s.writer.Counts(true)
	if r != nil {
		r.counts.Add(c)
	} else {
		s.logFailures(c)
	}
	s.mu.Lock()
	s.total.Add(c)
	s.mu.Unlock()
}

// logFailures logs the failures of live flows, ever more rarely: at each power
// of two of their number.
func (s *sink) logFailures(c ctnl.Counts) {
	for _, f := range c.Failures {
		before := s.logged
		s.logged += f.Count
		if bits.Len64(before) != bits.Len64(s.logged) {
			one, _ := subject(&f)
			s.host.Logger().Warn("the kernel refused "+one, "error", f.Reason(), "sample", f.Sample, "refused", s.logged)
		}
	}
}

// Statistics implements plugin.Meter.
func (s *sink) Statistics() []plugin.Statistic {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := &s.total
	list := []plugin.Statistic{
		{Name: "created", Help: "entries created in the kernel", Value: t.Created},
		{Name: "updated", Help: "entries changed", Value: t.Updated},
		{Name: "replaced", Help: "entries deleted and created again, with another translation", Value: t.Replaced},
		{Name: "deleted", Help: "entries deleted", Value: t.Deleted},
		{Name: "shortened", Help: "entries whose flow ended at its peer", Value: t.Shortened},
		{Name: "gone", Help: "entries to delete or shorten that were not there", Value: t.Missing},
		{Name: "without_helper", Help: "flows whose helper the kernel does not have", Value: t.WithoutHelper},
		{Name: "without_labels", Help: "flows whose labels no rule of the kernel uses", Value: t.WithoutLabels},
		{Name: "without_master", Help: "related flows whose master was not there", Value: t.WithoutMaster},
		{Name: "failed", Help: "flows that the kernel refused", Type: plugin.Loss, Value: t.Failed()},
		{Name: "expectations_created", Help: "expectations created in the kernel", Value: t.Expectations.Created + t.Expectations.Replaced},
		{Name: "expectations_updated", Help: "expectations that were there, and got the peer's timeout", Value: t.Expectations.Updated},
		{Name: "expectations_deleted", Help: "expectations deleted", Value: t.Expectations.Deleted},
		{Name: "expectations_gone", Help: "expectations to delete that were not there", Value: t.Expectations.Missing},
		{Name: "expectations_failed", Help: "expectations that the kernel refused", Type: plugin.Loss, Value: t.FailedExpectations()},
		{Name: "commits", Help: "commits carried out", Value: s.ended.commits},
		{Name: "replays", Help: "replays that arrived, commits included", Value: s.ended.replays},
		{Name: "replays_incomplete", Help: "replays of which records were lost", Type: plugin.Loss, Value: s.ended.incomplete},
	}
	return list
}
