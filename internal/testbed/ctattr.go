package testbed

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// The part of ctnetlink that Injector speaks (linux/netfilter/nfnetlink.h and
// nfnetlink_conntrack.h). It is written apart from the project's own codec.
const (
	ctNew    = 1 << 8    // NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_NEW (0)
	ctDelete = ctNew + 2 // IPCTNL_MSG_CT_DELETE

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaStatus     = 3
	ctaProtoinfo  = 4
	ctaNATSrc     = 6
	ctaTimeout    = 7
	ctaMark       = 8
	ctaZone       = 18

	ctaNested = 1 << 15
)

// request appends one request for a flow to the buffer. With whole it carries
// everything that makes an entry, else the key and the timeout alone.
func (j *Injector) request(kind, flags uint16, f Flow, whole bool) {
	family := byte(unix.AF_INET)
	if f.Orig.Src.Is6() {
		family = unix.AF_INET6
	}
	start := len(j.buffer)
	j.buffer = append(j.buffer, make([]byte, unix.NLMSG_HDRLEN)...)
	j.buffer = append(j.buffer, family, 0, 0, 0) // nfgenmsg: version 0, no resource
	mirror := Tuple{Src: f.Orig.Dst, Dst: f.Orig.Src, SrcPort: f.Orig.DstPort, DstPort: f.Orig.SrcPort}
	j.tuple(ctaTupleOrig, f.Orig, f.Proto)
	if kind == ctNew {
		j.u32(ctaTimeout, f.Timeout)
	}
	if f.Zone != 0 {
		j.attribute(ctaZone, binary.BigEndian.AppendUint16(nil, f.Zone)...)
	}
	if whole {
		j.tuple(ctaTupleReply, mirror, f.Proto)
		j.u32(ctaStatus, f.Status&^(StatusSrcNAT|StatusNATDone))
		j.u32(ctaMark, f.Mark)
		j.tcpState(f)
		j.sourceNAT(f)
	}
	header := j.buffer[start:]
	binary.NativeEndian.PutUint32(header, uint32(len(header)))
	binary.NativeEndian.PutUint16(header[4:], kind)
	binary.NativeEndian.PutUint16(header[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(header[8:], j.sequence)
}

func (j *Injector) tuple(kind uint16, t Tuple, proto uint8) {
	ipSrc := uint16(1) // CTA_IP_V4_SRC, and V4_DST after it
	if t.Src.Is6() {
		ipSrc = 3
	}
	j.nest(kind, func() {
		j.nest(1, func() { // CTA_TUPLE_IP
			j.attribute(ipSrc, t.Src.AsSlice()...)
			j.attribute(ipSrc+1, t.Dst.AsSlice()...)
		})
		j.nest(2, func() { // CTA_TUPLE_PROTO
			j.attribute(1, proto)
			j.attribute(2, binary.BigEndian.AppendUint16(nil, t.SrcPort)...)
			j.attribute(3, binary.BigEndian.AppendUint16(nil, t.DstPort)...)
		})
	})
}

// tcpState sends state, window scales and flags; the kernel takes the scales
// only if both flag pairs have IP_CT_TCP_FLAG_WINDOW_SCALE (1) in value and
// mask. The other flags are SACK_PERM (2), BE_LIBERAL (8) and MAXACK_SET (20).
func (j *Injector) tcpState(f Flow) {
	if f.TCP == NoTCPState {
		return
	}
	j.nest(ctaProtoinfo, func() {
		j.nest(1, func() { // CTA_PROTOINFO_TCP
			j.attribute(1, byte(f.TCP))
			j.attribute(2, f.TCPWindow[0])
			j.attribute(3, f.TCPWindow[1])
			j.attribute(4, 0x2b, 0x2b)
			j.attribute(5, 0x2b, 0x2b)
		})
	})
}

// sourceNAT says what the reply's destination became; the kernel makes the
// translated reply tuple from that, and must get the plain mirror as reply.
func (j *Injector) sourceNAT(f Flow) {
	if f.Reply.Dst == f.Orig.Src && f.Reply.DstPort == f.Orig.SrcPort {
		return
	}
	minIP := uint16(1) // CTA_NAT_V4_MINIP
	if f.Reply.Dst.Is6() {
		minIP = 4 // CTA_NAT_V6_MINIP
	}
	j.nest(ctaNATSrc, func() {
		j.attribute(minIP, f.Reply.Dst.AsSlice()...)
		j.nest(3, func() { // CTA_NAT_PROTO
			j.attribute(1, binary.BigEndian.AppendUint16(nil, f.Reply.DstPort)...)
		})
	})
}

func (j *Injector) u32(kind uint16, value uint32) {
	j.attribute(kind, binary.BigEndian.AppendUint32(nil, value)...)
}

// attribute appends an attribute and pads it to four bytes.
func (j *Injector) attribute(kind uint16, value ...byte) {
	j.buffer = binary.NativeEndian.AppendUint16(j.buffer, uint16(4+len(value)))
	j.buffer = binary.NativeEndian.AppendUint16(j.buffer, kind)
	j.buffer = append(j.buffer, value...)
	j.buffer = append(j.buffer, make([]byte, -len(value)&3)...)
}

// nest appends an attribute that holds what fill appends.
func (j *Injector) nest(kind uint16, fill func()) {
	start := len(j.buffer)
	j.attribute(kind | ctaNested)
	fill()
	binary.NativeEndian.PutUint16(j.buffer[start:], uint16(len(j.buffer)-start))
}

// netlinkError takes the sequence number and the error from an NLMSG_ERROR.
func netlinkError(message []byte) (uint32, unix.Errno) {
	const size = unix.NLMSG_HDRLEN + 4
	if len(message) < size || binary.NativeEndian.Uint16(message[4:]) != unix.NLMSG_ERROR {
		return 0, 0
	}
	code := int32(binary.NativeEndian.Uint32(message[unix.NLMSG_HDRLEN:]))
	return binary.NativeEndian.Uint32(message[8:]), unix.Errno(-code)
}
