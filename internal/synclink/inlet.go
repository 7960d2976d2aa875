package synclink

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Inlet is the receiving end of one link. The Receiver's loop calls its
// methods, one at a time.
type Inlet interface {
	// Open begins to receive on an interface as it is now, in place of what was
	// open before, and is called again when the interface has another index or
	// its addresses changed; then it may find that nothing is to be done.
	Open(i *Interface) error

	// Poll appends what a message may come in on.
	Poll(fds []unix.PollFd) []unix.PollFd

	// Receive hands what has come to take, up to some dozens of datagrams, and
	// returns how many, and whether there may be more at once. An error of take
	// ends it.
	Receive(take func(d *Datagram) error) (n int, more bool, err error)

	// Buffer is the size of the receive buffer as getsockopt shows it, 0 if none
	// is open.
	Buffer() int

	// Close ends it.
	Close() error
}

// A Datagram is what a peer sent at once. It is valid until take returns.
type Datagram struct {
	Payload   []byte
	From      netip.AddrPort
	Since     time.Time // when the connection was made that it came over; zero: there is none
	Dropped   uint32    // datagrams that the sockets of the link had dropped before it, ever
	Truncated bool
	Elsewhere bool // it was sent to another address, or came in on another interface
}

// Sizes of what one call receives.
const (
	vectorLength = 64       // datagrams a call
	datagramSize = 64 << 10 // no UDP datagram is longer
	controlSize  = 128      // control messages of one datagram
)

// A DatagramInlet is an Inlet of one UDP socket.
type DatagramInlet struct {
	// Listen opens a socket on an interface: see BindDatagrams.
	Listen func(i *Interface) (fd int, err error)
	// Rejoin, if not nil, makes the open socket receive on the interface, whose
	// index is another. If nil another socket is opened.
	Rejoin func(fd int, i *Interface) error
	// Keeps, if not nil, says whether the socket that is open is right for the
	// interface, whose index is the same.
	Keeps func(i *Interface) bool
	// To is the address that datagrams must be sent to; invalid: any.
	To netip.Addr

	fd      int
	index   int
	buffer  int
	dropped uint32 // by the sockets before this one
	last    uint32 // by this one, as it told last
	reader  *reader
}

// Open opens the socket, unless there is one that can go on.
func (n *DatagramInlet) Open(i *Interface) error {
	if n.reader != nil {
		switch {
		case n.index == i.Index && (n.Keeps == nil || n.Keeps(i)):
			return nil
		// A socket may be a member of 20 groups (net.ipv4.igmp_max_memberships),
		// and the memberships of interfaces that are gone count.
		case n.Rejoin != nil && n.Rejoin(n.fd, i) == nil:
			n.index = i.Index
			return nil
		}
	}
	fd, err := n.Listen(i)
	if err != nil {
		return err
	}
	_ = n.Close()
	n.fd, n.index, n.reader = fd, i.Index, newReader(fd)
	n.buffer, _ = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	return nil
}

// Poll appends the socket.
func (n *DatagramInlet) Poll(fds []unix.PollFd) []unix.PollFd {
	if n.reader == nil {
		return fds
	}
	return append(fds, unix.PollFd{Fd: int32(n.fd), Events: unix.POLLIN})
}

// Receive reads datagrams with one system call.
func (n *DatagramInlet) Receive(take func(d *Datagram) error) (count int, more bool, err error) {
	if n.reader == nil {
		return 0, false, nil
	}
	count, err = n.reader.receive()
	if err != nil {
		return 0, false, err
	}
	for i := range count {
		d, to, device := n.reader.datagram(i)
		d.Elsewhere = device != n.index || n.To.IsValid() && to != n.To
		n.last = max(n.last, d.Dropped)
		d.Dropped = n.dropped + n.last
		if err := take(&d); err != nil {
			return count, false, err
		}
	}
	return count, count == vectorLength, nil
}

// Buffer is the receive buffer's size.
func (n *DatagramInlet) Buffer() int { return n.buffer }

// FD is the socket, for tests.
func (n *DatagramInlet) FD() int { return n.fd }

// Close closes the socket.
func (n *DatagramInlet) Close() error {
	if n.reader == nil {
		return nil
	}
	n.reader, n.buffer = nil, 0
	n.dropped, n.last = n.dropped+n.last, 0 // another socket counts anew
	return unix.Close(n.fd)
}

// mmsghdr is struct mmsghdr of linux/socket.h.
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// A reader reads datagrams with recvmmsg into memory that it uses again. It does
// not go through the runtime's poller: the loop waits in poll(2) for several
// descriptors at once.
type reader struct {
	fd       int
	headers  [vectorLength]mmsghdr
	vectors  [vectorLength]unix.Iovec
	names    [vectorLength]unix.RawSockaddrInet6
	controls [vectorLength][controlSize]byte
	buffers  []byte
}

func newReader(fd int) *reader {
	r := &reader{fd: fd, buffers: make([]byte, vectorLength*datagramSize)}
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
func (r *reader) receive() (int, error) {
	for i := range r.headers { // the kernel overwrites these
		r.headers[i].header.Namelen = unix.SizeofSockaddrInet6
		r.headers[i].header.SetControllen(controlSize)
		r.headers[i].header.Flags = 0
	}
	for {
		// Raw: it takes some 0.3 ms at most and never waits.
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.headers[0])),
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

// datagram returns the datagram i of the last call, the address that it was sent
// to (invalid: not told) and the index of the interface it came in on.
func (r *reader) datagram(i int) (d Datagram, to netip.Addr, device int) {
	h := &r.headers[i]
	at := i * datagramSize
	d = Datagram{
		Payload:   r.buffers[at : at+int(h.length) : at+int(h.length)],
		From:      r.sender(i),
		Truncated: h.header.Flags&unix.MSG_TRUNC != 0,
	}
	for p := r.controls[i][:h.header.Controllen]; len(p) >= unix.SizeofCmsghdr; {
		c, data, rest, err := unix.ParseOneSocketControlMessage(p)
		if err != nil {
			break
		}
		switch {
		case c.Level == unix.IPPROTO_IP && c.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			device = int(binary.NativeEndian.Uint32(data)) // {ifindex, spec_dst, addr}
			to = netip.AddrFrom4([4]byte(data[8:12]))
		case c.Level == unix.IPPROTO_IPV6 && c.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			to = netip.AddrFrom16([16]byte(data)) // {addr, ifindex}
			device = int(binary.NativeEndian.Uint32(data[16:]))
		case c.Level == unix.SOL_SOCKET && c.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			d.Dropped = binary.NativeEndian.Uint32(data)
		}
		p = rest
	}
	return d, to, device
}

// sender returns the address that a datagram came from, without a zone: all
// peers are on one link.
func (r *reader) sender(i int) netip.AddrPort {
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

func setNetworkPort(p *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(p))[:], port)
}

// BindDatagrams opens a socket that receives what is sent to an address. zone is
// the index of the interface of a link-local one. options sets more of the socket
// before it is bound, and may be nil.
//
// A group's address and port several sockets may have. A node's they may not:
// of two with SO_REUSEADDR the kernel would give all to the later one, whosever
// it is.
func BindDatagrams(to netip.AddrPort, zone int, r *Receiving, options func(fd int) error) (fd int, err error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	err = receiveOptions(fd, to.Addr(), r)
	if err == nil && options != nil {
		err = options(fd)
	}
	if err == nil {
		if err = unix.Bind(fd, Sockaddr(to, zone)); err != nil {
			err = fmt.Errorf("bind %v: %w", to, err)
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Sockaddr is an address as system calls take it.
func Sockaddr(a netip.AddrPort, zone int) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: uint32(zone)}
}

// receiveOptions sets what a socket that receives datagrams needs.
func receiveOptions(fd int, to netip.Addr, r *Receiving) error {
	SetBuffer(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, int(r.ReceiveBuffer))
	reuse := 0
	if to.IsMulticast() {
		reuse = 1
	}
	options := [][3]int{
		{unix.SOL_SOCKET, unix.SO_REUSEADDR, reuse},
		{unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1},
		{unix.IPPROTO_IP, unix.IP_PKTINFO, 1},
		{unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0}, // what others on this node joined is not ours
	}
	if FamilyOf(to) == 6 {
		options = append(options[:2],
			[3]int{unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
			[3]int{unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1},
			[3]int{unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_ALL, 0})
	}
	return SetOptions(fd, options)
}
