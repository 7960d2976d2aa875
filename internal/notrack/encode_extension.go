package notrack

import (
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
)

// appendFlowExtension appends what the message that begins at could not say
// about f: ports and keys that NOTRACK leaves out, zones of one direction, a
// reply tuple that does not follow from the rest, cleared labels, and
// attributes that NOTRACK has no number for. Usual flows need none of it.
func (enc *Encoder) appendFlowExtension(p []byte, at int, f *flow.Flow, t *tail, carried flow.Tuple) []byte {
	ports := !hasPorts(f.Protocol) && !isICMP(f.Protocol) &&
		(f.Original.SourcePort != 0 || f.Original.DestinationPort != 0)
	zones := f.ZoneOriginal != 0 || f.ZoneReply != 0
	reply := f.Has(flow.HasReply) && f.Reply != carried
	noLabels := t.labels != nil && allZero(t.labels)
	if !ports && !zones && !reply && !noLabels && !t.other {
		return p
	}
	p, ext := appendExtension(p, scopePrevious)
	if ports {
		p = appendElement(p, elementPorts, 4)
		p = appendPortPair(p, &f.Original)
	}
	if zones {
		p = appendElement(p, elementZones, 4)
		p = binary.BigEndian.AppendUint16(p, f.ZoneOriginal)
		p = binary.BigEndian.AppendUint16(p, f.ZoneReply)
	}
	if reply {
		p = appendReply(p, &f.Reply)
	}
	if noLabels {
		p = appendElement(p, elementNoLabels, 0)
	}
	if t.other {
		p = enc.appendOther(p, at, f, t)
	}
	return endMessage(p, ext)
}

func appendReply(p []byte, t *flow.Tuple) []byte {
	p = appendElement(p, elementReply, replySize)
	p = append(p, t.Source[:]...)
	p = append(p, t.Destination[:]...)
	return appendPortPair(p, t)
}

func appendPortPair(p []byte, t *flow.Tuple) []byte {
	p = binary.BigEndian.AppendUint16(p, t.SourcePort)
	return binary.BigEndian.AppendUint16(p, t.DestinationPort)
}

// appendOther appends the attributes of the tail that the message does not
// carry, whole. One that would make the group too long for a datagram is left
// out.
func (enc *Encoder) appendOther(p []byte, at int, f *flow.Flow, t *tail) []byte {
	for typ, v := range f.Tail.All() {
		if t.carries(f.Family, typ, v) {
			continue
		}
		if len(p)-at+attrHeader+4+padded(len(v)) >= enc.s.Room-groupReserve {
			continue
		}
		p = appendElement(p, elementAttribute, 4+len(v))
		p = binary.BigEndian.AppendUint16(p, uint16(typ))
		p = append(p, 0, 0)
		p = appendPadding(append(p, v...), len(v))
	}
	return p
}

// groupReserve is what the mark of a replay takes at a datagram's start.
const groupReserve = extensionHeader + attrHeader + replaySize
