package recording

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"fmt"
	"net/netip"

	"github.com/sluice-project/sluice/core/flow"
)

// An Anonymizer replaces addresses:
//
//  1. The same address always becomes the same other one, so that flows, their
//     replies, masters and expectations still belong together.
//  2. Two addresses that have n leading bits in common become two that have n
//     leading bits in common: networks stay networks.
//  3. Unspecified, loopback and multicast addresses stay: they name nobody. So
//     does the first part of link-local ones.
//  4. Ports, marks, zones, states and times stay. Attributes that are not known
//     here are left out, since they may hold anything.
//
// It is what Xu, Fan, Ammar and Moon published as Crypto-PAn: each bit is turned
// over or not by a secret function of the bits before it. The key is made up and
// forgotten. Who can have traffic of his own recorded learns of prefixes: see
// docs/testing.md.
type Anonymizer struct {
	cipher  cipher.Block
	known   map[netip.Addr]netip.Addr
	event   flow.Event
	builder flow.Builder
}

// NewAnonymizer makes up a key.
func NewAnonymizer() (*Anonymizer, error) {
	key := make([]byte, 16)
	rand.Read(key) // never fails
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("anonymize: %w", err)
	}
	return &Anonymizer{cipher: block, known: map[netip.Addr]netip.Addr{}}, nil
}

// maxKnown bounds how many addresses are remembered, some 60 bytes each; it only
// saves time.
const maxKnown = 1 << 20

// Address returns what stands for an address.
func (a *Anonymizer) Address(real netip.Addr) netip.Addr {
	real = real.Unmap().WithZone("")
	if !real.IsValid() || real.IsUnspecified() || real.IsLoopback() || real.IsMulticast() {
		return real
	}
	if other, ok := a.known[real]; ok {
		return other
	}
	if len(a.known) >= maxKnown {
		clear(a.known)
	}
	other := a.scramble(real)
	a.known[real] = other
	return other
}

func (a *Anonymizer) scramble(real netip.Addr) netip.Addr {
	for other := real; ; {
		other = a.turn(other)
		// An address that names somebody must not become one that names nobody:
		// walk on, which keeps the mapping one to one.
		if !other.IsUnspecified() && !other.IsLoopback() && !other.IsMulticast() && other.IsLinkLocalUnicast() == real.IsLinkLocalUnicast() {
			return other
		}
	}
}

// turn maps all addresses of a family one to one, keeping common prefixes.
func (a *Anonymizer) turn(real netip.Addr) netip.Addr {
	bits, first := real.AsSlice(), 0
	if real.IsLinkLocalUnicast() {
		first = map[bool]int{true: 16, false: 64}[real.Is4()]
	}
	result := append([]byte(nil), bits...)
	for i := first; i < 8*len(bits); i++ {
		// A MAC (CBC, of two blocks) of the bits before, and of how many they are.
		var block [aes.BlockSize]byte
		copy(block[:], bits[:i/8])
		if i%8 != 0 {
			block[i/8] = bits[i/8] &^ (0xff >> (i % 8))
		}
		a.cipher.Encrypt(block[:], block[:])
		block[0] ^= byte(i)
		block[1] ^= byte(len(bits))
		a.cipher.Encrypt(block[:], block[:])
		result[i/8] ^= (block[0] >> 7) << (7 - i%8)
	}
	other, _ := netip.AddrFromSlice(result)
	return other
}

// About removes from a header what names people's places.
func (a *Anonymizer) About(about About) About {
	about.Node, about.Boot, about.Conditions, about.Anonymized = "", "", nil, true
	return about
}

// Batch returns a batch in binary form with other addresses, valid until the next
// call.
func (a *Anonymizer) Batch(b *flow.Batch) []byte {
	h := b.Header
	h.Owner = a.Address(h.Owner)
	a.builder.Reset(h)
	e := &a.event
	for c := b.Cursor(); c.Next(e); {
		if !e.IsMark() {
			a.tuple(e.Family, &e.Original)
			if !e.IsExpectation() { // whose second tuple is a mask
				a.tuple(e.Family, &e.Reply)
			}
			e.Tail = a.tail(e)
		}
		a.builder.Append(e) // no event has grown
	}
	return a.builder.Bytes()
}

func (a *Anonymizer) tuple(family uint8, t *flow.Tuple) {
	for _, end := range []*[16]byte{&t.Source, &t.Destination} {
		if other := a.Address(flow.Address(family, *end)); family == flow.IPv4 {
			*end, _ = flow.Bytes(other)
		} else {
			*end = other.As16() // of an IPv4-mapped one, too
		}
	}
}

// tail returns the attributes that may stay, with other addresses.
func (a *Anonymizer) tail(e *flow.Event) (kept flow.Attributes) {
	for t, value := range e.Tail.All() {
		switch t {
		case flow.AttrMaster:
			if m, ok := e.Tail.Master(); ok {
				a.tuple(m.Family, &m.Tuple)
				kept = kept.AppendMaster(&m)
			}
		case flow.AttrExpectation:
			if x, ok := e.Tail.Expectation(); ok {
				if x.HasNAT {
					a.tuple(e.Family, &x.NAT)
				}
				kept = kept.AppendExpectation(&x)
			}
		case flow.AttrLabels, flow.AttrHelper, flow.AttrSeqAdj, flow.AttrSynproxy, flow.AttrSCTPTags, flow.AttrCounters,
			flow.AttrTimestamps, flow.AttrDCCP, flow.AttrFunction:
			kept = kept.Append(t, value)
		}
	}
	return kept
}
