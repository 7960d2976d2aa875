package flow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Sizes of the binary form, in bytes. docs/batch.md has the layout.
const (
	MaxBatch   = 64 << 10 // a batch with its header
	headerSize = 48
	headSize   = 112 // a record's head, before the tail
	markSize   = 16  // a record of kind SyncBegin or SyncEnd

	// HeadSize is where the tail of a flow's record begins.
	HeadSize = headSize

	// MaxTail is the longest tail that a record can carry.
	MaxTail = MaxBatch - headerSize - headSize

	// Version is the first byte of every batch.
	Version = 1
)

// ErrMalformed is what every error of DecodeBatch wraps.
var ErrMalformed = errors.New("malformed batch")

func malformed(offset int, format string, args ...any) error {
	return fmt.Errorf("%w: byte %d: %s", ErrMalformed, offset, fmt.Sprintf(format, args...))
}

// A Batch is a decoded header over its undecoded, but checked, records.
type Batch struct {
	Header
	Count   int
	records []byte
}

// DecodeBatch checks p, one batch in binary form, to the last bound, so that
// reading its events can't fail. The batch refers to p.
func DecodeBatch(p []byte) (b Batch, err error) {
	if len(p) < headerSize {
		return b, malformed(0, "%d bytes are less than a header", len(p))
	}
	if len(p) > MaxBatch {
		return b, malformed(0, "%d bytes are more than a batch holds", len(p))
	}
	if p[0] != Version {
		return b, malformed(0, "version %d, not %d", p[0], Version)
	}
	b.Origin = Origin(p[1])
	if b.Origin > Peer {
		return b, malformed(1, "unknown origin %d", p[1])
	}
	b.Count = int(binary.LittleEndian.Uint16(p[2:]))
	b.Generation = binary.LittleEndian.Uint32(p[4:])
	b.Replay = binary.LittleEndian.Uint64(p[8:])
	b.Time = int64(binary.LittleEndian.Uint64(p[16:]))
	b.Edge = binary.LittleEndian.Uint16(p[24:])
	if owner := [16]byte(p[32:48]); owner != ([16]byte{}) {
		b.Owner = netip.AddrFrom16(owner).Unmap()
	}
	b.records = p[headerSize:]
	return b, b.check()
}

// check walks the records once, so that a Cursor need not check anything.
func (b *Batch) check() error {
	rest, n := b.records, 0
	for len(rest) > 0 {
		at := headerSize + len(b.records) - len(rest)
		if len(rest) < markSize {
			return malformed(at, "record cut short")
		}
		size, kind := int(binary.LittleEndian.Uint16(rest)), Kind(rest[2])
		if size%4 != 0 || size > len(rest) {
			return malformed(at, "record of %d bytes, %d are left", size, len(rest))
		}
		switch kind {
		case New, Update, Destroy, Expect, Unexpect:
			if size < headSize {
				return malformed(at, "record of %d bytes is less than a head", size)
			}
			if f := rest[8]; f != IPv4 && f != IPv6 {
				return malformed(at+8, "unknown family %d", f)
			}
			if err := Attributes(rest[headSize:size]).check(at + headSize); err != nil {
				return err
			}
		case SyncBegin, SyncEnd:
			if size < markSize {
				return malformed(at, "mark of %d bytes", size)
			}
			if b.Replay == 0 {
				return malformed(at, "mark in a live batch")
			}
		default:
			return malformed(at+2, "unknown kind %d", kind)
		}
		rest, n = rest[size:], n+1
	}
	if n != b.Count {
		return malformed(2, "%d records, not %d", n, b.Count)
	}
	return nil
}

// Cursor returns an iterator before the first event.
func (b *Batch) Cursor() Cursor { return Cursor{rest: b.records} }

// A Cursor reads the events of a batch one after another without allocating:
//
//	c := batch.Cursor()
//	for c.Next(&event) { … }
type Cursor struct {
	record, rest []byte
}

// Next decodes the next event into e, overwriting all of it, and says whether
// there was one. e.Tail refers to the batch's memory and is valid as long as
// that is; whoever keeps an event copies it.
func (c *Cursor) Next(e *Event) bool {
	if len(c.rest) == 0 {
		return false
	}
	size := binary.LittleEndian.Uint16(c.rest)
	c.record, c.rest = c.rest[:size:size], c.rest[size:]
	decodeRecord(c.record, e)
	return true
}

// Record returns the binary form of the event that Next decoded last.
func (c *Cursor) Record() Record { return c.record }

// A Record is one event in binary form.
type Record []byte

// Event decodes r, which must be a record that a Builder or a Cursor made.
// e.Tail refers to r.
func (r Record) Event(e *Event) { decodeRecord(r, e) }

func decodeRecord(r []byte, e *Event) {
	e.Kind = Kind(r[2])
	if e.IsMark() {
		e.Flow = Flow{}
		e.Sync = Sync{Flags: SyncFlags(r[3]), Count: binary.LittleEndian.Uint64(r[8:])}
		return
	}
	e.Sync = Sync{}
	f, le := &e.Flow, binary.LittleEndian
	_ = r[headSize-1]
	f.Present = Field(le.Uint32(r[4:]))
	f.Family, f.Protocol, f.State = r[8], r[9], r[10]
	f.Zone, f.ZoneOriginal, f.ZoneReply = le.Uint16(r[12:]), le.Uint16(r[14:]), le.Uint16(r[16:])
	f.Status = Status(le.Uint32(r[20:]))
	f.Timeout, f.Mark, f.ID = le.Uint32(r[24:]), le.Uint32(r[28:]), le.Uint32(r[32:])
	f.WindowScale = [2]uint8{r[36], r[37]}
	f.TCPFlags = [2]uint8{r[38], r[39]}
	decodeTuple(r[40:76], &f.Original)
	decodeTuple(r[76:112], &f.Reply)
	f.Tail = Attributes(r[headSize:])
}

func decodeTuple(r []byte, t *Tuple) {
	t.Source = [16]byte(r[0:16])
	t.Destination = [16]byte(r[16:32])
	t.SourcePort = binary.LittleEndian.Uint16(r[32:])
	t.DestinationPort = binary.LittleEndian.Uint16(r[34:])
}

// AppendRecord appends the binary form of e to p.
func AppendRecord(p []byte, e *Event) []byte {
	if e.IsMark() {
		p = binary.LittleEndian.AppendUint16(p, markSize)
		p = append(p, byte(e.Kind), byte(e.Sync.Flags), 0, 0, 0, 0)
		return binary.LittleEndian.AppendUint64(p, e.Sync.Count)
	}
	f, le := &e.Flow, binary.LittleEndian
	var r [headSize]byte
	le.PutUint16(r[0:], uint16(headSize+len(f.Tail)))
	r[2] = byte(e.Kind)
	le.PutUint32(r[4:], uint32(f.Present))
	r[8], r[9], r[10] = f.Family, f.Protocol, f.State
	le.PutUint16(r[12:], f.Zone)
	le.PutUint16(r[14:], f.ZoneOriginal)
	le.PutUint16(r[16:], f.ZoneReply)
	le.PutUint32(r[20:], uint32(f.Status))
	le.PutUint32(r[24:], f.Timeout)
	le.PutUint32(r[28:], f.Mark)
	le.PutUint32(r[32:], f.ID)
	r[36], r[37] = f.WindowScale[0], f.WindowScale[1]
	r[38], r[39] = f.TCPFlags[0], f.TCPFlags[1]
	encodeTuple(r[40:76], &f.Original)
	encodeTuple(r[76:112], &f.Reply)
	p = append(p, r[:]...)
	return append(p, f.Tail...)
}

func encodeTuple(r []byte, t *Tuple) {
	copy(r[0:16], t.Source[:])
	copy(r[16:32], t.Destination[:])
	binary.LittleEndian.PutUint16(r[32:], t.SourcePort)
	binary.LittleEndian.PutUint16(r[34:], t.DestinationPort)
}

// A Builder makes one batch after another in the same memory. The zero
// Builder must be Reset before use.
type Builder struct {
	buf   []byte
	count int
}

// Reset forgets what was built and begins a batch with the header h.
func (b *Builder) Reset(h Header) {
	if b.buf == nil {
		b.buf = make([]byte, 0, MaxBatch)
	}
	b.count = 0
	b.buf = append(b.buf[:0], make([]byte, headerSize)...)
	le := binary.LittleEndian
	b.buf[0], b.buf[1] = Version, byte(h.Origin)
	le.PutUint32(b.buf[4:], h.Generation)
	le.PutUint64(b.buf[8:], h.Replay)
	le.PutUint64(b.buf[16:], uint64(h.Time))
	le.PutUint16(b.buf[24:], h.Edge)
	if h.Owner.IsValid() {
		owner := h.Owner.As16()
		copy(b.buf[32:48], owner[:])
	}
}

// Append adds an event and says whether there was room for it. An event whose
// tail is no well-formed list of attributes, or too long for any batch, makes
// a batch that the next stage refuses.
func (b *Builder) Append(e *Event) bool {
	size := markSize
	if !e.IsMark() {
		size = headSize + len(e.Tail)
	}
	if len(b.buf)+size > MaxBatch {
		return false
	}
	b.buf = AppendRecord(b.buf, e)
	b.count++
	return true
}

// AppendRecord adds a record as it is and says whether there was room for it.
func (b *Builder) AppendRecord(r Record) bool {
	if len(b.buf)+len(r) > MaxBatch {
		return false
	}
	b.buf = append(b.buf, r...)
	b.count++
	return true
}

// Len returns the number of records so far.
func (b *Builder) Len() int { return b.count }

// Bytes returns the batch in binary form, valid until Reset or Append.
func (b *Builder) Bytes() []byte {
	binary.LittleEndian.PutUint16(b.buf[2:], uint16(b.count))
	return b.buf
}
