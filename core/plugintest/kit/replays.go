package kit

import (
	"errors"
	"fmt"

	"github.com/sluice-project/sluice/core/flow"
)

// The checks of replays.

// replayID is the id of replays that the kit makes up.
const replayID = 4711

// marksOf returns the marks among events, and how many others there are between.
func marksOf(events []flow.Event) (marks []flow.Event, between uint64) {
	for _, e := range events {
		switch {
		case e.IsMark():
			marks = append(marks, e)
		case len(marks) == 1:
			between++
		}
	}
	return marks, between
}

// passMarks feeds a filter a replay in several batches, with live batches between
// them.
func (s *session) passMarks() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	replay := Pack(flow.Header{Replay: replayID, Edge: 1}, 40, Replayed(flow.SyncClaim, Events(0, 200, flow.Update)...)...)
	for i, p := range replay {
		live := Pack(flow.Header{}, 0, Events(uint32(1000+i), 1, flow.Update)...)
		if err := stage.Feed(p, live[0]); err != nil {
			return err
		}
	}
	out, err := stage.Drain()
	if err != nil {
		return err
	}
	var replayed []flow.Event
	for _, p := range out {
		if p.Err != nil {
			return p.Err
		}
		marks, _ := marksOf(p.Events)
		switch {
		case p.Header.Replay == replayID && p.Header.Edge == 1:
			replayed = append(replayed, p.Events...)
		case p.Header.Replay == replayID:
			return fmt.Errorf("batches of a replay came with edge 1 and went with edge %d: a filter keeps the header", p.Header.Edge)
		case len(marks) > 0:
			return errors.New("marks came out of a replay and went in a live batch")
		}
	}
	return checkReplay(replayed, flow.SyncClaim)
}

// checkReplay checks the marks around the records of a replay.
func checkReplay(events []flow.Event, flags flow.SyncFlags) error {
	marks, between := marksOf(events)
	if len(marks) != 2 || marks[0].Kind != flow.SyncBegin || marks[1].Kind != flow.SyncEnd {
		return fmt.Errorf("of the two marks of a replay %d came out", len(marks))
	}
	if !events[0].IsMark() || !events[len(events)-1].IsMark() {
		return errors.New("records of the replay stand outside its marks")
	}
	if marks[0].Sync.Flags != flags || marks[1].Sync.Flags != flags {
		return fmt.Errorf("the marks have the flags %d and %d, not %d", marks[0].Sync.Flags, marks[1].Sync.Flags, flags)
	}
	if marks[1].Sync.Count != between {
		return fmt.Errorf("the end mark counts %d records, and %d stand between the marks: the next cache takes that for loss", marks[1].Sync.Count, between)
	}
	return nil
}

// sweep tells a cache of flows, then replays half of them into it.
func (s *session) sweep() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	const flows, kept = 100, 50
	if err := stage.FeedEvents(Events(0, flows, flow.New)...); err != nil {
		return err
	}
	replay := Replayed(0, Events(0, kept, flow.Update)...)
	if err := stage.Feed(Pack(flow.Header{Replay: replayID}, 30, replay...)...); err != nil {
		return err
	}
	report, err := stage.AwaitDone(replayID)
	if err != nil {
		return err
	}
	if report.Failed != "" {
		return fmt.Errorf("it reports that the replay failed: %s", report.Failed)
	}
	for _, p := range stage.Packets(0) {
		if marks, _ := marksOf(p.Events); len(marks) > 0 {
			return fmt.Errorf("it passed on %s of a replay: a cache consumes marks", name(&marks[0]))
		}
	}
	held, err := s.held(stage)
	if err != nil {
		return err
	}
	for i := range held {
		if number(&held[i]) >= kept {
			return fmt.Errorf("it still holds %s, which a whole replay did not name", name(&held[i]))
		}
	}
	if len(held) != kept {
		return fmt.Errorf("after a replay of %d flows it holds %d", kept, len(held))
	}
	return s.swept(stage, flows-kept)
}

// swept checks that the ends of flows that were swept were passed on.
func (s *session) swept(stage *Stage, want int) error {
	events, err := EventsOf(stage.Packets(0))
	if err != nil {
		return err
	}
	destroyed := 0
	for _, e := range events {
		if e.Kind == flow.Destroy {
			destroyed++
		}
	}
	if s.traits.Hold {
		want = 0
	}
	if destroyed != want {
		return fmt.Errorf("%d DESTROYs came out of the sweep, not %d", destroyed, want)
	}
	return nil
}

// number is that of an event that the kit made.
func number(e *flow.Event) uint32 { return e.ID - 1 }

// held returns what a cache holds, by having it replay.
func (s *session) held(stage *Stage) (events []flow.Event, err error) {
	var flags flow.SyncFlags
	if s.traits.Hold {
		flags = flow.SyncCommit
	}
	packets, err := stage.Order(replayID+1, flags)
	if err != nil {
		return nil, err
	}
	all, err := EventsOf(packets)
	if err != nil {
		return nil, err
	}
	if err := checkReplay(all, flags); err != nil {
		return nil, err
	}
	return all[1 : len(all)-1], nil
}

func (s *session) replay() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	const flows, ended = 300, 100
	events := append(Events(0, flows, flow.New), Events(0, ended, flow.Destroy)...)
	if err := stage.FeedEvents(events...); err != nil {
		return err
	}
	if err := stage.AwaitRead(); err != nil {
		return err
	}
	held, err := s.held(stage)
	if err != nil {
		return err
	}
	seen := map[uint32]bool{}
	for i := range held {
		e := &held[i]
		switch {
		case e.Kind != flow.Update:
			return fmt.Errorf("its replay has a record of kind %v: records of replays are updates", e.Kind)
		case number(e) < ended:
			return fmt.Errorf("its replay names %s, which has ended", name(e))
		case seen[number(e)]:
			return fmt.Errorf("its replay names %s twice", name(e))
		case !e.Tail.Has(UnknownAttribute):
			return fmt.Errorf("it lost the attribute %d, which it does not know, of %s", UnknownAttribute, name(e))
		}
		seen[number(e)] = true
	}
	if len(seen) != flows-ended {
		return fmt.Errorf("it was told of %d flows that live and replays %d", flows-ended, len(seen))
	}
	return nil
}

func (s *session) hold() error {
	if !s.traits.Hold {
		return skip("it does not hold")
	}
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	if err := stage.FeedEvents(Events(0, 100, flow.New)...); err != nil {
		return err
	}
	out, err := stage.Drain()
	if err == nil && len(out) > 0 {
		return errors.New("it sent something though nobody committed")
	}
	return err
}

func (s *session) report() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	replay := Replayed(0, Events(0, 100, flow.Update)...)
	if err := stage.Feed(Pack(flow.Header{Replay: replayID}, 30, replay...)...); err != nil {
		return err
	}
	_, err = stage.AwaitDone(replayID)
	return err
}

func (s *session) source() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	if s.traits.Link == "" {
		packets, err := stage.Order(replayID, flow.SyncClaim)
		if err != nil {
			return err
		}
		all, err := EventsOf(packets)
		if err != nil {
			return err
		}
		if err := checkReplay(all, flow.SyncClaim); err != nil {
			return err
		}
	}
	out, err := stage.Drain()
	if err != nil {
		return err
	}
	_, err = EventsOf(out)
	return err
}
