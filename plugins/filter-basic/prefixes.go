package filterbasic

import (
	"encoding/binary"
	"slices"

	"github.com/sluice-project/sluice/core/flow"
)

// prefixes is a set of IPv4 and IPv6 prefixes: for each length in use a hashed
// set of masked addresses, so that a lookup costs one step a length, however
// many prefixes there are.
type prefixes struct {
	v4 []v4Length
	v6 []v6Length
}

type v4Length struct {
	mask uint32
	set  map[uint32]struct{}
}

type v6Length struct {
	high, low uint64 // the mask
	set       map[v6]struct{}
}

// v6 is an IPv6 address as two integers.
type v6 struct{ high, low uint64 }

// add adds an address or a prefix.
func (p *prefixes) add(text string) error {
	prefix, err := parsePrefix(text)
	if err != nil {
		return err
	}
	address, family := flow.Bytes(prefix.Addr())
	if family == flow.IPv4 {
		p.add4(binary.BigEndian.Uint32(address[:]), prefix.Bits())
	} else {
		p.add6(number6(&address), prefix.Bits())
	}
	return nil
}

func (p *prefixes) add4(a uint32, bits int) {
	mask := uint32(0xffffffff) << (32 - bits)
	i := slices.IndexFunc(p.v4, func(l v4Length) bool { return l.mask == mask })
	if i < 0 {
		i = len(p.v4)
		p.v4 = append(p.v4, v4Length{mask, map[uint32]struct{}{}})
	}
	p.v4[i].set[a&mask] = struct{}{}
}

func (p *prefixes) add6(a v6, bits int) {
	all := ^uint64(0)
	high, low := all<<max(0, 64-bits), all<<min(64, 128-bits)
	i := slices.IndexFunc(p.v6, func(l v6Length) bool { return l.high == high && l.low == low })
	if i < 0 {
		i = len(p.v6)
		p.v6 = append(p.v6, v6Length{high, low, map[v6]struct{}{}})
	}
	p.v6[i].set[v6{a.high & high, a.low & low}] = struct{}{}
}

// contain says whether an address, in a flow.Tuple's form, is in the set.
func (p *prefixes) contain(family uint8, address *[16]byte) bool {
	if family == flow.IPv4 {
		a := binary.BigEndian.Uint32(address[:])
		for i := range p.v4 {
			if _, ok := p.v4[i].set[a&p.v4[i].mask]; ok {
				return true
			}
		}
		return false
	}
	a := number6(address)
	for i := range p.v6 {
		l := &p.v6[i]
		if _, ok := l.set[v6{a.high & l.high, a.low & l.low}]; ok {
			return true
		}
	}
	return false
}

func number6(b *[16]byte) v6 {
	return v6{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}
