package testbed

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// FTPPort is where an FTPServer listens. Data connections go to ports from
// FTPDataFirst to FTPDataLast of the server (passive) or the client (active).
const (
	FTPPort      = 21
	FTPDataFirst = 30000
	FTPDataLast  = 30999
)

// FTPRules are for FirewallConfig.Rules: they give control connections the
// kernel's ftp helper, and refuse data connections that it did not expect.
const FTPRules = `
table inet testbed {
	ct helper ftp {
		type "ftp" protocol tcp;
	}
	chain helpers {
		type filter hook prerouting priority filter;
		tcp dport 21 ct helper set "ftp"
	}
	chain data {
		type filter hook forward priority filter + 1;
		tcp dport 30000-30999 ct state new counter reject with tcp reset
	}
}
`

// ftpTimeout bounds each step of a session.
const ftpTimeout = 10 * time.Second

// FTPServer speaks as much of FTP as the kernel's helper listens to: on control
// connections that stay open, addresses for data connections are announced in
// all four forms (PORT, EPRT, PASV, EPSV). A data connection sends back whatever
// arrives on it.
type FTPServer struct {
	*Server
	space *Namespace
	ctx   context.Context // ends with the server
	stop  context.CancelFunc
}

// NewFTPServer starts a server in a namespace; the caller must Close it.
func NewFTPServer(n *Namespace) (*FTPServer, error) {
	listener, err := n.Listen("tcp", net.JoinHostPort("", strconv.Itoa(FTPPort)))
	if err != nil {
		return nil, fmt.Errorf("testbed: ftp server: %w", err)
	}
	s := &FTPServer{Server: &Server{tcp: listener, conns: make(map[net.Conn]struct{})}, space: n}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.serve = func(conn net.Conn) error {
		c := &ftpControl{server: s, conn: conn}
		defer c.forget()
		return c.serve()
	}
	s.wait.Go(s.acceptAll)
	return s, nil
}

// MustFTPServer is NewFTPServer for tests.
func MustFTPServer(t TB, n *Namespace) *FTPServer {
	t.Helper()
	s, err := NewFTPServer(n)
	return owned(t, s, err)
}

// Close ends the server and all connections.
func (s *FTPServer) Close() error {
	s.stop()
	return s.Server.Close()
}

// ftpControl is a control connection at the server.
type ftpControl struct {
	server  *FTPServer
	conn    net.Conn
	passive net.Listener   // where data is awaited, or nil
	to      netip.AddrPort // where the client awaits it, or zero
}

func (c *ftpControl) forget() {
	if c.passive != nil {
		c.passive.Close()
	}
	c.passive, c.to = nil, netip.AddrPort{}
}

func (c *ftpControl) answer(text string) error {
	_, err := io.WriteString(c.conn, text+"\r\n")
	return err
}

func (c *ftpControl) serve() error {
	in := bufio.NewReader(c.conn)
	err := c.answer("220 testbed")
	for err == nil {
		var line string
		if line, err = in.ReadString('\n'); err == nil {
			verb, argument, _ := strings.Cut(strings.TrimSpace(line), " ")
			err = c.command(verb, argument)
		}
	}
	return err
}

func (c *ftpControl) command(verb, argument string) (err error) {
	switch verb {
	case "USER", "NOOP":
		return c.answer("200 ok")
	case "PASV", "EPSV":
		c.forget()
		if c.passive, err = listenData(c.server.space, addrPort(c.conn.LocalAddr()).Addr()); err != nil {
			return err
		}
		return c.answer(announcement(verb, addrPort(c.passive.Addr())))
	case "PORT", "EPRT":
		c.forget()
		var ok bool
		if c.to, ok = announced(argument); !ok {
			return c.answer("501 no address")
		}
		return c.answer("200 ok")
	case "STOR":
		return c.store()
	}
	return c.answer("502 not here")
}

// store makes the data connection and leaves it to a goroutine of its own.
func (c *ftpControl) store() error {
	ctx, cancel := context.WithTimeout(c.server.ctx, ftpTimeout)
	defer cancel()
	defer c.forget()
	conn, err := net.Conn(nil), errors.New("no address")
	switch {
	case c.passive != nil:
		conn, err = accept(ctx, c.passive)
	case c.to.IsValid():
		conn, err = c.server.space.Dial(ctx, "tcp", netip.AddrPort{}, c.to)
	}
	if err != nil {
		return c.answer("425 " + strings.ReplaceAll(err.Error(), "\n", " "))
	}
	if !c.server.track(conn) {
		return net.ErrClosed
	}
	c.server.wait.Go(func() {
		defer c.server.Server.forget(conn)
		_, _ = io.Copy(conn, conn)
	})
	return c.answer("150 go on")
}

// listenData listens on a port of the range for data connections.
func listenData(n *Namespace, at netip.Addr) (listener net.Listener, err error) {
	for port := FTPDataFirst; port <= FTPDataLast; port++ {
		if listener, err = n.Listen("tcp", netip.AddrPortFrom(at, uint16(port)).String()); err == nil {
			return listener, nil
		}
	}
	return nil, err
}

// accept accepts one connection, until ctx ends.
func accept(ctx context.Context, l net.Listener) (net.Conn, error) {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	return l.Accept()
}

// announcement is the line that tells where data is awaited: the answer to PASV
// or EPSV, or the command PORT or EPRT.
func announcement(verb string, at netip.AddrPort) string {
	comma := strings.ReplaceAll(at.Addr().String(), ".", ",") + fmt.Sprintf(",%d,%d", at.Port()>>8, at.Port()&0xff)
	switch verb {
	case "PASV":
		return "227 Entering Passive Mode (" + comma + ")"
	case "EPSV":
		return fmt.Sprintf("229 Entering Extended Passive Mode (|||%d|)", at.Port())
	case "PORT":
		return "PORT " + comma
	}
	family := 1
	if at.Addr().Is6() {
		family = 2
	}
	return fmt.Sprintf("EPRT |%d|%s|%d|", family, at.Addr(), at.Port())
}

// announced finds the address in a line made by announcement, but for EPSV's.
func announced(text string) (at netip.AddrPort, ok bool) {
	if fields := strings.Split(text, "|"); len(fields) == 5 {
		addr, err := netip.ParseAddr(fields[2])
		port, portErr := strconv.ParseUint(fields[3], 10, 16)
		return netip.AddrPortFrom(addr, uint16(port)), err == nil && portErr == nil
	}
	if i := strings.IndexByte(text, '('); i >= 0 {
		text = text[i+1:]
	}
	var n [6]uint8
	if _, err := fmt.Sscanf(text, "%d,%d,%d,%d,%d,%d", &n[0], &n[1], &n[2], &n[3], &n[4], &n[5]); err != nil {
		return at, false
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(n[:4])), uint16(n[4])<<8|uint16(n[5])), true
}

// FTP is a client's session with an FTPServer: a control connection that stays
// open, and data connections when they are asked for. One goroutine uses it.
type FTP struct {
	space    *Namespace
	conn     net.Conn
	in       *bufio.Reader
	to       netip.AddrPort // where the server awaits data
	listener net.Listener   // where the client does
}

// DialFTP connects and logs in. A zero from lets the kernel choose. The caller
// must Close the session.
func (n *Namespace) DialFTP(from, to netip.AddrPort) (*FTP, error) {
	ctx, cancel := context.WithTimeout(context.Background(), ftpTimeout)
	defer cancel()
	conn, err := n.Dial(ctx, "tcp", from, to)
	if err != nil {
		return nil, fmt.Errorf("testbed: ftp: %w", err)
	}
	f := &FTP{space: n, conn: conn, in: bufio.NewReader(conn)}
	if _, err = f.answer("220"); err == nil {
		_, err = f.command("USER testbed", "200")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// MustFTP is DialFTP for tests, to the FTPPort of a host.
func (n *Namespace) MustFTP(t TB, host netip.Addr) *FTP {
	t.Helper()
	f, err := n.DialFTP(netip.AddrPort{}, netip.AddrPortFrom(host, FTPPort))
	return owned(t, f, err)
}

// Local is the client's end of the control connection.
func (f *FTP) Local() netip.AddrPort { return addrPort(f.conn.LocalAddr()) }

// Noop has the server answer, over the control connection alone.
func (f *FTP) Noop() error {
	_, err := f.command("NOOP", "200")
	return err
}

// Passive has the server announce where it awaits a data connection (PASV, or
// EPSV where the addresses are IPv6): the firewall's helper then expects it, and
// Open makes it.
func (f *FTP) Passive() error {
	if f.Local().Addr().Is4() {
		return f.passive("PASV", "227")
	}
	return f.passive("EPSV", "229")
}

func (f *FTP) passive(verb, code string) error {
	line, err := f.command(verb, code)
	if err != nil {
		return err
	}
	f.closeListener()
	var ok bool
	if f.to, ok = announced(line); !ok && verb == "EPSV" {
		_, rest, _ := strings.Cut(line, "|||")
		var port uint64
		port, err = strconv.ParseUint(strings.TrimRight(rest, "|)"), 10, 16)
		f.to, ok = netip.AddrPortFrom(addrPort(f.conn.RemoteAddr()).Addr(), uint16(port)), err == nil
	}
	if !ok {
		return fmt.Errorf("testbed: ftp: %s: no address in %q", verb, line)
	}
	return nil
}

// Active announces to the server where this client awaits a data connection
// (PORT, or EPRT for IPv6): the firewall's helper then expects it, and Open has
// the server make it.
func (f *FTP) Active() (err error) {
	f.closeListener()
	if f.listener, err = listenData(f.space, f.Local().Addr()); err != nil {
		return fmt.Errorf("testbed: ftp: %w", err)
	}
	verb := "PORT"
	if f.Local().Addr().Is6() {
		verb = "EPRT"
	}
	_, err = f.command(announcement(verb, addrPort(f.listener.Addr())), "200")
	return err
}

// Data is a data connection, whose other end sends everything back.
type Data struct{ net.Conn }

// Open makes the data connection that was announced last. Each announcement is
// good for one. The caller must Close it; it outlives the session. After an
// error, as when a firewall did not expect it, the session is of no more use.
func (f *FTP) Open() (*Data, error) {
	conn, err := f.open()
	if err != nil {
		return nil, fmt.Errorf("testbed: ftp data: %w", err)
	}
	return &Data{conn}, nil
}

// MustOpen is Open for tests.
func (f *FTP) MustOpen(t TB) *Data {
	t.Helper()
	d, err := f.Open()
	return owned(t, d, err)
}

// open sends STOR first, for a server waits to be connected to from then on.
func (f *FTP) open() (conn net.Conn, err error) {
	if err := f.send("STOR file"); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), ftpTimeout)
	defer cancel()
	switch {
	case f.listener != nil:
		defer f.closeListener()
		conn, err = accept(ctx, f.listener)
	case f.to.IsValid():
		conn, err = f.space.Dial(ctx, "tcp", netip.AddrPortFrom(f.Local().Addr(), 0), f.to)
	}
	if err != nil {
		return nil, err
	}
	if _, err = f.answer("150"); err != nil && conn != nil {
		conn.Close()
	}
	return conn, err
}

// Exchange sends size bytes and waits until they are back.
func (d *Data) Exchange(size int64) error {
	if err := d.SetDeadline(time.Now().Add(ftpTimeout)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(d.Conn, newStream(1, size))
		sent <- err
	}()
	err := verify(io.LimitReader(d.Conn, size), 1, size, nil)
	if err != nil {
		d.Conn.Close() // ends the sender
	}
	if err = errors.Join(<-sent, err); err != nil {
		return fmt.Errorf("testbed: ftp data: %w", err)
	}
	return nil
}

// Close ends the data connection. Closing twice is harmless.
func (d *Data) Close() error {
	if err := d.Conn.Close(); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Close ends the control connection.
func (f *FTP) Close() error {
	f.closeListener()
	return f.conn.Close()
}

func (f *FTP) closeListener() {
	f.to = netip.AddrPort{}
	if f.listener != nil {
		f.listener.Close()
		f.listener = nil
	}
}

func (f *FTP) command(line, code string) (answer string, err error) {
	if err := f.send(line); err != nil {
		return "", err
	}
	return f.answer(code)
}

func (f *FTP) send(line string) error {
	if err := f.conn.SetDeadline(time.Now().Add(2 * ftpTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(f.conn, line+"\r\n"); err != nil {
		return fmt.Errorf("testbed: ftp: %w", err)
	}
	return nil
}

// answer reads one line, which must begin with the code.
func (f *FTP) answer(code string) (string, error) {
	line, err := f.in.ReadString('\n')
	if err == nil && !strings.HasPrefix(line, code) {
		err = fmt.Errorf("the server says %q", strings.TrimSpace(line))
	}
	if err != nil {
		return "", fmt.Errorf("testbed: ftp: %w", err)
	}
	return strings.TrimSpace(line), nil
}
