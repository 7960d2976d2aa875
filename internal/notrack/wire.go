package notrack

import "github.com/sluice-project/sluice/core/flow"

// Sizes of headers, in bytes.
const (
	headerSize  = 8  // of every message
	resyncSize  = 16 // of control messages with a range: resync, ack, nack
	attrHeader  = 4
	wireVersion = 1

	// MaxMessage is the most bytes that a message's length field can say.
	MaxMessage = 1<<16 - 1
)

// Types of message: the low nibble of the first byte.
const (
	typeFlowNew     = 0
	typeFlowUpdate  = 1
	typeFlowDestroy = 2
	typeExpNew      = 3
	typeExpUpdate   = 4
	typeExpDestroy  = 5
	typeControl     = 10
)

// Flags: the second byte.
const (
	flagResync    = 0x02
	flagNack      = 0x04
	flagAck       = 0x08
	flagAlive     = 0x10
	flagHello     = 0x20
	flagHelloBack = 0x40
)

// Attributes of flows by number. The comment is the value.
const (
	attrIPv4         = 0  // source, destination of the original direction
	attrIPv6         = 1  // the same
	attrProtocol     = 2  // u8
	attrPort         = 3  // source, destination port
	attrTCPState     = 4  // u8
	attrStatus       = 5  // u32
	attrTimeout      = 6  // u32 seconds
	attrMark         = 7  // u32
	attrMasterIPv4   = 8  // as attrIPv4, of the master
	attrMasterIPv6   = 9  //
	attrMasterProto  = 10 //
	attrMasterPort   = 11 //
	attrSourceIPv4   = 12 // NAT: reply destination; Settings.ReversedNAT
	attrDestIPv4     = 13 // NAT: reply source; Settings.ReversedNAT
	attrSourcePort   = 14 // NAT: reply destination port; Settings.BigEndianPorts
	attrDestPort     = 15 // NAT: reply source port; Settings.BigEndianPorts
	attrSeqAdj       = 16 // 6 × u32
	attrSCTPState    = 17 // u8
	attrSCTPTagOrig  = 18 // u32
	attrSCTPTagReply = 19 // u32
	attrDCCPState    = 20 // u8
	attrDCCPRole     = 21 // u8
	attrICMPType     = 22 // u8
	attrICMPCode     = 23 // u8
	attrICMPID       = 24 // u16; Settings.BigEndianPorts
	attrWindowOrig   = 25 // u8
	attrWindowReply  = 26 // u8
	attrHelper       = 27 // string with its NUL
	attrLabels       = 28 // n × u32, lowest word first
	attrSourceIPv6   = 29 // NAT
	attrDestIPv6     = 30 // NAT
	attrSynproxy     = 31 // 3 × u32: its, isn, tsoff
	attrZone         = 32 // u16
	attrHighest      = attrZone
	helperMax        = 16   // longest attrHelper, header included
	labelsMax        = 1028 // longest attrLabels, header included
	labelWords       = 4    // what the kernel has
	labelsSize       = 4 * labelWords
	seqAdjSize       = 24
	synproxySize     = 12
	tagsSize         = 8
	dccpSize         = 11 // state, role, 0, u64 handshake sequence
	helperNameMax    = helperMax - attrHeader - 1
)

// A numbering is what the attributes of one kind of message are.
type numbering struct {
	// lengths is what the length field of each attribute must say; 0 stands for
	// those of variable length.
	lengths []uint8
	longest func(number int) int // of these
}

func (n *numbering) lengthGood(number, size int) bool {
	if want := n.lengths[number]; want != 0 {
		return size == int(want)
	}
	return size <= n.longest(number)
}

var flowNumbers = numbering{longest: longestOfFlow, lengths: []uint8{
	attrIPv4: 12, attrIPv6: 36, attrProtocol: 5, attrPort: 8, attrTCPState: 5,
	attrStatus: 8, attrTimeout: 8, attrMark: 8,
	attrMasterIPv4: 12, attrMasterIPv6: 36, attrMasterProto: 5, attrMasterPort: 8,
	attrSourceIPv4: 8, attrDestIPv4: 8, attrSourcePort: 6, attrDestPort: 6, attrSeqAdj: 28,
	attrSCTPState: 5, attrSCTPTagOrig: 8, attrSCTPTagReply: 8, attrDCCPState: 5, attrDCCPRole: 5,
	attrICMPType: 5, attrICMPCode: 5, attrICMPID: 6, attrWindowOrig: 5, attrWindowReply: 5,
	attrSourceIPv6: 20, attrDestIPv6: 20, attrSynproxy: 16, attrZone: 6,
}}

func longestOfFlow(number int) int {
	if number == attrHelper {
		return helperMax
	}
	return labelsMax
}

func padded(n int) int { return (n + 3) &^ 3 }

// hasPorts says whether messages about the protocol carry PORT. UDP-Lite and
// GRE are not among them: conntrackd leaves their ports and keys out.
func hasPorts(protocol uint8) bool {
	switch protocol {
	case flow.TCP, flow.UDP, flow.SCTP, flow.DCCP:
		return true
	}
	return false
}

func isICMP(protocol uint8) bool { return protocol == flow.ICMP || protocol == flow.ICMPv6 }
