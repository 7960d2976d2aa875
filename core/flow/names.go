package flow

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
)

// The TCP states with the kernel's numbers (enum tcp_conntrack in
// linux/netfilter/nf_conntrack_tcp.h).
const (
	TCPNone uint8 = iota
	TCPSynSent
	TCPSynRecv
	TCPEstablished
	TCPFinWait
	TCPCloseWait
	TCPLastAck
	TCPTimeWait
	TCPClose
	TCPSynSent2 // simultaneous open; old kernels called it LISTEN
)

// The SCTP states with the kernel's numbers (enum sctp_conntrack in
// linux/netfilter/nf_conntrack_sctp.h).
const (
	SCTPNone uint8 = iota
	SCTPClosed
	SCTPCookieWait
	SCTPCookieEchoed
	SCTPEstablished
	SCTPShutdownSent
	SCTPShutdownRecd
	SCTPShutdownAckSent
	SCTPHeartbeatSent
)

// A names maps numbers to the names that conntrack(8) prints, and names, with
// more spellings, to numbers.
type names struct {
	what    string
	byValue []string
	aliases map[string]uint8 // in the case of byValue
}

var tcpStates = names{
	what: "TCP state",
	byValue: []string{
		"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
	},
	// conntrackd.conf writes CLOSED and LISTEN.
	aliases: map[string]uint8{"CLOSED": TCPClose, "LISTEN": TCPSynSent2},
}

var sctpStates = names{
	what: "SCTP state",
	byValue: []string{
		"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED",
		"SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT",
	},
}

var protocols = names{
	what: "protocol",
	byValue: []string{
		ICMP: "icmp", TCP: "tcp", UDP: "udp", DCCP: "dccp", GRE: "gre", ICMPv6: "icmpv6", SCTP: "sctp", UDPLite: "udplite",
	},
	// Tracked without ports; conntrack(8) prints these as unknown.
	aliases: map[string]uint8{
		"igmp": 2, "ipip": 4, "ipv6": 41, "rsvp": 46, "esp": 50, "ah": 51, "ipv6-icmp": ICMPv6, "eigrp": 88, "ospf": 89,
		"etherip": 97, "pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115,
	},
}

var statusNames = []string{
	"EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED", "SRC_NAT", "DST_NAT", "SEQ_ADJUST", "SRC_NAT_DONE", "DST_NAT_DONE",
	"DYING", "FIXED_TIMEOUT", "TEMPLATE", "NAT_CLASH", "HELPER", "OFFLOAD", "HW_OFFLOAD",
}

// name returns the name of v, or "".
func (n *names) name(v uint8) string {
	if int(v) < len(n.byValue) {
		return n.byValue[v]
	}
	return ""
}

// known returns every name, those that are printed first.
func (n *names) known() []string {
	var all, more []string
	for _, name := range n.byValue {
		if name != "" {
			all = append(all, name)
		}
	}
	for name := range n.aliases {
		more = append(more, name)
	}
	slices.Sort(more)
	return append(all, more...)
}

// parse returns the number of a name in any case.
func (n *names) parse(name string) (uint8, error) {
	for v, s := range n.byValue {
		if s != "" && strings.EqualFold(s, name) {
			return uint8(v), nil
		}
	}
	for s, v := range n.aliases {
		if strings.EqualFold(s, name) {
			return v, nil
		}
	}
	return 0, &NameError{What: n.what, Name: name, Near: near(name, n.known()), Known: n.known()}
}

// near returns the known names that differ from name by a slip of the pen, the
// nearest first.
func near(name string, known []string) []string {
	const slips = 2
	distance := func(s string) int {
		return levenshtein.Distance(strings.ToLower(s), strings.ToLower(name), nil)
	}
	var found []string
	for _, s := range known {
		if distance(s) <= min(slips, len(s)/2) {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b string) int { return distance(a) - distance(b) })
	return found
}

// A NameError says that a name is not known, and which are.
type NameError struct {
	What  string   // what it should name, as in "TCP state"
	Name  string   // as it was written
	Near  []string // known names that look alike, the nearest first; may be empty
	Known []string // all known names
}

// Error names the nearest known name, or all where none is near.
func (e *NameError) Error() string {
	if len(e.Near) > 0 {
		return fmt.Sprintf("unknown %s %q: did you mean %q?", e.What, e.Name, e.Near[0])
	}
	return fmt.Sprintf("unknown %s %q: known are %s", e.What, e.Name, strings.Join(e.Known, ", "))
}

// ParseProtocol returns the number of a layer-4 protocol from its name ("tcp",
// "esp") in any case, or from a number. The error is a *NameError.
func ParseProtocol(name string) (uint8, error) {
	if v, err := strconv.ParseUint(name, 10, 8); err == nil {
		return uint8(v), nil
	}
	return protocols.parse(name)
}

// ProtocolName returns the name that conntrack(8) prints for a layer-4
// protocol: one of the eight that the kernel tracks with attributes of their
// own, or "unknown".
func ProtocolName(protocol uint8) string {
	if s := protocols.name(protocol); s != "" {
		return s
	}
	return "unknown"
}

// ParseTCPState returns the number of a TCP state from its name in any case,
// "CLOSED" and "LISTEN" included. The error is a *NameError.
func ParseTCPState(name string) (uint8, error) { return tcpStates.parse(name) }

// ParseSCTPState returns the number of an SCTP state from its name in any
// case. The error is a *NameError.
func ParseSCTPState(name string) (uint8, error) { return sctpStates.parse(name) }

// StateName returns the name of the flow's protocol state, "" where it is not
// known or the protocol has none. Numbers without a name are printed as they are.
func (f *Flow) StateName() string {
	if !f.Has(HasState) {
		return ""
	}
	var s string
	switch f.Protocol {
	case TCP:
		s = tcpStates.name(f.State)
	case SCTP:
		s = sctpStates.name(f.State)
	default:
		return ""
	}
	if s == "" {
		return strconv.Itoa(int(f.State))
	}
	return s
}

// Names returns the names of the bits that are set, as the kernel has them but
// for the prefix IPS_; bits without a name as hexadecimal numbers.
func (s Status) Names() []string {
	names := []string{}
	for i := range 32 {
		switch bit := Status(1) << i; {
		case s&bit == 0:
		case i < len(statusNames):
			names = append(names, statusNames[i])
		default:
			names = append(names, fmt.Sprintf("%#x", uint32(bit)))
		}
	}
	return names
}

// String returns the names of the bits that are set, with | between them.
func (s Status) String() string { return strings.Join(s.Names(), "|") }

// ParseStatus returns the bit of a status name in any case. The error is a
// *NameError.
func ParseStatus(name string) (Status, error) {
	for i, s := range statusNames {
		if strings.EqualFold(s, name) {
			return 1 << i, nil
		}
	}
	return 0, &NameError{What: "status bit", Name: name, Near: near(name, statusNames), Known: statusNames}
}

// String returns "new", "update", "destroy", "sync-begin", "sync-end", "expect"
// or "unexpect".
func (k Kind) String() string {
	return enumName(uint8(k), "", "new", "update", "destroy", "sync-begin", "sync-end", "expect", "unexpect")
}

// String returns "kernel", "own" or "peer".
func (o Origin) String() string { return enumName(uint8(o), "kernel", "own", "peer") }

func enumName(v uint8, names ...string) string {
	if int(v) < len(names) && names[v] != "" {
		return names[v]
	}
	return strconv.Itoa(int(v))
}
