package kit

import (
	"encoding/binary"
	"fmt"

	"github.com/sluice-project/sluice/core/flow"
)

// UnknownAttribute is the type of an attribute that no plugin knows. Every flow of
// Event has it, with a value of six bytes that begins with the flow's number.
const UnknownAttribute flow.Attr = 60000

// Event makes an event about flow number n. Flows of different numbers differ in
// their keys, and go through protocols (TCP, UDP, ICMP, SCTP), families, states,
// zones 0 to 2 and marks 0 to 15; all fields are present.
func Event(kind flow.Kind, n uint32) flow.Event {
	e := flow.Event{Kind: kind}
	f := &e.Flow
	shape := n / 5 // so that each protocol meets each mark and state
	f.Family, f.Protocol = flow.IPv4, [5]uint8{flow.TCP, flow.UDP, flow.TCP, flow.ICMP, flow.SCTP}[n%5]
	f.Original.SourcePort, f.Original.DestinationPort = uint16(1024+n%60000), [5]uint16{80, 443, 22, 53, 5060}[shape%5]
	if n%5 == 2 {
		f.Family = flow.IPv6
		f.Original.Source, f.Original.Destination = [16]byte{0x20, 1, 0xd, 0xb8}, [16]byte{0x20, 1, 0xd, 0xb8, 0, 1}
		binary.BigEndian.PutUint32(f.Original.Source[12:], n)
		f.Original.Destination[15] = byte(shape)
	} else {
		binary.BigEndian.PutUint32(f.Original.Source[:], 10<<24|n&0xffffff)
		f.Original.Destination = [16]byte{192, 0, 2, byte(shape)}
	}
	switch f.Protocol {
	case flow.ICMP:
		f.Original.DestinationPort = 8 << 8
	case flow.TCP:
		f.State = uint8(1 + shape%9)
	case flow.SCTP:
		f.State = uint8(1 + shape%8)
	}
	f.Reply = f.Original.Inverted(f.Protocol)
	f.Zone = uint16(shape % 3)
	f.Status = flow.Confirmed | flow.SeenReply | flow.Assured
	f.Timeout, f.Mark, f.ID = 120+n%1000, shape%16, n+1
	f.WindowScale, f.TCPFlags = [2]uint8{7, 9}, [2]uint8{0x23, 0x23}
	f.Present = flow.HasReply | flow.HasStatus | flow.HasTimeout | flow.HasMark | flow.HasID
	switch f.Protocol {
	case flow.TCP:
		f.Present |= flow.HasState | flow.HasWindowScale | flow.HasTCPFlags
	case flow.SCTP:
		f.Present |= flow.HasState
		fallthrough
	default:
		f.WindowScale, f.TCPFlags = [2]uint8{}, [2]uint8{}
	}
	if n%3 == 0 {
		f.Tail = f.Tail.Append(flow.AttrHelper, []byte("ftp"))
	}
	f.Tail = f.Tail.Append(UnknownAttribute, unknownValue(n))
	return e
}

func unknownValue(n uint32) []byte {
	return append(binary.BigEndian.AppendUint32(nil, n), 0xa5, 0x5a)
}

// Events makes an event of each kind about each of count flows from number first
// on, flow by flow.
func Events(first, count uint32, kinds ...flow.Kind) (events []flow.Event) {
	for n := first; n < first+count; n++ {
		for _, kind := range kinds {
			events = append(events, Event(kind, n))
		}
	}
	return events
}

// Pack makes packets of events: batches of at most size records (0: as many as
// fit) with the header h.
func Pack(h flow.Header, size int, events ...flow.Event) (packets [][]byte) {
	var b flow.Builder
	b.Reset(h)
	flush := func() {
		if b.Len() > 0 {
			packets = append(packets, append([]byte(nil), b.Bytes()...))
		}
		b.Reset(h)
	}
	for i := range events {
		if size > 0 && b.Len() == size {
			flush()
		}
		if !b.Append(&events[i]) {
			flush()
			b.Append(&events[i])
		}
	}
	flush()
	return packets
}

// Replayed puts events, which should be of kind flow.Update, between the marks of
// a replay.
func Replayed(flags flow.SyncFlags, events ...flow.Event) []flow.Event {
	all := []flow.Event{{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flags}}}
	all = append(all, events...)
	return append(all, flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: flags, Count: uint64(len(events))}})
}

// identity is what an event is about, in a form that can be compared.
type identity struct {
	kind flow.Kind
	key  flow.Key
}

func identityOf(e *flow.Event) identity {
	if e.IsMark() {
		return identity{kind: e.Kind}
	}
	return identity{e.Kind, e.Key()}
}

// name writes an event for a message.
func name(e *flow.Event) string {
	if e.IsMark() {
		return fmt.Sprintf("%v (count %d)", e.Kind, e.Sync.Count)
	}
	return e.String()
}
