package flow

import (
	"net/netip"
	"slices"
)

// A Screen is what a filter tells of itself: flows that certainly do not get
// past it, whatever else it looks at. A source that is told can leave them out
// early. An event passes when both lists that are present pass it:
//
//  1. A list passes what it names if Accept is set, and else what it does not.
//  2. Protocols are layer-4 protocols.
//  3. Addresses are compared with the original source and the reply source, the
//     real ends of a translated flow; without a reply tuple with the original
//     destination instead. A flow is named if either is in a prefix. A prefix is
//     of one family, and names no address of the other.
//
// It says nothing about expectations.
type Screen struct {
	Protocols *ProtocolList // nil: all pass
	Addresses *AddressList  // nil: all pass
}

// A ProtocolList names layer-4 protocols.
type ProtocolList struct {
	Accept    bool
	Protocols []uint8
}

// An AddressList names addresses.
type AddressList struct {
	Accept   bool
	Prefixes []netip.Prefix
}

// Passes says whether the screen lets a flow pass. It looks at each prefix, so it
// is for tests and for small lists.
func (s *Screen) Passes(f *Flow) bool {
	if l := s.Protocols; l != nil && slices.Contains(l.Protocols, f.Protocol) != l.Accept {
		return false
	}
	if l := s.Addresses; l != nil && l.names(f) != l.Accept {
		return false
	}
	return true
}

func (l *AddressList) names(f *Flow) bool {
	answers := f.Original.Destination
	if f.Has(HasReply) {
		answers = f.Reply.Source
	}
	one, other := Address(f.Family, f.Original.Source), Address(f.Family, answers)
	return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(one) || p.Contains(other) })
}
