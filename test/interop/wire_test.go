package interop

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-project/sluice/internal/testbed"
)

// group is where nodes send.
var group = netip.MustParseAddrPort("225.0.0.50:3780")

func overIPv6(pipelines string) string {
	return strings.ReplaceAll(pipelines, group.Addr().String(), "ff15::50")
}

func lower(name string) string { return strings.ToLower(name) }

func portText(e *echo) string { return fmt.Sprint(e.port()) }

// Elements of Sluice's extension, as docs/wire.md numbers them.
const (
	hello    = 1
	replayed = 2
	begin    = 3
	end      = 4
)

// A wire is what is sent on a sync link.
type wire struct {
	mu        sync.Mutex
	datagrams [][]byte
}

// listen hears the group beside whoever else does, until the test ends.
func listen(t *testing.T, fw *testbed.Firewall) *wire {
	t.Helper()
	var conn *net.UDPConn
	err := fw.Do(func() error {
		device, err := net.InterfaceByName(testbed.SyncLink)
		if err == nil {
			conn, err = net.ListenMulticastUDP("udp4", device, net.UDPAddrFromAddrPort(group))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w, done := &wire{}, make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	if err := conn.SetReadBuffer(4 << 20); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(done)
		buffer := make([]byte, 1<<16)
		for {
			n, _, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			w.mu.Lock()
			w.datagrams = append(w.datagrams, append([]byte(nil), buffer[:n]...))
			w.mu.Unlock()
		}
	}()
	return w
}

// extensions counts the extension messages that were sent, by the type of their
// first element. It walks messages by their lengths alone: no code of the
// nodes is asked.
func (w *wire) extensions() map[byte]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	count := map[byte]int{}
	for _, d := range w.datagrams {
		for len(d) >= 8 {
			m := d[:int(d[2])<<8|int(d[3])]
			if m[0] == 0x1a && m[1] == 0x10 && len(m) >= 16 && string(m[8:10]) == "SL" {
				count[m[15]]++
			}
			d = d[len(m):]
		}
	}
	return count
}

// wants is an error unless so many extensions of each type were sent at least.
func (w *wire) wants(least map[byte]int) error {
	got := w.extensions()
	for typ, n := range least {
		if got[typ] < n {
			return fmt.Errorf("%d extensions of type %d, want %d at least: %v", got[typ], typ, n, got)
		}
	}
	return nil
}
