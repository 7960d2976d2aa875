package observe

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/pipeline"
)

// A client that holds connections and sends nothing keeps out none but itself.
func TestOneClientKeepsOutNoOther(t *testing.T) {
	s, err := Listen(pipeline.Metrics{Listen: "127.0.0.1:0"}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	address := s.listener.Addr().String()
	serving(t, s)
	from := func(client string) net.Conn {
		t.Helper()
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
		c, err := dialer.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	served := func(c net.Conn) bool {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		_, _ = io.WriteString(c, "GET /healthz HTTP/1.0\r\n\r\n")
		answer, _ := io.ReadAll(c)
		return strings.Contains(string(answer), "200 OK")
	}
	held := from("127.0.0.2")
	for range maxConns {
		from("127.0.0.2")
	}
	if served(from("127.0.0.2")) {
		t.Error("it has more than its share")
	}
	if !served(from("127.0.0.3")) {
		t.Error("another is kept out")
	}
	held.Close()
	eventually(t, "the client is served again", func() bool { return served(from("127.0.0.2")) })
}

func TestClientOf(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1/32", "[::ffff:192.0.2.1]:80": "192.0.2.1/32", "[2001:db8::1]:80": "2001:db8::/64", "[fe80::1%lo]:80": "fe80::/64",
	} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := clientOf(a); got.String() != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
	if clientOf(&net.UnixAddr{Name: "/x"}).IsValid() {
		t.Error("a Unix socket has a client")
	}
}

// However many look, the page is drawn as often as the node is asked.
func TestPageIsDrawnOnce(t *testing.T) {
	p := &page{node: &node{backend: &told{make: firewall}}, lines: &Lines{}}
	for _, name := range []string{"now", "page.html"} {
		var first []byte
		eventually(t, name+" is drawn once for two", func() bool {
			before, err := p.draw(name)
			if err != nil {
				t.Fatal(err)
			}
			first, err = p.draw(name)
			return err == nil && &before[0] == &first[0]
		})
		p.node.asked = time.Time{}
		if next, err := p.draw(name); err != nil || &next[0] == &first[0] {
			t.Error("it is never drawn again", err)
		}
	}
}
