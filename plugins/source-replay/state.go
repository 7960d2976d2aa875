package sourcereplay

import (
	"net/netip"

	"github.com/sluice-project/sluice/core/flow"
)

// A state is what was sent and has not ended, by the peer that it is of, as a
// kernel's table would have it:
//
//  1. NEW replaces, UPDATE merges (flow.Merge) or begins, DESTROY ends a flow,
//     unless it names another id.
//  2. Expect begins or replaces an expectation, Unexpect ends it.
//  3. With limit entries there is no room for another.
type state struct {
	limit, size int
	owners      map[netip.Addr]*table
	full        bool // something was not noted
	old         flow.Event
	tail        []byte
}

// A table is what belongs to one owner.
type table struct {
	flows        map[flow.Key]flow.Record
	expectations map[flow.ExpectationKey]flow.Record
}

func newState(limit int) state { return state{limit: limit, owners: map[netip.Addr]*table{}} }

// maxOwners bounds how many peers there can be in one recording.
const maxOwners = 1024

// note takes an event in, and says whether there was room for it.
func (s *state) note(e *flow.Event, owner netip.Addr) bool {
	t := s.owners[owner]
	if t == nil {
		if len(s.owners) >= maxOwners {
			s.full = true
			return false
		}
		t = &table{map[flow.Key]flow.Record{}, map[flow.ExpectationKey]flow.Record{}}
		s.owners[owner] = t
	}
	switch e.Kind {
	case flow.Expect:
		return note(s, t.expectations, e.ExpectationKey(), flow.AppendRecord(nil, e))
	case flow.Unexpect:
		forget(s, t.expectations, e.ExpectationKey())
		return true
	}
	key := e.Key()
	known := t.flows[key]
	if e.Kind == flow.Destroy {
		if known != nil {
			if known.Event(&s.old); s.old.Has(flow.HasID) && e.Has(flow.HasID) && s.old.ID != e.ID {
				return true
			}
		}
		forget(s, t.flows, key)
		return true
	}
	if e.Kind == flow.New || known == nil {
		s.old = *e
	} else {
		known.Event(&s.old)
		s.tail = s.old.Merge(&e.Flow, s.tail)
	}
	s.old.Kind = flow.Update
	return note(s, t.flows, key, flow.AppendRecord(nil, &s.old))
}

func note[K comparable](s *state, m map[K]flow.Record, key K, r flow.Record) bool {
	if _, known := m[key]; !known {
		if s.size >= s.limit {
			s.full = true
			return false
		}
		s.size++
	}
	m[key] = r
	return true
}

func forget[K comparable](s *state, m map[K]flow.Record, key K) {
	if _, known := m[key]; known {
		delete(m, key)
		s.size--
	}
}
