package kit

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// The checks of what passes.

// dataFlows is how many flows the check data tells of, of three events each.
const dataFlows = 480

// mixedPackets are batches about dataFlows flows, with headers of several kinds,
// and the events in them.
func mixedPackets() (packets [][]byte, events []flow.Event) {
	headers := []flow.Header{
		{Time: 1_700_000_000_000_000_000},
		{Origin: flow.Own},
		{Origin: flow.Peer, Owner: netip.MustParseAddr("192.0.2.1")},
		{Origin: flow.Peer, Owner: netip.MustParseAddr("2001:db8::1")},
	}
	per := uint32(dataFlows / len(headers))
	for i, h := range headers {
		for _, kind := range []flow.Kind{flow.New, flow.Update, flow.Destroy} {
			some := Events(uint32(i)*per, per, kind)
			packets = append(packets, Pack(h, 50, some...)...)
			events = append(events, some...)
		}
	}
	return packets, events
}

// data feeds the stage and looks at all that comes out.
func (s *session) data() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	packets, events := mixedPackets()
	if err := stage.Feed(packets...); err != nil {
		return err
	}
	if err := stage.AwaitRead(); err != nil {
		return err
	}
	out, err := stage.Drain()
	if err != nil {
		return err
	}
	known := map[flow.Key]bool{}
	for i := range events {
		known[events[i].Key()] = true
	}
	for i, p := range out {
		if p.Err != nil {
			return fmt.Errorf("the batch number %d that it sent is none: %w", i+1, p.Err)
		}
		if len(p.Events) == 0 {
			return fmt.Errorf("the batch number %d that it sent is empty", i+1)
		}
		if p.Header.Generation != 1 {
			return fmt.Errorf("its batches say generation %d, and it was started as 1", p.Header.Generation)
		}
		for j := range p.Events {
			e := &p.Events[j]
			if e.IsMark() || !known[e.Key()] {
				return fmt.Errorf("it sent what it was never given: %s", name(e))
			}
			s.events = append(s.events, identityOf(e))
		}
	}
	if plugin.Kind(s.description.Kind) == plugin.KindFilter {
		return sameHeaders(packets, out)
	}
	return nil
}

// sameHeaders checks that a filter's batches have the headers of those that their
// events came in.
func sameHeaders(in [][]byte, out []Packet) error {
	type header struct {
		origin flow.Origin
		owner  netip.Addr
		time   int64
	}
	of := map[identity]header{}
	for _, raw := range in {
		p := decode(raw)
		for i := range p.Events {
			of[identityOf(&p.Events[i])] = header{p.Header.Origin, p.Header.Owner, p.Header.Time}
		}
	}
	for _, p := range out {
		for i := range p.Events {
			want, ok := of[identityOf(&p.Events[i])]
			got := header{p.Header.Origin, p.Header.Owner, p.Header.Time}
			if !ok {
				return fmt.Errorf("it made another kind of event of one about %s", name(&p.Events[i]))
			}
			if got != want {
				return fmt.Errorf("%s came with origin, owner, time %v and went with %v: a filter keeps the header", name(&p.Events[i]), want, got)
			}
		}
	}
	return nil
}

// passed says what of the check data came out; skip if nothing did.
func (s *session) passed() (map[identity]bool, error) {
	if len(s.events) == 0 {
		return nil, skip("nothing of what was fed came out: give a configuration that lets some of the flows pass")
	}
	all := map[identity]bool{}
	for _, id := range s.events {
		all[id] = true
	}
	return all, nil
}

func (s *session) order() error {
	if _, err := s.passed(); err != nil {
		return err
	}
	_, events := mixedPackets()
	at := map[identity]int{}
	for i := range events {
		at[identityOf(&events[i])] = i
	}
	last := -1
	for _, id := range s.events {
		i := at[id]
		if i <= last {
			return fmt.Errorf("%s came out behind %s, or twice", name(&events[i]), name(&events[last]))
		}
		last = i
	}
	return nil
}

func (s *session) destroy() error {
	passed, err := s.passed()
	if err != nil {
		return err
	}
	for id := range passed {
		if id.kind != flow.Destroy && !passed[identity{flow.Destroy, id.key}] {
			return fmt.Errorf("it passed events of a flow and dropped its DESTROY, so who is below keeps the flow for ever: %+v", id.key.Protocol)
		}
	}
	return nil
}

// attributes checks that what nobody knows comes out as it went in.
func (s *session) attributes() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	events := Events(0, dataFlows, flow.New)
	numbers := map[flow.Key]uint32{}
	for i := range events {
		numbers[events[i].Key()] = uint32(i)
	}
	if err := stage.FeedEvents(events...); err != nil {
		return err
	}
	out, err := s.whatPassed(stage)
	if err != nil {
		return err
	}
	if len(out) == 0 {
		return skip("nothing of what was fed came out")
	}
	for i := range out {
		e := &out[i]
		value, ok := e.Tail.Get(UnknownAttribute)
		if !ok {
			return fmt.Errorf("it took the attribute %d, which it does not know, from %s", UnknownAttribute, name(e))
		}
		if !bytes.Equal(value, unknownValue(numbers[e.Key()])) {
			return fmt.Errorf("it changed the attribute %d, which it does not know, of %s", UnknownAttribute, name(e))
		}
	}
	return nil
}

// whatPassed returns what comes out of a stage: of one that holds by a commit, of
// any other by draining it.
func (s *session) whatPassed(stage *Stage) (events []flow.Event, err error) {
	var packets []Packet
	if s.traits.Hold {
		if err := stage.AwaitRead(); err != nil {
			return nil, err
		}
		packets, err = stage.Order(1, flow.SyncCommit)
	} else {
		packets, err = stage.Drain()
	}
	if err != nil {
		return nil, err
	}
	all, err := EventsOf(packets)
	for _, e := range all {
		if !e.IsMark() {
			events = append(events, e)
		}
	}
	return events, err
}

func (s *session) numbers() error {
	stage, err := s.collected()
	if err != nil {
		return err
	}
	defer s.end(stage)
	packets := Pack(flow.Header{}, 40, Events(0, 200, flow.Update)...)
	length := 0
	for _, p := range packets {
		length += len(p)
	}
	if err := stage.Feed(packets...); err != nil {
		return err
	}
	if err := stage.AwaitRead(); err != nil {
		return err
	}
	n, err := stage.Numbers()
	if err != nil {
		return err
	}
	if n.BatchesIn != uint64(len(packets)) || n.EventsIn != 200 || n.BytesIn != uint64(length) {
		return fmt.Errorf("it was sent %d batches, 200 events, %d bytes and counts %d, %d, %d", len(packets), length, n.BatchesIn, n.EventsIn, n.BytesIn)
	}
	for _, own := range n.Own {
		if own.Name == "" || own.Help == "" || own.Type > 2 {
			return fmt.Errorf("its statistic %q has no name, no help or no type", own.Name)
		}
	}
	if plugin.Kind(s.description.Kind) == plugin.KindSink {
		return nil
	}
	stage.End()
	return s.sentAsCounted(stage)
}

// sentAsCounted compares what came out with what the stage said last that it sent.
func (s *session) sentAsCounted(stage *Stage) error {
	n, numbersErr := stage.Numbers()
	out, err := stage.awaitEnd()
	if err != nil {
		return err
	}
	events, err := EventsOf(out)
	if err != nil {
		return err
	}
	if numbersErr != nil {
		return nil // it was gone already
	}
	if plugin.Kind(s.description.Kind) == plugin.KindFilter && n.EventsOut != uint64(len(events)) {
		return fmt.Errorf("%d events came out and it counts %d", len(events), n.EventsOut)
	}
	if n.EventsOut > uint64(len(events)) {
		return errors.New("it counts more events than came out")
	}
	return nil
}
