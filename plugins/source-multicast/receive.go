package sourcemulticast

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sizes of what one call receives.
const (
	vectorLength = 64       // datagrams a call
	datagramSize = 64 << 10 // no UDP datagram is longer
	controlSize  = 128      // control messages of one datagram
)

// A received is one datagram with what the kernel says about it. It is valid
// until the next call of receive.
type received struct {
	payload   []byte
	from      netip.AddrPort
	to        netip.Addr // invalid: not told
	device    int        // index of the interface it came in on
	dropped   uint32     // datagrams that the socket had dropped before it, ever
	truncated bool
}

// mmsghdr is struct mmsghdr of linux/socket.h.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// A receiver reads datagrams with recvmmsg into memory that it uses again. It
// does not go through the runtime's poller: the loop waits in poll(2) for
// several descriptors at once.
type receiver struct {
	fd       int
	headers  [vectorLength]mmsghdr
	vectors  [vectorLength]unix.Iovec
	names    [vectorLength]unix.RawSockaddrInet6
	controls [vectorLength][controlSize]byte
	buffers  []byte
}

func newReceiver(fd int) *receiver {
	r := &receiver{fd: fd, buffers: make([]byte, vectorLength*datagramSize)}
	for i := range r.headers {
		r.vectors[i].Base = &r.buffers[i*datagramSize]
		r.vectors[i].SetLen(datagramSize)
		h := &r.headers[i].header
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Iov = &r.vectors[i]
		h.SetIovlen(1)
		h.Control = &r.controls[i][0]
	}
	return r
}

// receive reads what there is, up to vectorLength datagrams, and returns how
// many: 0 if there is none, fewer than vectorLength if these were all.
func (r *receiver) receive() (int, error) {
	for i := range r.headers { // the kernel overwrites these
		r.headers[i].header.Namelen = unix.SizeofSockaddrInet6
		r.headers[i].header.SetControllen(controlSize)
		r.headers[i].header.Flags = 0
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.headers[0])),
			vectorLength, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, errno
		}
	}
}

// datagram returns the datagram i of the last call.
func (r *receiver) datagram(i int) received {
	h := &r.headers[i]
	at := i * datagramSize
	d := received{
		payload:   r.buffers[at : at+int(h.length) : at+int(h.length)],
		from:      r.sender(i),
		truncated: h.header.Flags&unix.MSG_TRUNC != 0,
	}
	d.control(r.controls[i][:h.header.Controllen])
	return d
}

// sender returns the address that a datagram came from, without a zone: all
// peers are on one link.
func (r *receiver) sender(i int) netip.AddrPort {
	name := &r.names[i]
	if name.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(name))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), networkPort(&v4.Port))
	}
	return netip.AddrPortFrom(netip.AddrFrom16(name.Addr).Unmap(), networkPort(&name.Port))
}

// networkPort reads a port as the kernel's structures have it.
func networkPort(p *uint16) uint16 {
	return binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(p))[:])
}

// control reads a datagram's control messages.
func (d *received) control(p []byte) {
	for len(p) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(p)
		if err != nil {
			return
		}
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			d.device = int(binary.NativeEndian.Uint32(data)) // {ifindex, spec_dst, addr}
			d.to = netip.AddrFrom4([4]byte(data[8:12]))
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			d.to = netip.AddrFrom16([16]byte(data)) // {addr, ifindex}
			d.device = int(binary.NativeEndian.Uint32(data[16:]))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			d.dropped = binary.NativeEndian.Uint32(data)
		}
		p = rest
	}
}
