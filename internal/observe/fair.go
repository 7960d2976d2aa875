package observe

import (
	"net"
	"net/netip"
	"sync"
)

// maxPerClient is how many connections one client has at a time: it leaves some to
// others, also if it sends nothing.
const maxPerClient = maxConns / 2

// A fairListener closes the connections of a client that has its share already.
type fairListener struct {
	net.Listener

	mu   sync.Mutex
	open map[netip.Prefix]int // connections, by client
}

func (l *fairListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		client := clientOf(c.RemoteAddr())
		if !client.IsValid() {
			return c, nil // of a Unix socket: who may connect is known
		}
		if l.enter(client) {
			return &fairConn{c, sync.OnceFunc(func() { l.leave(client) })}, nil
		}
		c.Close()
	}
}

func (l *fairListener) enter(client netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client] >= maxPerClient {
		return false
	}
	if l.open == nil {
		l.open = map[netip.Prefix]int{}
	}
	l.open[client]++
	return true
}

func (l *fairListener) leave(client netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[client]--; l.open[client] == 0 {
		delete(l.open, client)
	}
}

type fairConn struct {
	net.Conn
	leave func()
}

func (c *fairConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}

// clientOf returns an IPv4 address, or the /64 of an IPv6 one, all of which a client may have.
func clientOf(a net.Addr) (client netip.Prefix) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return client
	}
	address := tcp.AddrPort().Addr().Unmap().WithZone("")
	client, _ = address.Prefix(min(64, address.BitLen()))
	return client
}
