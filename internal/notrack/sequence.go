package notrack

// A Sequencer numbers the messages of one sender: one counter for all types of
// message, 32 bits, which wraps.
type Sequencer struct{ next uint32 }

// NewSequencer returns a Sequencer whose first number is start: by custom the
// time of day in seconds, so that a restart mostly jumps ahead.
func NewSequencer(start uint32) *Sequencer { return &Sequencer{next: start} }

// Next returns the number of the next message.
func (s *Sequencer) Next() uint32 {
	n := s.next
	s.next++
	return n
}

// Order is how a sequence number follows the one before.
type Order uint8

// The orders.
const (
	InOrder Order = iota // the next one, or the first of all
	Gap                  // messages between are missing
	Before               // not after the last one: late, repeated, or a restart
)

// A Tracker follows the sequence numbers of one sender: one address and port,
// since a sender that restarts has another port and starts anew. Whatever the
// order, the number becomes the last one seen and the message is used: the
// protocol never reorders or asks again. The zero Tracker awaits the first.
type Tracker struct {
	last    uint32
	started bool

	Messages uint64 // numbers seen
	Gaps     uint64 // times that some were missing
	Lost     uint64 // how many were missing, together
	Before   uint64 // numbers that were not after the last
}

// Observe takes the next message's number and says how it follows, and how
// many messages are missing before it.
func (t *Tracker) Observe(seq uint32) (o Order, missing uint32) {
	o, missing = t.Peek(seq)
	t.last, t.started = seq, true
	t.Messages++
	switch o {
	case Gap:
		t.Gaps++
		t.Lost += uint64(missing)
	case Before:
		t.Before++
	}
	return o, missing
}

// Peek says what Observe would, and changes nothing. The comparison is signed,
// so a number up to 2³¹−1 ahead is ahead.
func (t *Tracker) Peek(seq uint32) (o Order, missing uint32) {
	if !t.started || seq == t.last+1 {
		return InOrder, 0
	}
	if int32(seq-t.last) > 0 {
		return Gap, seq - t.last - 1
	}
	return Before, 0
}
