package runner

import (
	"fmt"
	"strings"
)

// A plugin that misbehaves is named where the administrator looks, which is not
// always where it shows: batches that make no sense are counted by the stage that
// refuses them, and a flood by the one that has to take it.

// suspect is how many events more than it was given a filter may seem to have
// sent: the numbers are of two processes and two moments.
const suspect = 100_000

// belowTotals sums what the stages right below a stage counted since they are
// there.
func (p *place) belowTotals() (t totals) {
	for _, b := range p.below {
		b.mu.Lock()
		one := b.past
		one.add(b.statistics)
		b.mu.Unlock()
		t.in, t.malformed = max(t.in, one.in), t.malformed+one.malformed
	}
	t.in, t.malformed = t.in-min(t.in, p.before.below.in), t.malformed-min(t.malformed, p.before.below.malformed)
	return t
}

// before is what a stage and those right below it had counted when they were put
// together.
type before struct {
	in    uint64
	below totals
}

// countBefore notes what has been counted so far. The place is the stage's already, and
// not in use yet.
func (s *stage) countBefore(at *place) {
	below := at.belowTotals()
	s.mu.Lock()
	defer s.mu.Unlock()
	at.before = before{s.past.in, below}
	if s.statistics != nil {
		at.before.in += s.statistics.EventsIn
	}
}

// withRemarks adds what the runner has to say of a stage to what it says itself.
// The caller holds the lock.
func (s *stage) withRemarks(note string, in uint64, below totals) string {
	var remarks []string
	if note != "" {
		remarks = append(remarks, note)
	}
	lost := s.pastLines
	if s.proc != nil {
		lost += s.proc.stderr.droppedLines()
	}
	if lost > 0 {
		remarks = append(remarks, fmt.Sprintf("floods its log: %d lines were dropped", lost))
	}
	if below.malformed > 0 {
		remarks = append(remarks, fmt.Sprintf("sends what is no batch: %d were refused", below.malformed))
	}
	in -= min(in, s.at().before.in)
	if s.input() != nil && below.in > 2*in+suspect {
		remarks = append(remarks, fmt.Sprintf("sends more than it is given: %d events for %d", below.in, in))
	}
	return strings.Join(remarks, "; ")
}
