package ctnl

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"
)

// Counts says what became of a Writer's requests, each of which is in exactly
// one of the first six or in Failures.
type Counts struct {
	Created, Updated, Replaced, Deleted, Shortened uint64
	Missing                                        uint64 // to delete or shorten, but not there

	// Of the created and updated, those that lack something.
	WithoutHelper, WithoutLabels, WithoutMaster uint64

	Failures []Failure
}

// A Failure is what the kernel refused for one reason.
type Failure struct {
	Errno  unix.Errno
	Count  uint64
	Sample string // the first flow that it befell, for the log
}

// Add adds other to c.
func (c *Counts) Add(other Counts) {
	c.Created += other.Created
	c.Updated += other.Updated
	c.Replaced += other.Replaced
	c.Deleted += other.Deleted
	c.Shortened += other.Shortened
	c.Missing += other.Missing
	c.WithoutHelper += other.WithoutHelper
	c.WithoutLabels += other.WithoutLabels
	c.WithoutMaster += other.WithoutMaster
	for _, f := range other.Failures {
		c.addFailure(f)
	}
}

func (c *Counts) addFailure(f Failure) {
	for i := range c.Failures {
		if c.Failures[i].Errno == f.Errno {
			c.Failures[i].Count += f.Count
			return
		}
	}
	c.Failures = append(c.Failures, f)
}

// Failed returns how many requests failed.
func (c *Counts) Failed() (n uint64) {
	for _, f := range c.Failures {
		n += f.Count
	}
	return n
}

// Counts returns what became of the requests since the last call that reset.
func (w *Writer) Counts(reset bool) Counts {
	c := w.counts
	c.Failures = slices.Clone(c.Failures)
	slices.SortFunc(c.Failures, func(a, b Failure) int { return cmp.Compare(b.Count, a.Count) })
	if reset {
		w.counts = Counts{}
	}
	return c
}

func (w *Writer) fail(r *request) (done bool) {
	for i := range w.counts.Failures {
		if f := &w.counts.Failures[i]; f.Errno == r.errno {
			f.Count++
			return true
		}
	}
	w.counts.addFailure(Failure{r.errno, 1, r.flow.String()})
	return true
}
