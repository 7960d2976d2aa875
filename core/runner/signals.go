package runner

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// plain takes gRPC's words off an error that a stage returned.
func plain(err error) error {
	if s, ok := status.FromError(err); ok {
		return errors.New(printable(s.Message()))
	}
	return err
}

// signalBook counts signals, for status.
type signalBook struct {
	mu    sync.Mutex
	count map[signalKey]*control.SignalStatus
}

type signalKey struct{ stage, name string }

func (b *signalBook) add(s *stage, signal *stagepb.Signal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count == nil {
		b.count = map[signalKey]*control.SignalStatus{}
	}
	key := signalKey{s.address, signal.Name}
	entry := b.count[key]
	if entry == nil {
		entry = &control.SignalStatus{Stage: s.address, Name: signal.Name}
		b.count[key] = entry
	}
	entry.Times += max(1, signal.Times)
	entry.Last, entry.Detail = time.Now(), printable(signal.Detail)
}

// forget drops the counts of a stage that is gone.
func (b *signalBook) forget(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	maps.DeleteFunc(b.count, func(key signalKey, _ *control.SignalStatus) bool { return key.stage == address })
}

func (b *signalBook) list() []control.SignalStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := []control.SignalStatus{}
	for _, entry := range b.count {
		list = append(list, *entry)
	}
	slices.SortFunc(list, func(x, y control.SignalStatus) int { return y.Last.Compare(x.Last) })
	return list
}

// signalled acts on a stage's signal. It never waits.
func (r *Runner) signalled(s *stage, signal *stagepb.Signal) {
	if signal.Done != nil {
		r.replayReported(s, signal.Done)
		return
	}
	name := plugin.Signal(signal.Name)
	level, known := signalLevels[name]
	if !known {
		if s.signalLog.Allow() {
			r.log.Warn("unknown signal ignored", "stage", s.address, "signal", printable(signal.Name))
		}
		return
	}
	r.signals.add(s, signal)
	if s.signalLog.Allow() {
		r.log.Log(context.Background(), level, "signal", "stage", s.address, "signal", name, "times", signal.Times,
			"detail", printable(signal.Detail))
	}
	switch name {
	case plugin.SignalOverrun, plugin.SignalPoll:
		r.replayFrom(s, nil, string(name))
	case plugin.SignalEdgeFull, plugin.SignalLinkUp:
		into, known := s.sinkAt(signal.Edge)
		if !known {
			return // there is no such edge, or no more
		}
		if s == into {
			r.askOwed(s)
		}
		if s != into && into != nil { // what was replayed into it is lost as well
			r.breakReplays(into, "the edge to "+into.address+" was full")
		}
		r.replayFrom(s, into, string(name))
	case plugin.SignalGap:
		r.breakReplays(s, "records were lost on the way to "+s.address)
		if s.conf().Kind == plugin.KindCache { // what it holds is fine; what it got is not
			r.replayFrom(s.replayerAbove(), nil, string(name))
		} else {
			r.replayFrom(s, s.itselfIfSink(), string(name))
		}
	case plugin.SignalResync:
		r.answerPeer(s)
	}
}

// sinkAt returns the sink at the end of a numbered edge of s, or s itself if it is
// one; nil if the signal is about all that is below.
func (s *stage) sinkAt(edge uint32) (into *stage, known bool) {
	below := s.below()
	switch {
	case s.itselfIfSink() != nil:
		return s, true
	case edge == 0:
		return nil, true
	case len(below) < 2 || int(edge) > len(below):
		return nil, false
	}
	return below[edge-1], true
}

func (s *stage) itselfIfSink() *stage {
	if s.conf().Kind == plugin.KindSink {
		return s
	}
	return nil
}

// signalLevels says how bad a signal is: a warning means that something was
// lost or is missing.
var signalLevels = map[plugin.Signal]slog.Level{
	plugin.SignalOverrun: slog.LevelWarn, plugin.SignalEdgeFull: slog.LevelWarn, plugin.SignalGap: slog.LevelWarn,
	plugin.SignalFull: slog.LevelWarn, plugin.SignalPeerDown: slog.LevelWarn, plugin.SignalLinkDown: slog.LevelWarn,
	plugin.SignalResync: slog.LevelInfo, plugin.SignalPeerUp: slog.LevelInfo, plugin.SignalLinkUp: slog.LevelInfo,
	plugin.SignalPoll: slog.LevelDebug,
}

// replayFrom has s replay, into one sink if it is named, or the nearest stage above it that can.
func (r *Runner) replayFrom(s, into *stage, reason string) {
	if s != nil && s.replays == nil {
		s = s.replayerAbove()
	}
	if s != nil {
		s.replays.request(into, 0, reason, true)
	}
}

// answerPeer sends everything to the peers of a link, since one asked for it.
func (r *Runner) answerPeer(source *stage) {
	for _, sink := range r.sinksOn(source.conf().Traits.GetLink()) {
		r.replayFrom(sink, sink, string(plugin.SignalResync))
	}
}

// replayReported hands a report to the replay that it is about. A peer's own
// replay is an answer to the source's request, if there is one.
func (r *Runner) replayReported(from *stage, report *stagepb.Report) {
	if report.Owner != "" {
		if above := from.replayerAbove(); above != nil && above.replays.byLink() {
			if current := above.replays.running()[0]; current != nil {
				current.report(from, report)
			}
		}
		return
	}
	for _, s := range r.graph().stages {
		if s.replays == nil || !s.passes(from) {
			continue
		}
		for _, one := range s.replays.running() {
			if one != nil && one.isID(report.Replay) {
				one.report(from, report)
			}
		}
	}
}

// running returns the current replay and the barrier; either may be nil.
func (p *replayer) running() [2]*replay {
	p.mu.Lock()
	defer p.mu.Unlock()
	return [2]*replay{p.current, p.barrier}
}

func (r *replay) isID(id uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.id == id
}

// breakReplays breaks off the replays that reach or pass s from above; they are
// tried again. (Those of s itself end with its process: see died.)
func (r *Runner) breakReplays(s *stage, why string) {
	for _, from := range r.graph().stages {
		if from.replays != nil && from != s && from.passes(s) {
			from.replays.breakOff(why)
		}
	}
}
