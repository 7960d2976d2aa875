package sinktcp

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
)

const (
	retryAfter = time.Second     // between attempts to connect, as conntrackd does
	dialFor    = 3 * time.Second // an attempt
	deadAfter  = 6 * time.Second // without an acknowledgement
)

// A peer is one end that the outlet is connected to, or tries to be. Its own
// goroutine connects and sees the end of connections; all but connection and
// close are the Transmitter's.
type peer struct {
	from, to netip.AddrPort
	on       synclink.Interface
	outlet   *outlet
	cancel   context.CancelFunc
	ended    chan struct{}

	used   net.Conn // the connection that was sent on last
	rest   []byte   // of a datagram of which the beginning was sent on it
	missed bool     // something, since it was connected
	behind bool     // it did not take what it was sent

	mu   sync.Mutex
	conn net.Conn // nil: there is none
}

func connectTo(to netip.AddrPort, from netip.Addr, i synclink.Interface, o *outlet) *peer {
	p := &peer{
		from: netip.AddrPortFrom(zoned(from, &i), 0), to: netip.AddrPortFrom(zoned(to.Addr(), &i), to.Port()),
		on: i, outlet: o, ended: make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	go p.run(ctx)
	return p
}

func zoned(a netip.Addr, i *synclink.Interface) netip.Addr {
	if zone := i.Zone(a); zone != 0 {
		return a.WithZone(strconv.Itoa(zone))
	}
	return a
}

// run connects, waits for the end of the connection, and connects again.
func (p *peer) run(ctx context.Context) {
	defer close(p.ended)
	for ctx.Err() == nil {
		var conn net.Conn
		err := p.outlet.inside(func() (err error) {
			conn, err = p.dial(ctx)
			return err
		})
		if err == nil {
			p.set(conn)
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = io.Copy(io.Discard, conn) // nothing is ever sent this way: it returns at the end
			stop()
			p.set(nil)
			conn.Close()
		}
		select {
		case <-time.After(retryAfter):
		case <-ctx.Done():
		}
	}
}

func (p *peer) set(conn net.Conn) {
	p.mu.Lock()
	p.conn = conn
	p.mu.Unlock()
	p.outlet.wake()
}

// connection returns the connection that there is, or nil.
func (p *peer) connection() net.Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conn
}

// close ends the connection, and the attempts at it.
func (p *peer) close() {
	p.cancel()
	<-p.ended
}

// dial connects from the node's address over the interface alone.
func (p *peer) dial(ctx context.Context) (net.Conn, error) {
	dialer := net.Dialer{
		Timeout: dialFor, KeepAlive: -1, // a sign of life goes out every second
		LocalAddr: net.TCPAddrFromAddrPort(p.from),
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			controlErr := raw.Control(func(fd uintptr) { err = p.options(int(fd)) })
			return errors.Join(controlErr, err)
		},
	}
	return dialer.DialContext(ctx, synclink.FamilyOf(p.to.Addr()).Network("tcp"), p.to.String())
}

func (p *peer) options(fd int) error {
	synclink.SetBuffer(fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, int(p.outlet.config.SendBuffer))
	return errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(deadAfter.Milliseconds())),
		unix.BindToDevice(fd, p.on.Name))
}

// send sends all of the packer's datagrams. A peer that keeps up may take until
// then; one does that has room in its send buffer in no time.
func (p *peer) send(packer *notrack.Packer, until time.Time, t synclink.Tally) {
	conn := p.ready(t)
	if conn == nil {
		p.lose(packer, 0, nil, t)
		return
	}
	soon := time.Now().Add(time.Millisecond)
	if p.behind || until.Before(soon) {
		until = soon
	}
	_ = conn.SetWriteDeadline(until)
	if !p.flushRest(conn) {
		p.lose(packer, 0, p.stalled(), t)
		return
	}
	n, err := conn.Write(packer.Bytes())
	whole := 0 // datagrams that went out as a whole
	for left := n; whole < packer.Len() && left > 0; whole++ {
		if d := packer.Datagram(whole); left < len(d) {
			p.rest = append(p.rest[:0], d[left:]...)
			break
		}
		left -= len(packer.Datagram(whole))
	}
	if whole > 0 {
		t.Sent(whole, uint64(n))
	}
	if err == nil {
		p.caughtUp(t)
		return
	}
	if len(p.rest) > 0 { // it will be sent whole, if the connection lasts
		whole++
	}
	p.lose(packer, whole, p.stalled(), t)
}

// ready returns the connection to send on, after a look at whether it is another
// than the last time.
func (p *peer) ready(t synclink.Tally) net.Conn {
	conn := p.connection()
	if conn == nil {
		p.used = nil
		return nil
	}
	if conn != p.used {
		p.used, p.rest, p.behind, p.missed = conn, p.rest[:0], false, false
		t.Restored(p.to.String())
	}
	return conn
}

// flushRest sends what is left of a datagram that was begun.
func (p *peer) flushRest(conn net.Conn) bool {
	for len(p.rest) > 0 {
		n, err := conn.Write(p.rest)
		p.rest = p.rest[:copy(p.rest, p.rest[n:])]
		if err != nil {
			return false
		}
	}
	return true
}

// stalled notes that the peer does not keep up.
func (p *peer) stalled() error {
	p.behind = true
	return synclink.ErrBehind
}

// caughtUp has what the peer missed replayed, now that it takes data again.
func (p *peer) caughtUp(t synclink.Tally) {
	p.behind = false
	if p.missed {
		p.missed = false
		t.Restored(p.to.String())
	}
}

// lose counts the packer's datagrams from one on as lost.
func (p *peer) lose(packer *notrack.Packer, from int, err error, t synclink.Tally) {
	for range packer.Len() - from {
		p.missed = true
		t.Lost(err)
	}
}

// leave ends the connection if something in it was not acknowledged, and with it
// what the kernel would go on sending.
func (p *peer) leave() {
	conn, ok := p.connection().(*net.TCPConn)
	if !ok {
		return
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	waits := len(p.rest)
	_ = raw.Control(func(fd uintptr) {
		if n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err == nil {
			waits += n
		}
	})
	if waits > 0 {
		_ = conn.SetLinger(0) // no FIN behind it, but a reset instead of it
		conn.Close()          // the peer's own goroutine connects again
	}
}

// tend looks whether there is another connection, and sends on what is left.
func (p *peer) tend(t synclink.Tally) {
	conn := p.ready(t)
	if conn == nil || len(p.rest) == 0 {
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
	if p.flushRest(conn) {
		p.caughtUp(t)
	}
}
