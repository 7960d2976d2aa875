package conntrackdcli

import (
	"encoding/xml"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/core/flow"
)

// An Entry is a line of a cache's dump in JSON.
type Entry struct {
	flow.View
	Owner  string `json:"owner"`
	Active uint64 `json:"active"` // seconds since it became known
}

// protocolName returns the name by which conntrackd prints a protocol.
func protocolName(number uint8) string {
	switch number {
	case flow.TCP, flow.UDP, flow.UDPLite, flow.SCTP, flow.DCCP, flow.GRE, flow.ICMP, flow.ICMPv6:
		return flow.ProtocolName(number)
	}
	return "unknown"
}

func (e *Entry) has(status string) bool { return slices.Contains(e.Status, status) }

// unreplied says whether the flow is known to have had no reply.
func (e *Entry) unreplied() bool { return e.Status != nil && !e.has("SEEN_REPLY") }

// AppendText appends a flow as conntrackd -i prints it, or, without its second
// tuple, as -e does: conntrackd does not know the reply of a peer's flow.
func (e *Entry) AppendText(p []byte, external bool) []byte {
	if e.Mask != nil {
		return e.appendExpectation(p)
	}
	p = fmt.Appendf(p, "%-8s %d ", protocolName(e.ProtocolNumber), e.ProtocolNumber)
	if e.State != "" {
		p = append(append(p, e.State...), ' ')
	}
	p = appendTuple(p, "src=", "dst=", "", &e.Original)
	p = appendNonZero(p, "zone-orig=", e.ZoneOriginal)
	if e.unreplied() {
		p = append(p, "[UNREPLIED] "...)
	}
	if e.Reply != nil && !external {
		p = appendTuple(p, "src=", "dst=", "", e.Reply)
		p = appendNonZero(p, "zone-reply=", e.ZoneReply)
	}
	if e.has("ASSURED") {
		p = append(p, "[ASSURED] "...)
	}
	if e.Mark != nil {
		p = fmt.Appendf(p, "mark=%d ", *e.Mark)
	}
	p = appendNonZero(p, "zone=", e.Zone)
	if e.Helper != "" {
		p = fmt.Appendf(p, "helper=%s ", e.Helper)
	}
	return fmt.Appendf(p, "[active since %ds]\n", e.Active)
}

func appendNonZero(p []byte, name string, v uint16) []byte {
	if v == 0 {
		return p
	}
	return fmt.Appendf(p, "%s%d ", name, v)
}

// appendTuple appends a tuple with a space behind each part.
func appendTuple(p []byte, source, destination, ports string, t *flow.TupleView) []byte {
	p = fmt.Appendf(p, "%s%v %s%v ", source, t.Source, destination, t.Destination)
	switch {
	case t.SourcePort != nil:
		p = fmt.Appendf(p, "%ssport=%d %sdport=%d ", ports, *t.SourcePort, ports, *t.DestinationPort)
	case t.ICMPType != nil:
		p = fmt.Appendf(p, "type=%d code=%d id=%d ", *t.ICMPType, *t.ICMPCode, *t.ICMPID)
	case t.SourceKey != nil:
		p = fmt.Appendf(p, "srckey=%#x dstkey=%#x ", *t.SourceKey, *t.DestinationKey)
	}
	return p
}

// AppendXML appends a flow as conntrackd -i -x prints it, or as -e -x does.
func (e *Entry) AppendXML(p []byte, external bool) []byte {
	if e.Mask != nil {
		return e.appendExpectationXML(p)
	}
	p = append(p, "<flow>"...)
	p = appendMetaXML(p, "original", e.ProtocolNumber, &e.Original)
	reply := e.Reply
	if external {
		reply = nil
	}
	p = appendMetaXML(p, "reply", e.ProtocolNumber, reply)
	p = append(p, `<meta direction="independent">`...)
	if e.State != "" {
		p = fmt.Appendf(p, "<state>%s</state>", e.State)
	}
	if e.Mark != nil {
		p = fmt.Appendf(p, "<mark>%d</mark>", *e.Mark)
	}
	if e.Zone != 0 {
		p = fmt.Appendf(p, "<zone>%d</zone>", e.Zone)
	}
	if e.ID != nil && !external {
		p = fmt.Appendf(p, "<id>%d</id>", *e.ID)
	}
	if e.has("ASSURED") {
		p = append(p, "<assured/>"...)
	}
	if e.unreplied() {
		p = append(p, "<unreplied/>"...)
	}
	p = append(p, "</meta>"...)
	if e.Helper != "" {
		p = fmt.Appendf(p, "<helper>%s</helper>", escape(e.Helper))
	}
	return append(p, "</flow>\n"...)
}

// appendMetaXML appends one direction; t is nil if it is not known.
func appendMetaXML(p []byte, direction string, protocol uint8, t *flow.TupleView) []byte {
	p = fmt.Appendf(p, `<meta direction="%s">`, direction)
	if t == nil {
		p = append(p, `<layer3 protonum="0" protoname="unknown"><src></src><dst></dst></layer3>`...)
		return append(p, `<layer4 protonum="0" protoname="unknown"></layer4></meta>`...)
	}
	p = append(p, layer3(t.Source)...)
	p = appendAddressesXML(p, t)
	p = fmt.Appendf(p, `</layer3><layer4 protonum="%d" protoname="%s">`, protocol, protocolName(protocol))
	p = appendPortsXML(p, t)
	return append(p, "</layer4></meta>"...)
}

// layer3 opens the element of the addresses; the number is that of the socket
// family.
func layer3(a netip.Addr) string {
	if a.Is4() {
		return `<layer3 protonum="2" protoname="ipv4">`
	}
	return `<layer3 protonum="10" protoname="ipv6">`
}

func appendAddressesXML(p []byte, t *flow.TupleView) []byte {
	return fmt.Appendf(p, "<src>%v</src><dst>%v</dst>", t.Source, t.Destination)
}

// appendPortsXML appends ports or keys; of ICMP conntrackd prints nothing here.
func appendPortsXML(p []byte, t *flow.TupleView) []byte {
	switch {
	case t.SourcePort != nil:
		p = fmt.Appendf(p, "<sport>%d</sport><dport>%d</dport>", *t.SourcePort, *t.DestinationPort)
	case t.SourceKey != nil:
		p = fmt.Appendf(p, "<srckey>%#x</srckey><dstkey>%#x</dstkey>", *t.SourceKey, *t.DestinationKey)
	}
	return p
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text)) // a Builder takes all
	return b.String()
}
