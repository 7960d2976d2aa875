package notrack

import (
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// Kind says what a decoded message is about.
type Kind uint8

// The kinds of message.
const (
	Flow     Kind = iota // Event, about a flow or an expectation
	Mark                 // Event: a SyncBegin or SyncEnd, of Replay
	Alive                // nothing but a sign of life
	Asks                 // Resync: somebody wants all that this node has
	Greeting             // Hello
)

// A Message is what a Decoder yields.
type Message struct {
	Kind     Kind
	Sequence uint32

	// Replay is the replay that a Flow or a Mark belongs to, by the sender's
	// count; 0: live.
	Replay uint64

	Event  flow.Event // Flow, Mark; Event.Tail: see Decoder.Next
	Resync Resync     // Asks
	Hello  Hello      // Greeting; Name refers to the datagram
}

// Counters are what a Decoder refused or ignored. Malformed is the sum of the
// five after it, as conntrackd counts them.
type Counters struct {
	Malformed        uint64
	Truncated        uint64 // fewer bytes left than a header; ends the datagram
	BadSize          uint64 // impossible length; ends the datagram
	WrongVersion     uint64
	MalformedHeader  uint64 // type or flags
	MalformedPayload uint64 // an attribute

	Incomplete        uint64 // what tells of no flow or expectation there can be: refused
	UnknownAttributes uint64 // skipped; a strict Decoder refuses the message
	UnknownElements   uint64 // of an extension: skipped, or malformed
	StrayExtensions   uint64 // extended no message, or one that was refused
}

// A Decoder reads the messages of one datagram after another.
type Decoder struct {
	ByteOrders

	// Strict refuses messages with unknown attributes, as conntrackd does, keeps
	// flows without addresses or protocol and expectations without a mask, ignores
	// extensions, yields what comes twice twice, and does not take the sequence
	// number of a message of unknown type for seen. It is meant for comparing with
	// conntrackd.
	Strict bool

	Counters Counters

	rest     []byte
	elements []byte // of an extension that stands alone, not yet yielded
	replay   uint64
	sequence uint32
	tracker  *Tracker

	tail flow.Attributes // of the last event; used again
}

// Reset begins a datagram. Every sequence number in it is shown to the
// tracker, which may be nil. The Decoder refers to p until the next Reset.
func (d *Decoder) Reset(p []byte, tracker *Tracker) {
	d.rest, d.elements, d.replay, d.tracker = p, nil, 0, tracker
}

// Next decodes the next good message into m, overwriting all of it, and says
// whether there was one. What is refused is counted and skipped. m refers to
// the datagram and to the Decoder's memory, until Next or Reset.
func (d *Decoder) Next(m *Message) bool {
	for {
		if len(d.elements) > 0 {
			if d.nextElement(m) {
				return true
			}
			continue
		}
		if len(d.rest) == 0 {
			return false
		}
		p, ok := d.message()
		if ok && d.header(p) && d.payload(p, m) {
			return true
		}
	}
}

// message cuts the next message off the datagram. Where the length can't be
// right there is no telling where the one after it begins, so that all of the
// rest is lost.
func (d *Decoder) message() (p []byte, ok bool) {
	p = d.rest
	size, cause := checkSize(p)
	switch cause {
	case sizeTruncated:
		d.Counters.Truncated++
	case sizeBad:
		d.Counters.BadSize++
	default:
		d.rest = p[size:]
		return p[:size:size], true
	}
	d.Counters.Malformed++
	d.rest = nil
	return nil, false
}

type sizeError uint8

const (
	sizeTruncated sizeError = iota + 1
	sizeBad
)

// checkSize returns the length of the message at the start of p, or why there
// is none, by conntrackd's rules in conntrackd's order.
func checkSize(p []byte) (size int, cause sizeError) {
	if len(p) < headerSize {
		return 0, sizeTruncated
	}
	size = int(binary.BigEndian.Uint16(p[2:]))
	if size == 0 || size > len(p) {
		return 0, sizeBad
	}
	least := headerSize
	if p[0]&0xf == typeControl && p[1]&(flagResync|flagAck|flagNack) != 0 {
		least = resyncSize
	}
	if len(p) < least {
		return 0, sizeTruncated
	}
	if size < least {
		return 0, sizeBad
	}
	return size, 0
}

// header checks version, type and flags of a message, and shows its sequence
// number to the tracker. What comes twice is not good the second time.
func (d *Decoder) header(p []byte) bool {
	if p[0]>>4 != wireVersion {
		d.refuse(&d.Counters.WrongVersion)
		return false
	}
	d.sequence = binary.BigEndian.Uint32(p[4:])
	good := headerGood(p)
	// A type or flag of the future is no loss.
	if d.tracker != nil && (good || !d.Strict) {
		if !d.Strict && d.tracker.Repeats(d.sequence) {
			return false
		}
		d.tracker.Observe(d.sequence)
	}
	if !good {
		d.refuse(&d.Counters.MalformedHeader)
	}
	return good
}

func (d *Decoder) refuse(cause *uint64) {
	d.Counters.Malformed++
	*cause++
}

func headerGood(p []byte) bool {
	typ, flags := p[0]&0xf, p[1]
	if typ == typeControl {
		return flags&(flagResync|flagAlive) != 0
	}
	return typ <= typeExpDestroy && flags&^(flagHello|flagHelloBack) == 0
}

// payload decodes a message whose header is good, and says whether it yields
// anything at once.
func (d *Decoder) payload(p []byte, m *Message) bool {
	typ := p[0] & 0xf
	*m = Message{Sequence: d.sequence}
	switch {
	case typ == typeControl && p[1]&flagResync != 0:
		m.Kind = Asks
		d.addressed(d.extension(), &m.Resync)
		return true
	case typ == typeControl:
		return d.alive(p, m)
	}
	return d.event(p, d.extension(), m)
}

var kinds = [...]flow.Kind{
	typeFlowNew: flow.New, typeFlowUpdate: flow.Update, typeFlowDestroy: flow.Destroy,
	typeExpNew: flow.Expect, typeExpUpdate: flow.Expect, typeExpDestroy: flow.Unexpect,
}

// event decodes a message about a flow or an expectation, and what extends it.
func (d *Decoder) event(p, ext []byte, m *Message) bool {
	m.Kind, m.Replay, m.Sequence = Flow, d.replay, d.sequence
	m.Event.Kind = kinds[p[0]&0xf]
	numbers := &flowNumbers
	if m.Event.IsExpectation() {
		numbers = &expectationNumbers
	}
	var r reader
	good := r.read(p[headerSize:], numbers, d)
	if !good {
		d.refuse(&d.Counters.MalformedPayload)
		if len(ext) > 0 {
			d.Counters.StrayExtensions++
		}
		return false
	}
	if m.Event.IsExpectation() {
		good = r.expectation(&m.Event.Flow, ext, d)
	} else {
		good = r.flow(&m.Event.Flow, ext, d)
	}
	if !good && !d.Strict {
		d.Counters.Incomplete++
		return false
	}
	return true
}

// alive begins an extension message that stands alone, or yields the sign of
// life that every other such message is.
func (d *Decoder) alive(p []byte, m *Message) bool {
	m.Kind = Alive
	elements, scope, ok := d.extensionOf(p)
	if !ok {
		return true
	}
	if scope != scopeAlone {
		d.Counters.StrayExtensions++
		return true
	}
	d.elements = elements
	return len(elements) == 0
}
