package ctnl

import (
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// advanceExpectation is advance for a request about an expectation.
func (w *Writer) advanceExpectation(r *request) (done bool) {
	c := &w.counts.Expectations
	switch {
	case r.step == stepExpect:
		return w.afterExpect(r)
	case r.step == stepGetExpected:
		return w.afterGetExpected(r)
	case r.errno != 0 && r.errno != unix.ENOENT:
		return w.fail(r)
	case r.step == stepUnexpectHolder:
		r.replaced, r.step = true, stepExpect
		return false
	case r.step == stepExpectTimeout: // gone by now: it was met
		w.countExpected(r)
	case r.errno == unix.ENOENT:
		c.Missing++
	default:
		c.Deleted++
	}
	return true
}

func (w *Writer) afterExpect(r *request) (done bool) {
	switch r.errno {
	case 0:
		if r.flow.Has(flow.HasTimeout) {
			r.step = stepExpectTimeout
			return false
		}
		w.countExpected(r)
		return true
	case unix.EEXIST:
		r.step = stepGetExpected
		return false
	case unix.ENOENT: // the master is not there
		if !r.lastTry && len(w.orphans) < maxOrphans {
			return w.adopt(r)
		}
	}
	return w.fail(r)
}

func (w *Writer) afterGetExpected(r *request) (done bool) {
	switch same := r.foundExpectation == r.flow.ExpectationKey(); {
	case !r.hasFound && r.errno != 0 && r.errno != unix.ENOENT:
		return w.fail(r)
	case !r.hasFound: // met meanwhile, or timed out
		r.step = stepExpect
	case same && !r.flow.Has(flow.HasTimeout):
		r.updated = true
		w.countExpected(r)
		return true
	case same:
		r.updated, r.step = true, stepExpectTimeout
	case r.op == commitExpect:
		r.holder, r.step = r.found, stepUnexpectHolder
		r.holder.Zone = r.flow.Zone
	default: // it is of this node's own traffic
		r.errno = unix.EEXIST
		return w.fail(r)
	}
	return false
}

func (w *Writer) countExpected(r *request) {
	switch c := &w.counts.Expectations; {
	case r.updated:
		c.Updated++
	case r.replaced:
		c.Replaced++
	default:
		c.Created++
	}
}
