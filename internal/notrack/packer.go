package notrack

import "encoding/binary"

// Room returns how many bytes a datagram has for messages on a link of the
// given MTU: without the IP and the UDP header, and never more than UDP takes.
func Room(mtu int, ipv6 bool) int {
	headers, most := 28, 1<<16-1-28
	if ipv6 {
		headers, most = 48, 1<<16-1-8
	}
	return min(mtu-headers, most)
}

// A Packer fills datagrams with messages, one after another, and numbers them.
// A group, a message with the extension behind it, is never split.
//
// All datagrams are in one piece of memory that grows to what one batch needs
// and is used again after Reset.
type Packer struct {
	room    int
	seq     *Sequencer
	buf     []byte
	ends    []int // where each closed datagram ends
	start   int   // where the open datagram begins
	context []byte
	framed  bool
}

// NewPacker returns a Packer for datagrams below room bytes; see Room.
func NewPacker(room int, seq *Sequencer) *Packer { return &Packer{room: room, seq: seq} }

// SetRoom changes the room of datagrams, from the next one that is opened.
func (p *Packer) SetRoom(room int) { p.Flush(); p.room = room }

// SetReplay closes the open datagram and makes every later one begin with the
// mark that its flows belong to the replay id; 0 ends that.
func (p *Packer) SetReplay(id uint64) {
	p.Flush()
	p.context = p.context[:0]
	if id != 0 {
		p.context = AppendReplay(p.context, id)
	}
}

// SetFramed makes every later datagram begin with the mark that says how long it
// is, for a stream.
func (p *Packer) SetFramed() { p.Flush(); p.framed = true }

// Append adds a group of messages, numbering each, and says whether it fits
// into a datagram at all. Like conntrackd it leaves a datagram strictly below
// the room: 1471 bytes at most where 1472 would fit.
func (p *Packer) Append(group []byte) bool {
	if p.frame()+len(p.context)+len(group) >= p.room {
		return false
	}
	if len(p.buf)-p.start+len(group) >= p.room {
		p.Flush()
	}
	if len(p.buf) == p.start {
		if p.framed {
			p.add(appendFrame(nil, 0))
		}
		p.add(p.context)
	}
	p.add(group)
	return true
}

// frame is how long the mark at a datagram's start is.
func (p *Packer) frame() int {
	if p.framed {
		return FrameSize
	}
	return 0
}

// add copies messages behind the others and stamps their numbers.
func (p *Packer) add(group []byte) {
	at := len(p.buf)
	p.buf = append(p.buf, group...)
	for at < len(p.buf) {
		m := p.buf[at:]
		binary.BigEndian.PutUint32(m[4:], p.seq.Next())
		at += int(binary.BigEndian.Uint16(m[2:]))
	}
}

// Flush closes the open datagram, if there is anything in it.
func (p *Packer) Flush() {
	if len(p.buf) > p.start {
		if p.framed {
			binary.BigEndian.PutUint32(p.buf[p.start+FrameSize-frameSize:], uint32(len(p.buf)-p.start-FrameSize))
		}
		p.ends = append(p.ends, len(p.buf))
		p.start = len(p.buf)
	}
}

// Len returns the number of closed datagrams.
func (p *Packer) Len() int { return len(p.ends) }

// Size returns the bytes gathered so far, in open and closed datagrams.
func (p *Packer) Size() int { return len(p.buf) }

// Datagram returns the closed datagram i, valid until Reset or Append.
func (p *Packer) Datagram(i int) []byte {
	start := 0
	if i > 0 {
		start = p.ends[i-1]
	}
	return p.buf[start:p.ends[i]:p.ends[i]]
}

// Bytes returns all closed datagrams, one behind the other, as Datagram does.
func (p *Packer) Bytes() []byte { return p.buf[:p.start:p.start] }

// Reset forgets all datagrams. The replay mark stays.
func (p *Packer) Reset() { p.buf, p.ends, p.start = p.buf[:0], p.ends[:0], 0 }
