package testbed

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// datagramTries is how often a lost question is asked again.
const datagramTries = 3

// UDP describes request and response flows from a namespace to a Server.
type UDP struct {
	// To is the server.
	To netip.AddrPort
	// Sources are the client's addresses, used in turn; none lets the kernel choose.
	Sources []netip.Addr
	// Count is how many flows, each from a port of its own.
	Count int
	// Exchanges is how many requests each flow makes, each answered; 0 is 1.
	Exchanges int
	// Concurrency is how many flows at once; 0 is 8.
	Concurrency int
	// Rate bounds the flows a second; 0 is as fast as possible.
	Rate int
	// Timeout bounds the wait for one answer, after which the request is
	// repeated, three times in all; 0 is 2 s.
	Timeout time.Duration
}

// UDP makes the flows and returns when all are answered or given up.
func (n *Namespace) UDP(ctx context.Context, u UDP) (*ChurnResult, error) {
	if u.Timeout == 0 {
		u.Timeout = 2 * time.Second
	}
	crowd := crowd{count: u.Count, workers: u.Concurrency, rate: u.Rate}
	return crowd.run(ctx, n, func(i int) (int, error) { return -1, u.exchange(i) })
}

// MustUDP is UDP for tests: it fails the test if one flow fails.
func (n *Namespace) MustUDP(t TB, u UDP) *ChurnResult {
	t.Helper()
	result, err := n.UDP(context.Background(), u)
	if err == nil {
		err = result.Check()
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	return result
}

func (u *UDP) exchange(i int) error {
	var source netip.Addr
	if len(u.Sources) > 0 {
		source = u.Sources[i%len(u.Sources)]
	}
	s, err := connectDatagram(netip.AddrPortFrom(source, 0), u.To, u.Timeout)
	if err != nil {
		return err
	}
	request := fmt.Appendf(nil, "flow %d", i)
	for range max(u.Exchanges, 1) {
		for range datagramTries {
			if err = s.echo(request, len(request)); err == nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	return errors.Join(err, s.end(Orderly))
}

// Echo describes an ICMP or ICMPv6 echo exchange.
type Echo struct {
	// From is the source; the zero Addr lets the kernel choose.
	From netip.Addr
	// To is who is to answer; its family decides the protocol.
	To netip.Addr
	// ID is the echo identifier, what conntrack has for a port; 0 is a number
	// made from this process's id.
	ID uint16
	// Count is how many requests, each sent when the one before is answered; 0 is 1.
	Count int
	// Timeout bounds the wait for one answer; 0 is 2 s.
	Timeout time.Duration
}

// Ping makes the exchange and reports the first request that is not answered,
// even when repeated three times.
func (n *Namespace) Ping(e Echo) error {
	if e.ID == 0 {
		e.ID = uint16(os.Getpid()) | 1
	}
	if e.Timeout == 0 {
		e.Timeout = 2 * time.Second
	}
	conn, err := e.open(n)
	if err != nil {
		return fmt.Errorf("testbed: ping: %w", err)
	}
	defer conn.Close()
	for sequence := range max(e.Count, 1) {
		for range datagramTries {
			if err = e.once(conn, sequence); err == nil {
				break
			}
		}
		if err != nil {
			return fmt.Errorf("testbed: ping %s, request %d: %w", e.To, sequence, err)
		}
	}
	return nil
}

// MustPing is Ping for tests.
func (n *Namespace) MustPing(t TB, to netip.Addr) {
	t.Helper()
	if err := n.Ping(Echo{To: to}); err != nil {
		t.Fatalf("%v", err)
	}
}

func (e *Echo) open(n *Namespace) (conn *icmp.PacketConn, err error) {
	network, local := "ip4:icmp", "0.0.0.0"
	if e.To.Is6() {
		network, local = "ip6:ipv6-icmp", "::"
	}
	if e.From.IsValid() {
		local = e.From.String()
	}
	err = n.Do(func() error {
		conn, err = icmp.ListenPacket(network, local)
		return err
	})
	return conn, err
}

// once sends a request and waits for its answer among whatever else arrives.
func (e *Echo) once(conn *icmp.PacketConn, sequence int) error {
	var request, answer icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if e.To.Is6() {
		request, answer = ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	body := &icmp.Echo{ID: int(e.ID), Seq: sequence, Data: []byte("testbed")}
	packet, err := (&icmp.Message{Type: request, Body: body}).Marshal(nil)
	if err != nil {
		return err
	}
	if err := conn.SetDeadline(time.Now().Add(e.Timeout)); err != nil {
		return err
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: e.To.AsSlice()}); err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		message, err := icmp.ParseMessage(answer.Protocol(), buffer[:size])
		if err != nil || message.Type != answer || from.String() != e.To.String() {
			continue
		}
		if got, ok := message.Body.(*icmp.Echo); ok && got.ID == body.ID && got.Seq == sequence {
			return nil
		}
	}
}
