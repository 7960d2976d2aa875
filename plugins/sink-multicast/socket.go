package sinkmulticast

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/notrack"
)

// A socket sends datagrams to the group. It is bound to the node's address and
// one port for its whole life, since peers track sequences by both. Only one
// that can't send any more is replaced: see Sink.reopen.
type socket struct {
	conn       *net.UDPConn
	v4         *ipv4.PacketConn // one of the two
	v6         *ipv6.PacketConn
	to         *net.UDPAddr
	address    netip.Addr
	sendBuffer int

	messages []ipv4.Message // used again; ipv6.Message is the same type
	buffers  [][1][]byte
}

func openSocket(c *Config, l *link) (*socket, error) {
	s := &socket{to: net.UDPAddrFromAddrPort(netip.AddrPortFrom(c.Group.Unmap(), c.Port))}
	var err error
	if s.address, err = l.address(c); err != nil {
		return nil, err
	}
	from := s.address
	if from.Is6() && from.IsLinkLocalUnicast() {
		from = from.WithZone(strconv.Itoa(l.index)) // of a name, package net remembers the index for a minute
	}
	if s.conn, err = listen(from, c, l); err != nil {
		return nil, err
	}
	if from.Is4() {
		s.v4 = ipv4.NewPacketConn(s.conn)
		err = s.v4.SetMulticastLoopback(false)
		if err == nil && c.TTL > 0 {
			err = s.v4.SetMulticastTTL(int(c.TTL))
		}
	} else {
		s.v6 = ipv6.NewPacketConn(s.conn)
		err = s.v6.SetMulticastLoopback(false)
		if err == nil && c.TTL > 0 {
			err = s.v6.SetMulticastHopLimit(int(c.TTL))
		}
	}
	if err == nil {
		err = s.use(l)
	}
	if err == nil {
		s.sendBuffer, err = s.getsockopt(unix.SO_SNDBUF)
	}
	if err != nil {
		s.conn.Close()
		return nil, err
	}
	return s, nil
}

// listen binds a socket to the node's address and a port of the kernel's choice.
func listen(from netip.Addr, c *Config, l *link) (*net.UDPConn, error) {
	network := "udp4"
	if from.Is6() {
		network = "udp6"
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) { err = setOptions(int(fd), from.Is6(), c) })
		return errors.Join(controlErr, err)
	}}
	conn, err := config.ListenPacket(context.Background(), network, netip.AddrPortFrom(from, 0).String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.UDPConn), nil
}

func setOptions(fd int, v6 bool, c *Config) error {
	if c.SendBuffer > 0 {
		// The kernel doubles what it is given, for its own bookkeeping; what
		// getsockopt shows is to be what was configured.
		half := int(c.SendBuffer / 2)
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, half) != nil {
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, half) // capped; Open compares
		}
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) // nothing is ever read
	if !c.Checksum && !v6 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			return fmt.Errorf("checksum: %w", err)
		}
	}
	// With RECVERR the kernel says ENOBUFS when the interface's queue drops a
	// datagram (net/ipv4/udp.c, udp_send_skb); without it, it says nothing.
	level, recvErr, discover, do := unix.IPPROTO_IP, unix.IP_RECVERR, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if v6 {
		level, recvErr, discover, do = unix.IPPROTO_IPV6, unix.IPV6_RECVERR, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO
	}
	if err := unix.SetsockoptInt(fd, level, recvErr, 1); err != nil {
		return fmt.Errorf("report loss: %w", err)
	}
	// Never fragment, so that a smaller MTU shows: see Sink.tooBig.
	return unix.SetsockoptInt(fd, level, discover, do)
}

// use makes the socket send on the link, whose index may have changed.
func (s *socket) use(l *link) error {
	device := &net.Interface{Index: l.index}
	if s.v4 != nil {
		return s.v4.SetMulticastInterface(device)
	}
	return s.v6.SetMulticastInterface(device)
}

func (s *socket) getsockopt(option int) (v int, err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	controlErr := raw.Control(func(fd uintptr) { v, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, option) })
	return v, errors.Join(controlErr, err)
}

func (s *socket) close() error { return s.conn.Close() }

// prepare makes messages of the packer's datagrams.
func (s *socket) prepare(p *notrack.Packer) []ipv4.Message {
	for len(s.messages) < p.Len() {
		s.messages = append(s.messages, ipv4.Message{Addr: s.to})
		s.buffers = append(s.buffers, [1][]byte{})
	}
	for i := range p.Len() {
		s.buffers[i][0] = p.Datagram(i)
		s.messages[i].Buffers = s.buffers[i][:]
	}
	return s.messages[:p.Len()]
}

// send sends messages with one system call, sendmmsg, and returns how many
// went before the one that did not.
func (s *socket) send(m []ipv4.Message) (int, error) {
	if s.v4 != nil {
		return s.v4.WriteBatch(m, 0)
	}
	return s.v6.WriteBatch(m, 0)
}

// sendFragmented sends one datagram that is longer than the MTU.
func (s *socket) sendFragmented(datagram []byte) error {
	if err := s.fragment(true); err != nil {
		return err
	}
	_, err := s.conn.WriteTo(datagram, s.to)
	return errors.Join(err, s.fragment(false))
}

func (s *socket) fragment(allow bool) (err error) {
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	level, option, value := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO
	if allow {
		value = unix.IP_PMTUDISC_DONT // the same numbers for IPv6
	}
	if s.v6 != nil {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
	return errors.Join(controlErr, err)
}

// flush sends all datagrams that are full or begun. It returns the last error;
// each is counted, logged and signalled here.
func (s *Sink) flush() (last error) {
	s.packer.Flush()
	messages := s.socket.prepare(s.packer)
	if len(messages) > 0 {
		s.last = time.Now()
	}
	for len(messages) > 0 {
		n, err := s.socket.send(messages)
		if n > 0 {
			s.sent(messages[:n])
			messages = messages[n:]
		}
		if err == nil && n > 0 || len(messages) == 0 {
			continue
		}
		if errors.Is(err, unix.EMSGSIZE) {
			err = s.tooBig(messages[:1])
		}
		if err != nil {
			s.failed(err)
			last = err
		}
		messages = messages[1:]
	}
	s.packer.Reset()
	return last
}

// tooBig sends a datagram that is longer than the MTU has become meanwhile, in
// fragments, and makes the next ones shorter.
func (s *Sink) tooBig(message []ipv4.Message) error {
	if changed, err := s.link.refresh(); err == nil && changed {
		s.host.Logger().Info("link changed", "interface", s.config.Interface, "mtu", s.link.mtu)
		defer s.resized()
	}
	err := s.socket.sendFragmented(message[0].Buffers[0])
	if err == nil {
		s.count.fragmented.Add(1)
		s.sent(message)
	}
	return err
}

// sent counts what the kernel took. Without a carrier it takes all and drops it,
// so trouble is over only when the link runs.
func (s *Sink) sent(messages []ipv4.Message) {
	var bytes uint64
	for i := range messages {
		bytes += uint64(len(messages[i].Buffers[0]))
	}
	s.count.datagrams.Add(uint64(len(messages)))
	s.count.bytes.Add(bytes)
	if s.link.running {
		s.trouble.over(s.host)
	} else {
		s.replay.lost = true
	}
}

// failed counts a datagram that the kernel did not take.
func (s *Sink) failed(err error) {
	s.count.lost.Add(1)
	s.count.errors(err).Add(1)
	s.replay.lost = true
	s.stuck = s.stuck || linkDown(err)
	s.trouble.begin(s.host, err)
}
