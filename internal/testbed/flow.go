package testbed

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Tuple is one direction of a flow. Ports are those of TCP, UDP, UDP-Lite, SCTP
// and DCCP; ICMP has a type, a code and an identifier instead.
type Tuple struct {
	Src, Dst           netip.Addr
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8
	ICMPID             uint16
	Zone               uint16 // of this direction alone
}

// Key is what identifies a flow within one namespace.
type Key struct {
	Proto uint8
	Orig  Tuple
	Zone  uint16
}

// TCPState is the kernel's TCP state of a flow (enum tcp_conntrack), or
// NoTCPState for other protocols.
type TCPState int8

// NoTCPState is the state of flows that have none.
const NoTCPState TCPState = -1

var tcpStates = []string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

// The TCP states that tests ask for most.
const (
	SynSent     TCPState = 1
	Established TCPState = 3
	TimeWait    TCPState = 7
	Close       TCPState = 8
)

// String is the name that conntrack(8) prints.
func (s TCPState) String() string {
	if s < 0 || int(s) >= len(tcpStates) {
		return fmt.Sprintf("TCP_STATE_%d", int8(s))
	}
	return tcpStates[s]
}

// Bits of Flow.Status (enum ip_conntrack_status).
const (
	StatusExpected  = 0x1
	StatusSeenReply = 0x2
	StatusAssured   = 0x4
	StatusConfirmed = 0x8
	StatusSrcNAT    = 0x10
	StatusDstNAT    = 0x20
	StatusNATDone   = 0x180
)

// Flow is a tracked connection as the kernel or a peer's cache tells it, in a
// form that can be compared with ==.
type Flow struct {
	Key
	Reply   Tuple
	Status  uint32
	Timeout uint32 // seconds left
	Mark    uint32
	Labels  string // in hexadecimal, empty if none is set
	Helper  string
	Master  Tuple // of the master's original direction, zero if there is none

	TCP       TCPState
	TCPWindow [2]uint8 // window scales, original and reply
	TCPFlags  [2]uint8 // as dumped, original and reply
	SCTPState uint8
	SCTPTags  [2]uint32
	SeqAdjust [2]SeqAdjust
	ID        uint32    // CTA_ID, which means something in one kernel only
	SynProxy  [3]uint32 // ISN, ITS, TSOff
}

// SeqAdjust is how far TCP sequence numbers were shifted by a helper.
type SeqAdjust struct{ Position, Before, After uint32 }

// Translated tells whether the reply direction is not the mirror of the
// original one.
func (f Flow) Translated() bool {
	o, r := f.Orig, f.Reply
	if o.Src != r.Dst || o.Dst != r.Src {
		return true
	}
	if hasICMP(f.Proto) {
		return o.ICMPID != r.ICMPID
	}
	return o.SrcPort != r.DstPort || o.DstPort != r.SrcPort
}

func hasICMP(proto uint8) bool { return proto == unix.IPPROTO_ICMP || proto == unix.IPPROTO_ICMPV6 }

// protoNames are the names that conntrack(8) prints.
var protoNames = map[uint8]string{
	unix.IPPROTO_TCP:     "tcp",
	unix.IPPROTO_UDP:     "udp",
	unix.IPPROTO_UDPLITE: "udplite",
	unix.IPPROTO_ICMP:    "icmp",
	unix.IPPROTO_ICMPV6:  "icmpv6",
	unix.IPPROTO_SCTP:    "sctp",
	unix.IPPROTO_DCCP:    "dccp",
	unix.IPPROTO_GRE:     "gre",
}

func protoName(proto uint8) string {
	if name, known := protoNames[proto]; known {
		return name
	}
	return "unknown"
}

// String is the flow on one line, much as conntrack(8) prints it.
func (f Flow) String() string {
	words := []string{fmt.Sprintf("%s %d %d", protoName(f.Proto), f.Proto, f.Timeout)}
	if f.TCP != NoTCPState {
		words = append(words, f.TCP.String())
	}
	words = append(words, f.Orig.text(f.Proto), f.Reply.text(f.Proto))
	words = append(words, fmt.Sprintf("status=0x%x mark=%d", f.Status, f.Mark))
	if f.Zone != 0 {
		words = append(words, fmt.Sprintf("zone=%d", f.Zone))
	}
	if f.Labels != "" {
		words = append(words, "labels="+f.Labels)
	}
	if f.Helper != "" {
		words = append(words, "helper="+f.Helper)
	}
	if f.Master != (Tuple{}) {
		words = append(words, "master("+f.Master.text(unix.IPPROTO_TCP)+")")
	}
	return strings.Join(words, " ")
}

// String is the key on one line.
func (k Key) String() string {
	text := protoName(k.Proto) + " " + k.Orig.text(k.Proto)
	if k.Zone != 0 {
		text += fmt.Sprintf(" zone=%d", k.Zone)
	}
	return text
}

func (t Tuple) text(proto uint8) string {
	text := fmt.Sprintf("src=%s dst=%s", t.Src, t.Dst)
	if hasICMP(proto) {
		text += fmt.Sprintf(" type=%d code=%d id=%d", t.ICMPType, t.ICMPCode, t.ICMPID)
	} else if t.SrcPort != 0 || t.DstPort != 0 {
		text += fmt.Sprintf(" sport=%d dport=%d", t.SrcPort, t.DstPort)
	}
	if t.Zone != 0 {
		text += fmt.Sprintf(" zone=%d", t.Zone)
	}
	return text
}
