package main

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A frame is one TCP segment over IPv4 and Ethernet, without payload.
const frameSize = 14 + 20 + 20

// Steps of a connection, each one packet. The client opens and closes.
const (
	stepSYN = iota
	stepSYNACK
	stepACK
	stepFIN
	stepFINACK
	stepLast
	steps
)

// EventsPerConnection is how many ctnetlink events the kernel makes of the six
// packets of a connection: NEW, SYN_RECV, ESTABLISHED, FIN_WAIT, LAST_ACK and
// TIME_WAIT. The DESTROY comes two minutes later.
const EventsPerConnection = 6

// Sequence numbers of both sides.
const (
	clientISN = 1000
	serverISN = 5000
)

const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagACK = 0x10
)

// A segment is what differs between the steps.
type segment struct {
	fromServer bool
	flags      byte
	seq, ack   uint32
}

var segments = [steps]segment{
	stepSYN:    {false, flagSYN, clientISN, 0},
	stepSYNACK: {true, flagSYN | flagACK, serverISN, clientISN + 1},
	stepACK:    {false, flagACK, clientISN + 1, serverISN + 1},
	stepFIN:    {false, flagFIN | flagACK, clientISN + 1, serverISN + 1},
	stepFINACK: {true, flagFIN | flagACK, serverISN + 1, clientISN + 2},
	stepLast:   {false, flagACK, clientISN + 2, serverISN + 2},
}

// client returns the address and port from which connection i comes: 32,768
// ports of each address from 10.80.0.0 on.
func client(i int) netip.AddrPort {
	n := uint32(10<<24|80<<16) + uint32(i>>15)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), uint16(1024+i&0x7fff))
}

// writeFrame writes the packet of a step of connection i into p.
func writeFrame(p []byte, step, i int, from, to net.HardwareAddr, server netip.AddrPort) {
	s := &segments[step]
	source, destination := client(i), server
	if s.fromServer {
		source, destination = destination, source
	}
	be := binary.BigEndian
	copy(p[0:], to)
	copy(p[6:], from)
	be.PutUint16(p[12:], unix.ETH_P_IP)

	ip := p[14:34]
	copy(ip, []byte{0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, unix.IPPROTO_TCP, 0, 0})
	src, dst := source.Addr().As4(), destination.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	be.PutUint16(ip[10:], ^sum(0, ip))

	tcp := p[34:54]
	be.PutUint16(tcp[0:], source.Port())
	be.PutUint16(tcp[2:], destination.Port())
	be.PutUint32(tcp[4:], s.seq)
	be.PutUint32(tcp[8:], s.ack)
	copy(tcp[12:], []byte{5 << 4, s.flags, 0xff, 0xff, 0, 0, 0, 0})
	pseudo := sum(uint32(unix.IPPROTO_TCP)+20, ip[12:20])
	be.PutUint16(tcp[16:], ^sum(uint32(pseudo), tcp))
}

// sum is the Internet checksum's sum of p, an even number of bytes.
func sum(n uint32, p []byte) uint16 {
	for ; len(p) > 1; p = p[2:] {
		n += uint32(p[0])<<8 | uint32(p[1])
	}
	for n>>16 != 0 {
		n = n>>16 + n&0xffff
	}
	return uint16(n)
}
