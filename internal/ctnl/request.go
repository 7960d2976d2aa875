package ctnl

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// A request is one flow, or expectation, on its way into the table. The steps follow from the
// kernel's answers:
//
//	create ──ok──▸ done
//	  │ EEXIST                        ┌─ same tuples ─▸ update ─▸ done
//	  ├────────▸ get ──found──────────┤
//	  │           │ ENOENT            └─ others ─▸ delete ─▸ create
//	  │           ▾                                  ▴
//	  │         getReply ──found: holds f's reply ───┘
//	  │ EOPNOTSUPP ─▸ create without the helper
//	  │ ENOENT ─▸ waits for its master until Finish
//	  └ other ─▸ failed
//
// An expectation takes fewer:
//
//	expect ──ok──▸ setTimeout ─▸ done
//	  │ EEXIST ─▸ getExpected ─┬─ the same ─▸ setTimeout ─▸ done
//	  │                        └─ another ─▸ unexpect it ─▸ expect
//	  │ ENOENT ─▸ waits for its master until Finish
//	  └ other ─▸ failed
type request struct {
	op   operation
	step step
	flow flow.Flow
	tail []byte // flow.Tail's memory

	timeout uint32 // of shorten
	omit    Omit
	rounds  int
	lastTry bool // an orphan: now without its master, if need be

	replaced bool       // an entry was deleted for this flow
	updated  bool       // the expectation was there
	holder   flow.Flow  // the entry to delete or update, without its tail
	errno    unix.Errno // the last answer; 0 is success
	found    flow.Flow  // the answer to a get, without its tail
	hasFound bool

	foundTags        [8]byte // SCTP, as in the tail; zero: not known
	foundExpectation flow.ExpectationKey
}

type step uint8

const (
	stepCreate step = iota
	stepGet
	stepGetReply
	stepDelete // the holder
	stepUpdate
	stepShorten
	stepRemove // the flow itself

	stepExpect
	stepExpectTimeout
	stepGetExpected
	stepUnexpectHolder
	stepUnexpect // the expectation itself
)

// firstStep is what an operation begins with. Most flows of a commit are not
// there yet; most updates are.
var firstStep = [...]step{
	commit: stepCreate, injectNew: stepCreate, injectUpdate: stepGet, shorten: stepGet, remove: stepRemove,
	commitExpect: stepExpect, injectExpect: stepExpect, unexpect: stepUnexpect,
}

// set begins a request for a copy of f, in the memory of the one before.
func (r *request) set(op operation, f *flow.Flow, timeout uint32) {
	tail := append(r.tail[:0], f.Tail...)
	*r = request{op: op, step: firstStep[op], flow: *f, tail: tail, timeout: timeout}
	r.flow.Tail = tail
}

func (r *request) setFound(e *flow.Event) {
	r.found, r.hasFound = e.Flow, true
	r.found.Tail, r.foundTags = nil, [8]byte{}
	if tags, ok := e.Tail.Get(flow.AttrSCTPTags); ok {
		copy(r.foundTags[:], tags)
	}
	if e.IsExpectation() {
		r.foundExpectation = e.ExpectationKey()
		r.foundExpectation.Zone = r.flow.Zone // the kernel looked there, and does not say so
	}
}

func (r *request) appendStep(p []byte, liberal bool, seq uint32) []byte {
	switch r.step {
	case stepCreate:
		return AppendCreate(p, &r.flow, liberal, r.omit, seq)
	case stepGet:
		return AppendGet(p, &r.flow, seq)
	case stepGetReply:
		return AppendGetReply(p, &r.flow, seq)
	case stepDelete:
		return AppendDelete(p, &r.holder, seq)
	case stepUpdate:
		f := r.flow
		if r.op != commit {
			keepAhead(&f, &r.holder)
		}
		f.Tail = r.withTags(f.Tail)
		return AppendUpdate(p, &f, r.holder.Status, liberal, r.omit, seq)
	case stepShorten:
		return AppendTimeout(p, &r.flow, r.timeout, seq)
	case stepExpect:
		return AppendExpect(p, &r.flow, seq)
	case stepExpectTimeout:
		return AppendExpectTimeout(p, &r.flow, seq)
	case stepGetExpected:
		return AppendExpectGet(p, &r.flow, seq)
	case stepUnexpectHolder:
		return AppendUnexpect(p, &r.holder, seq)
	case stepUnexpect:
		return AppendUnexpect(p, &r.flow, seq)
	default:
		return AppendDelete(p, &r.flow, seq)
	}
}

// withTags returns the tail of an SCTP flow with the entry's verification tags in
// the place of those that it does not know: a tag of zero is one that the sender
// has not seen yet. The kernel takes both or none, and drops packets whose tags
// are not the entry's.
func (r *request) withTags(tail flow.Attributes) flow.Attributes {
	var tags [8]byte
	known, _ := tail.Get(flow.AttrSCTPTags)
	copy(tags[:], known)
	for at := 0; at < len(tags); at += 4 {
		if [4]byte(tags[at:]) == ([4]byte{}) {
			copy(tags[at:at+4], r.foundTags[at:])
		}
	}
	if r.flow.Protocol != flow.SCTP || string(tags[:]) == string(known) || tags == ([8]byte{}) {
		return tail
	}
	return tail.Without(flow.AttrSCTPTags, nil).Append(flow.AttrSCTPTags, tags[:])
}

// keepAhead keeps an injection f from taking the entry back: see Inject, rule 1.
// A state that advances brings its own timeout, as it would by packets.
func keepAhead(f, entry *flow.Flow) {
	advances := false
	if f.Has(flow.HasState) && entry.Has(flow.HasState) {
		switch have, want := progress(f.Protocol, entry.State), progress(f.Protocol, f.State); {
		case want < have:
			f.State = entry.State
		case want > have:
			advances = true
		}
	}
	if !advances && f.Timeout <= entry.Timeout {
		f.Present &^= flow.HasTimeout
	}
}

// Numbers of TCP states, enum tcp_conntrack in nf_conntrack_tcp.h.
const (
	tcpFinWait  = 4
	tcpTimeWait = 7
	tcpClose    = 8
	tcpSynSent2 = 9
)

// progress orders states by how far a connection has come. The kernel's numbers
// do, but for the simultaneous open. Other protocols have no such order, and the
// later word holds.
func progress(protocol, state uint8) uint8 {
	switch {
	case protocol != flow.TCP, state > maxTCPState: // a peer's bytes; it is never sent
		return 0
	case state == tcpSynSent2:
		return 1
	}
	return state
}

func closing(f *flow.Flow) bool {
	return f.Protocol == flow.TCP && f.Has(flow.HasState) && f.State >= tcpFinWait && f.State <= tcpClose
}

// advance takes in the answer to a request's step and says whether it is done,
// well or not; else its next step is set.
func (w *Writer) advance(r *request) (done bool) {
	if r.rounds++; r.rounds > maxRounds {
		r.errno = errKeptChanging // what the last answer was says nothing
		return w.fail(r)
	}
	if r.op.isExpectation() {
		return w.advanceExpectation(r)
	}
	switch r.step {
	case stepCreate:
		return w.afterCreate(r)
	case stepGet, stepGetReply:
		return w.afterGet(r)
	case stepDelete:
		if r.errno != 0 && r.errno != unix.ENOENT {
			return w.fail(r)
		}
		r.replaced, r.step = true, stepCreate
		return false
	case stepUpdate:
		return w.afterUpdate(r)
	default: // the flow is to go, or to go soon: gone is as good
		switch {
		case r.errno == unix.ENOENT:
			w.counts.Missing++
		case r.errno != 0:
			return w.fail(r)
		case r.step == stepShorten:
			w.counts.Shortened++
		default:
			w.counts.Deleted++
		}
		return true
	}
}

func (w *Writer) afterCreate(r *request) (done bool) {
	switch r.errno {
	case 0:
		if r.replaced {
			w.counts.Replaced++
		} else {
			w.counts.Created++
		}
		w.countOmitted(r)
		return true
	case unix.EEXIST:
		r.step = stepGet
		return false
	case unix.EOPNOTSUPP: // the helper is not known here, or not for this protocol
		return w.without(r, flow.AttrHelper, OmitHelper)
	case unix.ENOSPC: // no rule of this namespace uses labels
		return w.without(r, flow.AttrLabels, OmitLabels)
	case unix.ENOENT: // the master is not there
		if !r.flow.Related() || r.omit&OmitMaster != 0 {
			return w.fail(r)
		}
		if r.lastTry || len(w.orphans) >= maxOrphans {
			r.omit |= OmitMaster
			return false
		}
		return w.adopt(r)
	}
	return w.fail(r)
}

// adopt keeps a request whose master is missing until Finish.
func (w *Writer) adopt(r *request) (done bool) {
	w.orphans = append(w.orphans, newOrphan(r))
	w.waiting[r.key()] = struct{}{}
	return true
}

// without sets a request to try once more without an attribute, if it has it.
func (w *Writer) without(r *request, t flow.Attr, omit Omit) (done bool) {
	if r.omit&omit != 0 || !r.flow.Tail.Has(t) {
		return w.fail(r)
	}
	r.omit |= omit
	return false
}

func (w *Writer) countOmitted(r *request) {
	count := func(omit Omit, n *uint64) {
		if r.omit&omit != 0 {
			*n++
		}
	}
	count(OmitHelper, &w.counts.WithoutHelper)
	if hasLabels(&r.flow) { // that they were cleared holds where there are none
		count(OmitLabels, &w.counts.WithoutLabels)
	}
	count(OmitMaster, &w.counts.WithoutMaster)
}

func hasLabels(f *flow.Flow) bool {
	labels, _ := f.Tail.Get(flow.AttrLabels)
	return slices.ContainsFunc(labels, func(b byte) bool { return b != 0 })
}

func (w *Writer) afterGet(r *request) (done bool) {
	if !r.hasFound {
		return w.notFound(r)
	}
	r.holder = r.found
	same := r.found.Original == r.flow.Original
	switch {
	case r.op == shorten:
		return w.shortens(r, same)
	case same && w.updates(r):
		r.step = stepUpdate
	case r.op == commit, same && !r.behind():
		r.step = stepDelete
	default: // another flow's entry, and it may have packets
		r.errno = unix.EEXIST
		return w.fail(r)
	}
	return false
}

// shortens takes in the entry that is to be shortened. It may be that of another
// flow, whose reply tuple is this one's original, or end sooner by itself.
func (w *Writer) shortens(r *request, same bool) (done bool) {
	switch {
	case !same:
		w.counts.Missing++
	case r.holder.Has(flow.HasTimeout) && r.holder.Timeout <= r.timeout:
		w.counts.Shortened++
	default:
		r.step = stepShorten
		return false
	}
	return true
}

// behind says whether an injected flow is known to be an older connection than
// the entry with its original tuple, which has another translation.
func (r *request) behind() bool {
	f, entry := &r.flow, &r.holder
	if !f.Has(flow.HasState) || !entry.Has(flow.HasState) || closing(entry) {
		return false
	}
	return closing(f) || progress(f.Protocol, f.State) < progress(entry.Protocol, entry.State)
}

// updates says whether the entry with the flow's original tuple can become the
// flow, or must be replaced: the kernel can't change a translation.
func (w *Writer) updates(r *request) bool {
	if r.op == injectNew && closing(&r.holder) && !closing(&r.flow) {
		return false
	}
	return !r.flow.Has(flow.HasReply) || r.found.Reply == r.flow.Reply
}

func (w *Writer) notFound(r *request) (done bool) {
	switch {
	case r.errno != unix.ENOENT && r.errno != 0:
		return w.fail(r)
	case r.op == shorten:
		w.counts.Missing++
		return true
	case r.step == stepGet && r.op == injectUpdate && !r.replaced && r.rounds == 1:
		r.step = stepCreate // the first get: there is nothing to update
	case r.step == stepGet && r.flow.Has(flow.HasReply):
		r.step = stepGetReply
	default: // it went away meanwhile
		r.step = stepCreate
	}
	return false
}

func (w *Writer) afterUpdate(r *request) (done bool) {
	switch r.errno {
	case unix.ENOSPC: // labels come last: all else took effect
		r.omit |= OmitLabels
	case 0:
	case unix.ENOENT:
		r.step = stepCreate
		return false
	case unix.EBUSY: // a packet set a bit of the status since it was read
		r.step = stepGet
		return false
	default:
		return w.fail(r)
	}
	w.counts.Updated++
	w.countOmitted(r)
	return true
}

// An orphan is a related flow, or an expectation, whose master is missing, with
// memory of its own.
type orphan struct {
	op   operation
	flow flow.Flow
}

func (o *orphan) key() requestKey { return requestKey{o.flow.Key(), o.op.isExpectation()} }

func newOrphan(r *request) orphan {
	o := orphan{r.op, r.flow}
	o.flow.Tail = append(flow.Attributes(nil), r.flow.Tail...)
	return o
}
