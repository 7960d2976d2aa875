package ctnl

import (
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

const (
	// batchLength is how many requests go out with one send. The gain of a
	// system call for many ends at about 16; what is beyond 64 only delays.
	batchLength = 64

	// writerBuffer holds the answers to a whole batch, about 1300 bytes each,
	// several times over: an answer that is lost would count as a success.
	writerBuffer = 1 << 20

	// maxOrphans bounds how many related flows wait for their masters, in
	// flows of about 250 bytes. What is beyond goes without its master.
	maxOrphans = 16384

	// maxRounds bounds the attempts for one request: get, delete, create
	// again, without helper, without labels, and once more if another process
	// interferes.
	maxRounds = 12
)

// A WriterConfig says how to open a Writer.
type WriterConfig struct {
	// Port is the netlink port id to bind, which the events that the writer
	// causes then carry. 0 lets the kernel choose.
	Port uint32

	// WindowTracking leaves TCP flows as strict as they were on the node that
	// they come from. By default they are made liberal: a window that this
	// kernel did not see grow would make it drop the stream.
	WindowTracking bool
}

// A Writer changes the kernel's table: it gathers requests and sends them in
// batches without acknowledgements, so that failures alone answer, and goes on
// with the failed ones until they succeed or are counted. The kernel has one
// lock for all who write to conntrack tables, in every namespace: more than
// one Writer a host gains nothing.
//
// To prepare the next batch on another core while the kernel works on this one was
// tried: it gained nothing that could be measured (nine tenths of a commit's time
// are the kernel's).
//
// One goroutine uses it. Requests of one flow are carried out in their order.
type Writer struct {
	socket  *socket
	liberal bool
	seq     uint32

	slots   [batchLength]request
	pending [batchLength]*request
	length  int
	keys    map[requestKey]struct{} // of slots[:length]
	orphans []orphan
	waiting map[requestKey]struct{} // of orphans

	buf, answers, tail []byte
	event              flow.Event
	counts             Counts
}

// OpenWriter opens a writer in the calling thread's network namespace.
func OpenWriter(c WriterConfig) (*Writer, error) {
	s, err := dial(c.Port, func(conn *netlink.Conn) error {
		if err := conn.SetOption(netlink.CapAcknowledge, true); err != nil {
			return err
		}
		return conn.SetReadBuffer(writerBuffer / 2)
	})
	if err != nil {
		return nil, fmt.Errorf("conntrack writer: %w", err)
	}
	return &Writer{
		socket: s, liberal: !c.WindowTracking, keys: make(map[requestKey]struct{}, batchLength),
		waiting: map[requestKey]struct{}{},
		answers: make([]byte, 32<<10),
	}, nil
}

// Port returns the socket's port id.
func (w *Writer) Port() uint32 { return w.socket.port }

// Close closes the socket. Requests that were not flushed are forgotten.
func (w *Writer) Close() error { return w.socket.close() }

// An operation is what a request is to achieve.
type operation uint8

const (
	commit operation = iota
	injectNew
	injectUpdate
	shorten
	remove

	commitExpect
	injectExpect
	unexpect
)

func (op operation) isExpectation() bool { return op >= commitExpect }

// A requestKey tells requests apart of which only one may be under way.
type requestKey struct {
	flow.Key
	expectation bool
}

func (r *request) key() requestKey { return requestKey{r.flow.Key(), r.op.isExpectation()} }

// Commit puts f into the table as the truth at a takeover:
//
//  1. If there is no such entry, it is created.
//  2. An entry with the same tuples is updated: timeout, status (bits are only
//     added), protocol state, mark, labels; TCP is made liberal, since the
//     windows that the entry knows may be long past.
//  3. An entry with the same original tuple but another translation, and one
//     that stands in the way with its reply tuple, is deleted and f created.
//  4. A helper or labels that this kernel refuses are left out.
//  5. If f's master is missing f waits for it until Finish.
func (w *Writer) Commit(f *flow.Flow) error { return w.add(commit, f, 0) }

// Inject puts a peer's flow into the table of a node that has traffic of its
// own (active-active). It differs from Commit in this:
//
//  1. Neither the TCP state nor, while that is the same, the timeout of an
//     entry is lowered. Where f has no timeout the entry's stays.
//  2. isNew says that the flow is new at the peer: then an entry that is about
//     to close is of a connection before it, and is replaced.
//  3. An entry of another flow that stands in the way stays: f fails with
//     EEXIST. So does one of the same original tuple with another translation,
//     if it is further than f: that is a later connection.
func (w *Writer) Inject(f *flow.Flow, isNew bool) error {
	if isNew {
		return w.add(injectNew, f, 0)
	}
	return w.add(injectUpdate, f, 0)
}

// Shorten sets the timeout of f's entry to that many seconds, if there is one
// with more: when a peer's flow ended but may have packets here, which refresh
// it.
func (w *Writer) Shorten(f *flow.Flow, timeout uint32) error { return w.add(shorten, f, timeout) }

// Delete deletes f's entry; if f has an id, only the entry with that id.
func (w *Writer) Delete(f *flow.Flow) error { return w.add(remove, f, 0) }

// CommitExpectation puts an expectation, the Flow of an event of kind Expect,
// into the table as the truth at a takeover. Its master must be there, or come
// before Finish, and have a helper. One of the same tuple gets its timeout if it
// is the same, and else is deleted.
func (w *Writer) CommitExpectation(f *flow.Flow) error { return w.add(commitExpect, f, 0) }

// InjectExpectation is CommitExpectation for a node with traffic of its own: an
// expectation of another flow that stands in the way stays, and f fails with
// EEXIST.
func (w *Writer) InjectExpectation(f *flow.Flow) error { return w.add(injectExpect, f, 0) }

// DeleteExpectation deletes the expectation of f's tuple; if f has an id, only the
// one with that id.
func (w *Writer) DeleteExpectation(f *flow.Flow) error { return w.add(unexpect, f, 0) }

func (w *Writer) add(op operation, f *flow.Flow, timeout uint32) error {
	key := requestKey{f.Key(), op.isExpectation()}
	// A request that fails at first is carried out after those behind it, so
	// a batch has but one of a flow, and no expectations beside flows: they need
	// their master, and end before the flow that met them begins.
	_, again := w.keys[key]
	if again || w.length == batchLength || w.length > 0 && w.slots[0].op.isExpectation() != key.expectation {
		if err := w.Flush(); err != nil {
			return err
		}
	}
	if _, ok := w.waiting[key]; ok { // this is later news of it
		delete(w.waiting, key)
		w.orphans = slices.DeleteFunc(w.orphans, func(o orphan) bool { return o.key() == key })
	}
	w.keys[key] = struct{}{}
	w.slots[w.length].set(op, f, timeout)
	w.length++
	return nil
}

// Flush carries out what was gathered. An error means that the socket failed,
// not a request.
func (w *Writer) Flush() error {
	pending := w.pending[:w.length]
	for i := range pending {
		pending[i] = &w.slots[i]
	}
	w.length = 0
	clear(w.keys)
	return w.run(pending)
}

// run takes the requests through their steps, each step as one batch.
func (w *Writer) run(pending []*request) error {
	for len(pending) > 0 {
		if err := w.exchange(pending); err != nil {
			return fmt.Errorf("conntrack writer: %w", err)
		}
		pending = slices.DeleteFunc(pending, func(r *request) bool { return w.advance(r) })
	}
	return nil
}

// Finish flushes, and then creates the related flows whose masters were
// missing: with their masters if these came meanwhile, else without. Expectations
// whose masters were missing come last, and fail if they still are.
func (w *Writer) Finish() error {
	if err := w.Flush(); err != nil {
		return err
	}
	orphans := w.orphans
	w.orphans = nil
	clear(w.waiting)
	flows := slices.DeleteFunc(slices.Clone(orphans), func(o orphan) bool { return o.op.isExpectation() })
	if err := w.runOrphans(flows); err != nil {
		return err
	}
	return w.runOrphans(slices.DeleteFunc(orphans, func(o orphan) bool { return !o.op.isExpectation() }))
}

func (w *Writer) runOrphans(orphans []orphan) error {
	for start := 0; start < len(orphans); start += batchLength {
		var pending []*request
		for i := start; i < min(start+batchLength, len(orphans)); i++ {
			r := &request{}
			r.set(orphans[i].op, &orphans[i].flow, 0)
			r.lastTry = true
			pending = append(pending, r)
		}
		if err := w.run(pending); err != nil {
			return err
		}
	}
	return nil
}

// exchange sends the next step of each request and takes in the answers. Send
// returns when the kernel has carried them all out, so the answers are there.
func (w *Writer) exchange(pending []*request) error {
	w.buf = w.buf[:0]
	first := w.seq + 1
	for i, r := range pending {
		r.errno, r.hasFound = 0, false
		w.buf = r.appendStep(w.buf, w.liberal, first+uint32(i))
	}
	w.seq += uint32(len(pending))
	if err := w.socket.send(w.buf); err != nil {
		return fmt.Errorf("send %d requests: %w", len(pending), err)
	}
	for {
		n, err := w.socket.receive(w.answers)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if err := w.answer(w.answers[:n], pending, first); err != nil {
			return err
		}
	}
}

// answer matches the messages of one datagram with the requests, by sequence.
func (w *Writer) answer(datagram []byte, pending []*request, first uint32) error {
	for rest := datagram; len(rest) > 0; {
		r, after, err := nextReply(rest)
		if err != nil {
			return err
		}
		rest = after
		i := r.seq - first
		if i >= uint32(len(pending)) {
			continue // of a request before: only after an error of ours
		}
		if r.typ == unix.NLMSG_ERROR {
			pending[i].errno = r.errno()
			continue
		}
		if w.tail, err = Decode(r.message, &w.event, w.tail); err == nil {
			pending[i].setFound(&w.event)
		}
	}
	return nil
}
