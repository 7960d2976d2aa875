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

// belowTotals sums what the stages right below a stage counted since the runner
// began.
func (s *stage) belowTotals() (t totals) {
	for _, b := range s.below {
		b.mu.Lock()
		one := b.past
		one.add(b.statistics)
		b.mu.Unlock()
		t.in, t.malformed = max(t.in, one.in), t.malformed+one.malformed
	}
	return t
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
	if s.input != nil && below.in > 2*in+suspect {
		remarks = append(remarks, fmt.Sprintf("sends more than it is given: %d events for %d", below.in, in))
	}
	return strings.Join(remarks, "; ")
}
