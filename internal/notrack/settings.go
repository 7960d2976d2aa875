package notrack

import (
	"fmt"
	"strconv"
	"strings"
)

// A Version is a release of conntrackd 1.4, by its last number: Version(7) is
// 1.4.7. The zero Version stands for the newest.
type Version uint8

// The releases between which the format changed.
const (
	Oldest Version = 2 // the oldest that was tried: attributes up to labels
	v144   Version = 4 // IPv6 NAT
	v145   Version = 5 // synproxy
	v147   Version = 7 // zones; IPv4 NAT addresses in network order
	Newest Version = 9
)

// ParseVersion reads "1.4.2" to "1.4.9".
func ParseVersion(s string) (Version, error) {
	last, ok := strings.CutPrefix(s, "1.4.")
	n, err := strconv.ParseUint(last, 10, 8)
	if !ok || err != nil || Version(n) < Oldest || Version(n) > Newest {
		return 0, fmt.Errorf("%q is no release of conntrackd that is known here: write one from \"1.4.%d\" to \"1.4.%d\"",
			s, Oldest, Newest)
	}
	return Version(n), nil
}

// UnmarshalText is ParseVersion.
func (v *Version) UnmarshalText(text []byte) (err error) {
	*v, err = ParseVersion(string(text))
	return err
}

// String writes the release as ParseVersion reads it, or "" for the zero one.
func (v Version) String() string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("1.4.%d", v)
}

// ReversesNAT says whether the release, on a little-endian machine, reverses
// the bytes of IPv4 NAT addresses, both when it sends and when it receives.
func (v Version) ReversesNAT() bool { return v != 0 && v < v147 }

// highest is the highest attribute that the release knows. It drops a message
// with a higher one.
func (v Version) highest() int {
	switch {
	case v == 0 || v >= v147:
		return attrZone
	case v >= v145:
		return attrSynproxy
	case v >= v144:
		return attrDestIPv6
	}
	return attrLabels
}

// ByteOrders are the two places where nothing on the wire says how a sender
// writes its numbers. The zero value suits conntrackd from 1.4.7 on x86 and
// other little-endian machines, and every Sluice node.
type ByteOrders struct {
	// BigEndianPorts: translated ports and ICMP ids are in the sender's byte
	// order, and the sender is big-endian.
	BigEndianPorts bool
	// ReversedNAT: translated IPv4 addresses come with their bytes reversed.
	// See Version.ReversesNAT.
	ReversedNAT bool
}

// Settings say what an Encoder writes.
type Settings struct {
	ByteOrders

	// Peer is the oldest conntrackd that listens. Attributes it does not know
	// are left out, and so are flows that it would take for others. Zero: 1.4.7
	// or newer, or Sluice.
	Peer Version

	// Timeout sends the seconds a flow has left.
	Timeout bool

	// WindowScale sends the window scales of TCP flows.
	WindowScale bool

	// NoExtension never appends Sluice's extension to a flow.
	NoExtension bool

	// Room is how many bytes a datagram has for messages, and so what a message
	// and its extension must stay below. 0 means 1472.
	Room int

	// Artefacts adds what conntrackd sends without meaning. Leave it zero; tests
	// use it to show that all else is the same to the last byte.
	Artefacts Artefacts
}

// Artefacts are bytes that conntrackd sends although they say nothing.
type Artefacts uint8

// The artefacts of conntrackd.
const (
	// ICMPPorts sends translated ports 0 for ICMP flows with a NAT_DONE bit,
	// as conntrackd does after comparing type and code with the id.
	ICMPPorts Artefacts = 1 << iota
	// EmptySynproxy sends SYNPROXY with three zeros for every flow that has
	// none, as conntrackd does for flows that were made over netlink.
	EmptySynproxy
	// DyingStatus sends the DYING bit with flows that ended, as conntrackd
	// without an internal cache does.
	DyingStatus
	// IPv6NATAsIPv4 sends the IPv4 address 0.0.0.0 for the translated ends of
	// IPv6 flows, as conntrackd up to 1.4.3 does.
	IPv6NATAsIPv4
	// ExpectationUpdates sends expectations as updates, as conntrackd does after
	// it read them again.
	ExpectationUpdates
)

func (a Artefacts) has(b Artefacts) bool { return a&b != 0 }
