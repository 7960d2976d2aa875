package ctnl

import (
	"cmp"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// Counts says what became of a Writer's requests, each of which is in exactly
// one of the first six, in Expectations or in Failures.
type Counts struct {
	Created, Updated, Replaced, Deleted, Shortened uint64
	Missing                                        uint64 // to delete or shorten, but not there

	// Of the created and updated, those that lack something.
	WithoutHelper, WithoutLabels, WithoutMaster uint64

	Expectations ExpectationCounts
	Failures     []Failure
}

// ExpectationCounts are the Counts of requests about expectations.
type ExpectationCounts struct {
	Created, Updated, Replaced, Deleted uint64
	Missing                             uint64 // to delete, but not there
}

// A Failure is what the kernel refused for one reason.
type Failure struct {
	Expectation bool // what was refused: expectations, or flows
	Errno       unix.Errno
	Count       uint64
	Sample      string // the first that it befell, for the log
}

// errKeptChanging is the Errno of a request that did not come to an end, though
// no answer was final. The kernel itself never answers it.
const errKeptChanging = unix.ELOOP

// Reason explains the failure to an administrator.
func (f *Failure) Reason() string {
	switch {
	case f.Errno == errKeptChanging:
		return "what is in its way changed with each attempt"
	case !f.Expectation:
		return f.Errno.Error()
	}
	switch f.Errno {
	case unix.ENOENT:
		return "the flow whose helper expects it is not there"
	case unix.EOPNOTSUPP:
		return "the flow that expects it has no helper here"
	case unix.EINVAL:
		return "the helper has no such class here, or the kernel no such function"
	case unix.EEXIST, unix.EBUSY, unix.EALREADY:
		return "another flow expects the same"
	case unix.EMFILE:
		return "there are too many: nf_conntrack_expect_max, or what the helper allows"
	}
	return f.Errno.Error()
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
	x, y := &c.Expectations, &other.Expectations
	x.Created += y.Created
	x.Updated += y.Updated
	x.Replaced += y.Replaced
	x.Deleted += y.Deleted
	x.Missing += y.Missing
	for _, f := range other.Failures {
		c.addFailure(f)
	}
}

func (c *Counts) addFailure(f Failure) {
	for i := range c.Failures {
		if old := &c.Failures[i]; old.Errno == f.Errno && old.Expectation == f.Expectation {
			old.Count += f.Count
			return
		}
	}
	c.Failures = append(c.Failures, f)
}

// Failed returns how many requests about flows failed.
func (c *Counts) Failed() uint64 { return c.failed(false) }

// FailedExpectations returns how many requests about expectations failed.
func (c *Counts) FailedExpectations() uint64 { return c.failed(true) }

func (c *Counts) failed(expectation bool) (n uint64) {
	for _, f := range c.Failures {
		if f.Expectation == expectation {
			n += f.Count
		}
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
		if f := &w.counts.Failures[i]; f.Errno == r.errno && f.Expectation == r.op.isExpectation() {
			f.Count++
			return true
		}
	}
	e := flow.Event{Kind: flow.Expect, Flow: r.flow}
	sample := e.Flow.String()
	if r.op.isExpectation() {
		sample = e.String()
	}
	w.counts.addFailure(Failure{r.op.isExpectation(), r.errno, 1, sample})
	return true
}
