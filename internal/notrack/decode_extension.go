package notrack

import (
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// extensionOf returns the elements of the control message p, if it is an
// extension of a version that is known here.
func (d *Decoder) extensionOf(p []byte) (elements []byte, scope byte, ok bool) {
	if d.Strict || len(p) < extensionHeader || p[0] != wireVersion<<4|typeControl || p[1] != flagAlive ||
		binary.BigEndian.Uint16(p[8:]) != extensionMagic {
		return nil, 0, false
	}
	if p[10] != extensionVersion {
		d.Counters.UnknownElements++
		return nil, 0, false
	}
	return p[extensionHeader:], p[11], true
}

// extension looks at the message that is next in the datagram, and takes it if
// it extends the one before it.
func (d *Decoder) extension() []byte {
	p := d.rest
	if len(p) < extensionHeader || p[1] != flagAlive || p[11] != scopePrevious {
		return nil
	}
	size, cause := checkSize(p)
	if cause != 0 || size < extensionHeader {
		return nil
	}
	elements, _, ok := d.extensionOf(p[:size])
	if !ok {
		return nil
	}
	d.rest = p[size:]
	if seq := binary.BigEndian.Uint32(p[4:]); d.tracker != nil && !d.tracker.Repeats(seq) {
		d.tracker.Observe(seq)
	}
	return elements
}

// element cuts the next element off p. What is not even that is counted, and
// ends the message.
func (d *Decoder) element(p []byte) (typ uint16, v, rest []byte) {
	if len(p) >= attrHeader {
		size := int(binary.BigEndian.Uint16(p))
		if size >= attrHeader && size <= len(p) {
			return binary.BigEndian.Uint16(p[2:]), p[attrHeader:size:size], p[min(padded(size), len(p)):]
		}
	}
	d.Counters.UnknownElements++
	return 0, nil, nil
}

// nextElement decodes the next element that stands alone and says whether it
// yields a message.
func (d *Decoder) nextElement(m *Message) bool {
	typ, v, rest := d.element(d.elements)
	d.elements = rest
	*m = Message{Sequence: d.sequence}
	switch {
	case typ == elementHello && len(v) >= helloSize:
		m.Kind = Greeting
		m.Hello = Hello{
			Version: v[0], Capabilities: binary.BigEndian.Uint32(v[4:]),
			Name: v[helloSize:min(len(v), helloSize+MaxName)],
		}
		d.elements = d.node(rest, &m.Hello)
		return true
	case typ == elementMessage && enclosable(v):
		d.elements = nil
		return d.event(v, rest, m)
	case typ == elementReplay && len(v) >= replaySize:
		d.replay = binary.BigEndian.Uint64(v)
		m.Kind = Alive
		return false
	case typ == elementSyncBegin && len(v) >= syncBeginSize, typ == elementSyncEnd && len(v) >= syncEndSize:
		m.Kind, m.Replay = Mark, binary.BigEndian.Uint64(v)
		m.Event.Kind = flow.SyncBegin
		m.Event.Sync.Flags = flow.SyncFlags(binary.BigEndian.Uint32(v[8:]))
		if typ == elementSyncEnd {
			m.Event.Kind = flow.SyncEnd
			m.Event.Sync.Count = binary.BigEndian.Uint64(v[syncBeginSize:])
		}
		if m.Replay != 0 {
			return true
		}
		d.Counters.UnknownElements++ // a mark of nothing
	case typ == elementFrame: // it has done its work: see Stream
	case typ != 0 || v != nil:
		d.Counters.UnknownElements++
	}
	return false
}

// node decodes the element behind a Hello, if it is the node's address, and
// returns what is behind that.
func (d *Decoder) node(elements []byte, h *Hello) []byte {
	if len(elements) < attrHeader || binary.BigEndian.Uint16(elements[2:]) != elementNode {
		return elements
	}
	_, v, rest := d.element(elements)
	if len(v) >= nodeSize {
		h.Node = decodeAddress(v)
	}
	return rest
}

// enclosable says whether v is a message about a flow or an expectation.
func enclosable(v []byte) bool {
	size, cause := checkSize(v)
	return cause == 0 && size == len(v) && v[0]>>4 == wireVersion && v[0]&0xf <= typeExpDestroy && headerGood(v)
}

// addressed decodes what extends a resync.
func (d *Decoder) addressed(elements []byte, r *Resync) {
	for len(elements) > 0 {
		var typ uint16
		var v []byte
		typ, v, elements = d.element(elements)
		switch {
		case typ == elementAddress && len(v) >= addressSize:
			r.Asked, r.Asks = decodeAddress(v[:16]), decodeAddress(v[16:32])
		case v != nil:
			d.Counters.UnknownElements++
		}
	}
}

// maxAttributes bounds how many attributes one flow's extension brings. A
// flow's tail is searched from its start, so a datagram full of thousands would
// cost every stage a tenth of a second; what is beyond is counted and skipped.
const maxAttributes = 32

// extend decodes what extends a flow, when its identity is known and the rest
// is not: the reply tuple depends on ports that come here. Attributes of the
// tail go to d.tail, each type once.
func (d *Decoder) extend(r *reader, f *flow.Flow, elements []byte) {
	for attributes := 0; len(elements) > 0; {
		var typ uint16
		var v []byte
		typ, v, elements = d.element(elements)
		switch {
		case typ == elementPorts && len(v) >= 4:
			readPorts(v, &f.Original)
		case typ == elementZones && len(v) >= 4:
			f.ZoneOriginal = binary.BigEndian.Uint16(v)
			f.ZoneReply = binary.BigEndian.Uint16(v[2:])
		case typ == elementReply && len(v) >= replySize:
			r.hasReply = true
			f.Reply.Source = [16]byte(v)
			f.Reply.Destination = [16]byte(v[16:])
			readPorts(v[32:], &f.Reply)
		case typ == elementZone && len(v) >= 4:
			f.Zone = binary.BigEndian.Uint16(v)
		case typ == elementNoLabels:
			r.noLabels = true
		case typ == elementAttribute && len(v) >= 4 && attributes < maxAttributes:
			attributes++
			t := flow.Attr(binary.BigEndian.Uint16(v))
			if !d.tail.Has(t) {
				d.tail = d.tail.Append(t, v[4:])
			}
		case v != nil:
			d.Counters.UnknownElements++
		}
	}
}

func readPorts(v []byte, t *flow.Tuple) {
	t.SourcePort = binary.BigEndian.Uint16(v)
	t.DestinationPort = binary.BigEndian.Uint16(v[2:])
}
