package testbed

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// ServerPort is where the topologies' tests put their Server by habit.
const ServerPort = 5001

// Server answers traffic on one port, TCP and UDP, IPv4 and IPv6. A TCP
// connection starts with one line:
//
//	ECHO                  what follows comes back
//	GET size rate seed    size bytes of the stream of seed come back
//	PUT size seed         size bytes follow; "ok" comes back if they are the stream
//
// and a connection that sends nothing is held open until its client closes it.
// A UDP datagram comes back as it is.
type Server struct {
	tcp      net.Listener
	udp      net.PacketConn // nil: there is none
	serve    func(net.Conn) error
	accepted atomic.Int64

	mu    sync.Mutex
	conns map[net.Conn]struct{} // nil once closed
	wait  sync.WaitGroup
}

// NewServer starts a server in a namespace; the caller must Close it.
func NewServer(n *Namespace, port int) (*Server, error) {
	address := net.JoinHostPort("", strconv.Itoa(port))
	tcp, err := n.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("testbed: server: %w", err)
	}
	udp, err := n.ListenPacket("udp", address)
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("testbed: server: %w", err)
	}
	s := &Server{tcp: tcp, udp: udp, serve: serve, conns: make(map[net.Conn]struct{})}
	s.wait.Go(s.acceptAll)
	s.wait.Go(s.echoDatagrams)
	return s, nil
}

// MustServer is NewServer for tests.
func MustServer(t TB, n *Namespace, port int) *Server {
	t.Helper()
	s, err := NewServer(n, port)
	return owned(t, s, err)
}

// Accepted is the number of TCP connections accepted so far.
func (s *Server) Accepted() int64 { return s.accepted.Load() }

// Open is the number of TCP connections that have not ended.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Close ends the server and its connections and waits for its goroutines.
func (s *Server) Close() error {
	s.tcp.Close()
	if s.udp != nil {
		s.udp.Close()
	}
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wait.Wait()
	return nil
}

func (s *Server) acceptAll() {
	for {
		conn, err := s.tcp.Accept()
		if err != nil {
			return
		}
		if !s.track(conn) {
			return
		}
		s.wait.Go(func() {
			defer s.forget(conn)
			_ = s.serve(conn) // the client sees and reports what went wrong
		})
	}
}

// track notes a connection, or closes it if the server is being closed.
func (s *Server) track(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		conn.Close()
		return false
	}
	s.accepted.Add(1)
	s.conns[conn] = struct{}{}
	return true
}

func (s *Server) forget(conn net.Conn) {
	conn.Close()
	s.mu.Lock()
	delete(s.conns, conn)
	s.mu.Unlock()
}

func (s *Server) echoDatagrams() {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := s.udp.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = s.udp.WriteTo(buffer[:n], from)
	}
}

// serve answers one connection.
func serve(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 16) // the stream itself is read past it
	line, err := in.ReadString('\n')
	if err != nil {
		return err
	}
	var size, rate int64
	var seed uint64
	switch {
	case line == "ECHO\n":
		_, err = io.Copy(conn, in)
	case scan(line, "GET %d %d %d\n", &size, &rate, &seed):
		_, err = io.Copy(conn, newPaced(context.Background(), newStream(seed, size), rate))
	case scan(line, "PUT %d %d\n", &size, &seed):
		if err = verify(io.LimitReader(in, size), seed, size, nil); err == nil {
			_, err = io.WriteString(conn, "ok\n")
		}
	}
	return err
}

func scan(line, format string, values ...any) bool {
	n, err := fmt.Sscanf(line, format, values...)
	return err == nil && n == len(values)
}

// paced is a reader that gives out no more than rate bytes a second.
type paced struct {
	ctx   context.Context
	from  io.Reader
	rate  int64
	start time.Time
	given int64
}

// newPaced returns from itself if rate is 0.
func newPaced(ctx context.Context, from io.Reader, rate int64) io.Reader {
	if rate == 0 {
		return from
	}
	return &paced{ctx: ctx, from: from, rate: rate, start: time.Now()}
}

// Read gives out at most 10 ms worth of bytes at a time.
func (p *paced) Read(buffer []byte) (int, error) {
	due := p.start.Add(time.Duration(float64(p.given) / float64(p.rate) * float64(time.Second)))
	select {
	case <-time.After(time.Until(due)):
	case <-p.ctx.Done():
		return 0, p.ctx.Err()
	}
	if most := max(p.rate/100, 1); int64(len(buffer)) > most {
		buffer = buffer[:most]
	}
	n, err := p.from.Read(buffer)
	p.given += int64(n)
	return n, err
}

// At is the ServerPort of a host.
func At(host netip.Prefix) netip.AddrPort { return netip.AddrPortFrom(host.Addr(), ServerPort) }
