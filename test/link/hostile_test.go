package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
	"github.com/sluice-project/sluice/internal/testbed"
)

// TestFlood has a peer send signs of life over TCP as fast as it can: the source
// does all else meanwhile.
func TestFlood(t *testing.T) {
	a, b := pair(t)
	from := newSource(t, b, "tcp", `{"interface":"sync"}`)
	var conn net.Conn
	err := a.Do(func() (err error) {
		conn, err = net.Dial("tcp", netip.AddrPortFrom(b4.Addr(), 3780).String())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		var p []byte
		for seq := uint32(0); ; p = p[:0] {
			for range 100_000 {
				seq++
				p = notrack.AppendAlive(p)
				binary.BigEndian.PutUint32(p[len(p)-4:], seq)
			}
			if _, err := conn.Write(p); err != nil {
				return
			}
		}
	}()
	testbed.Eventually(t, patience, from.given("peer-up", 1))
	done := make(chan error, 1)
	go func() { done <- from.Barrier(t.Context(), plugin.Replay{ID: 1, Flags: flow.SyncKeep}) }()
	select {
	case err = <-done:
	case <-time.After(patience):
		err = fmt.Errorf("no end of it within %v", patience)
	}
	conn.Close()
	if err != nil {
		t.Error(err)
	}
}

// TestAbsentPeer has a sink send to a machine that is off. Without a hardware
// address for it the kernel keeps what is sent for three seconds, in a small send
// buffer of which nothing is left then.
func TestAbsentPeer(t *testing.T) {
	a, b := pair(t)
	from := newSource(t, b, "udp", `{"interface":"sync"}`)
	s := newSink(t, a, "udp", fmt.Sprintf(`{"destination":[%q,"192.168.171.77"],"interface":"sync","send_buffer":"32KiB"}`, b4.Addr()))
	begin := time.Now()
	s.write(flow.Header{}, flows(0, 3000)...)
	if took := time.Since(begin); took > 5*time.Second { // 20 without a bound, and 0.5 with it
		t.Errorf("the sink was held up for %v", took)
	}
	testbed.Eventually(t, patience, from.has(3000, a4.Addr()))
	if n := statistic(t, s, "send_absent"); n == 0 {
		t.Error("no datagrams to the absent peer are counted")
	}
}

// Who sends nonsense is no peer, until it sends something else.
func TestNonsenseIsNoPeer(t *testing.T) {
	a, b := pair(t)
	from := newSource(t, b, "udp", `{"address":"192.168.171.2","interface":"sync"}`)
	conn, err := a.Dial(t.Context(), "udp", netip.AddrPort{}, netip.AddrPortFrom(b4.Addr(), 3780))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	for _, p := range []string{"GET / HTTP/1.0", "", "\x10\x00\xff\xff\x00\x00\x00\x01"} {
		if _, err := conn.Write([]byte(p)); err != nil {
			t.Fatal(err)
		}
	}
	testbed.Eventually(t, patience, testbed.Holds(func() bool { return statistic(t, from, "datagrams_received") == 3 }))
	if n := from.times("peer-up"); n != 0 {
		t.Errorf("%d peers are up", n)
	}
	if _, err := conn.Write(notrack.AppendAlive(nil)); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, from.given("peer-up", 1))
}

// A second process can't take away what is sent to a source. Another interface of
// the same name is no second one.
func TestPortIsTaken(t *testing.T) {
	a, b := pair(t)
	const config = `{"address":"192.168.171.2","interface":"sync"}`
	from := newSource(t, b, "udp", config)
	second := configure(t, plugin.KindSource, "udp", config).(*synclink.Receiver)
	err := b.Do(func() error { return second.Open(t.Context(), &host{t: t, name: "second"}) })
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second source: %v", err)
	}
	if _, err := b.Run("ip", "link", "del", testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, from.given("link-down", 1))
	join(t, a, b)
	to := newSink(t, a, "udp", transports[2].sink())
	testbed.Eventually(t, patience, from.given("link-up", 1))
	to.write(flow.Header{}, flows(0, 10)...)
	testbed.Eventually(t, patience, from.has(10, a4.Addr()))
}
