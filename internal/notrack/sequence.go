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
// protocol never reorders or asks again. Only what comes twice is used once: see
// Repeats. The zero Tracker awaits the first.
type Tracker struct {
	last    uint32
	started bool

	highest uint32                    // of seen
	seen    [repeatWindow / 64]uint64 // bit n%repeatWindow: n, one of the last so many, came

	Messages uint64 // numbers seen
	Gaps     uint64 // times that some were missing
	Lost     uint64 // how many were missing, together
	Before   uint64 // numbers that were not after the last
	Repeated uint64 // messages that came twice
}

// repeatWindow is how far behind the highest number a repeated one is known: a
// network that sends a datagram twice does so at once.
const repeatWindow = 512

// Repeats notes the next message's number and says whether it came already. A
// message that came twice must not be used twice: it would undo what came
// between, and in a replay stand for one that was lost.
func (t *Tracker) Repeats(seq uint32) bool {
	ahead := int32(seq - t.highest)
	switch {
	case !t.started || ahead >= repeatWindow || ahead <= -repeatWindow: // another count
		t.seen, t.highest = [repeatWindow / 64]uint64{}, seq
	case ahead > 0:
		for n := t.highest + 1; n != seq+1; n++ {
			t.seen[n%repeatWindow/64] &^= 1 << (n % 64)
		}
		t.highest = seq
	}
	word, bit := &t.seen[seq%repeatWindow/64], uint64(1)<<(seq%64)
	if *word&bit != 0 {
		t.Repeated++
		return true
	}
	*word |= bit
	return false
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

// Near says whether a number is so close to the last one that it is of the same
// count.
func (t *Tracker) Near(seq uint32) bool {
	distance := int32(seq - t.last)
	return t.started && distance > -repeatWindow && distance < 1<<16
}

// Behind says whether a number is not after the last one.
func (t *Tracker) Behind(seq uint32) bool { return t.started && int32(seq-t.last) <= 0 }

// Follow makes the count of another address and port this one's: the sender has
// taken another link. What was counted stays.
func (t *Tracker) Follow(before *Tracker) {
	t.last, t.started, t.highest, t.seen = before.last, before.started, before.highest, before.seen
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
