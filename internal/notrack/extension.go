package notrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/sluice-project/sluice/core/flow"
)

// The extension travels in control messages with the flag ALIVE that are
// longer than 8 bytes, which conntrackd takes for an ordinary sign of life.
// Behind the header come 4 bytes: two of magic, the version, the scope. Then
// elements one after another, laid out like attributes: length (its own 4
// bytes included, padding not), type, value, zero padding to 4. All numbers
// are in network order. Elements of unknown type are skipped.
const (
	extensionHeader  = headerSize + 4
	extensionVersion = 1
	extensionMagic   = 'S'<<8 | 'L'
)

// Scopes of an extension message.
const (
	scopeAlone    = 0 // says something by itself
	scopePrevious = 1 // extends the message right before it in the datagram
)

// Elements that stand alone.
const (
	elementHello     = 1 // u8 highest version, 3 × 0, u32 capabilities, name
	elementReplay    = 2 // u64 id: of the flows that follow in this datagram
	elementSyncBegin = 3 // u64 id, u32 flags
	elementSyncEnd   = 4 // u64 id, u32 flags, u64 count
	elementMessage   = 5 // a message that is not for conntrackd; what follows extends it
	elementNode      = 6 // address: behind a Hello, by which the node is known
	elementFrame     = 7 // u32 length of what was sent at once, behind this message
)

// Elements that extend the message before.
const (
	elementAddress   = 16 // of a resync: address asked (zero: all), who asks
	elementPorts     = 17 // u16 source, u16 destination port of the original tuple
	elementZones     = 18 // u16 original, u16 reply
	elementReply     = 19 // the whole reply tuple: addresses, then ports
	elementNoLabels  = 20 // all labels are cleared
	elementAttribute = 21 // u16 type, u16 0, value of an attribute of flow's tail
	elementZone      = 22 // u16 zone, u16 0
)

const (
	helloSize     = 8
	replaySize    = 8
	syncBeginSize = 12
	syncEndSize   = 20
	addressSize   = 32
	nodeSize      = 16
	frameSize     = 4
	replySize     = 36

	// MaxName is the longest name of a node, in bytes.
	MaxName = 64
)

// A Hello is how a node makes itself known, now and then.
type Hello struct {
	Version      uint8  // highest version of the extension that it speaks
	Capabilities uint32 // none are defined; unknown bits are ignored
	Name         []byte // at most MaxName bytes

	// Node is the address by which peers know the node, though it may send from
	// others. Invalid: the address that it sends from.
	Node netip.Addr
}

// appendExtension appends the header of an extension message. The caller
// appends elements and then calls endMessage with the offset at.
func appendExtension(p []byte, scope byte) (q []byte, at int) {
	at = len(p)
	return append(p, wireVersion<<4|typeControl, flagAlive, 0, 0, 0, 0, 0, 0,
		extensionMagic>>8, extensionMagic&0xff, extensionVersion, scope), at
}

// endMessage writes the length of the message that begins at.
func endMessage(p []byte, at int) []byte {
	binary.BigEndian.PutUint16(p[at+2:], uint16(len(p)-at))
	return p
}

func appendElement(p []byte, typ, size int) []byte {
	return binary.BigEndian.AppendUint32(p, uint32(attrHeader+size)<<16|uint32(typ))
}

func appendPadding(p []byte, size int) []byte {
	return append(p, 0, 0, 0)[:len(p)+padded(size)-size]
}

// AppendAlive appends the message that says no more than that the node lives.
func AppendAlive(p []byte) []byte {
	return append(p, wireVersion<<4|typeControl, flagAlive, 0, headerSize, 0, 0, 0, 0)
}

// AppendHello appends a Hello; its Version is this package's.
func AppendHello(p []byte, h *Hello) []byte {
	p, at := appendExtension(p, scopeAlone)
	name := h.Name[:min(len(h.Name), MaxName)]
	p = appendElement(p, elementHello, helloSize+len(name))
	p = append(p, extensionVersion, 0, 0, 0)
	p = binary.BigEndian.AppendUint32(p, h.Capabilities)
	p = appendPadding(append(p, name...), len(name))
	if h.Node.IsValid() {
		p = appendAddress(appendElement(p, elementNode, nodeSize), h.Node)
	}
	return endMessage(p, at)
}

// AppendReplay appends the mark that the flows that follow in this datagram
// belong to the replay id. Packer.SetReplay does this.
func AppendReplay(p []byte, id uint64) []byte {
	p, at := appendExtension(p, scopeAlone)
	p = appendElement(p, elementReplay, replaySize)
	return endMessage(binary.BigEndian.AppendUint64(p, id), at)
}

// AppendSync appends a mark of the replay id: kind is flow.SyncBegin or
// flow.SyncEnd.
func AppendSync(p []byte, id uint64, kind flow.Kind, s flow.Sync) []byte {
	p, at := appendExtension(p, scopeAlone)
	typ, size := elementSyncBegin, syncBeginSize
	if kind == flow.SyncEnd {
		typ, size = elementSyncEnd, syncEndSize
	}
	p = appendElement(p, typ, size)
	p = binary.BigEndian.AppendUint64(p, id)
	p = binary.BigEndian.AppendUint32(p, uint32(s.Flags))
	if kind == flow.SyncEnd {
		p = binary.BigEndian.AppendUint64(p, s.Count)
	}
	return endMessage(p, at)
}

// A Resync asks for everything that a node has of its own. conntrackd asks all
// nodes of the group and does not say who asks: then both are invalid.
type Resync struct {
	Asked netip.Addr // invalid: every node
	Asks  netip.Addr
}

// AppendResync appends the request in conntrackd's form and, if the address of
// the node that asks is valid, the extension with the addresses behind it.
func AppendResync(p []byte, r Resync) []byte {
	p = append(p, wireVersion<<4|typeControl, flagResync, 0, resyncSize,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	if !r.Asks.IsValid() {
		return p
	}
	p, at := appendExtension(p, scopePrevious)
	p = appendElement(p, elementAddress, addressSize)
	p = appendAddress(p, r.Asked)
	return endMessage(appendAddress(p, r.Asks), at)
}

func appendAddress(p []byte, a netip.Addr) []byte {
	if !a.IsValid() {
		return append(p, make([]byte, 16)...)
	}
	b := a.As16()
	return append(p, b[:]...)
}

func decodeAddress(v []byte) netip.Addr {
	a := netip.AddrFrom16([16]byte(v))
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a.Unmap()
}
