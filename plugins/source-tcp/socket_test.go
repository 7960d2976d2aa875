package sourcetcp

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
	"github.com/sluice-project/sluice/internal/testbed"
)

// While the process has no descriptor left for who connects, the loop is not
// woken by that for ever, and reads from those that are connected.
func TestNoDescriptorsLeft(t *testing.T) {
	testbed.Require(t)
	host := testbed.MustNamespace(t, "host")
	at := netip.MustParseAddrPort("127.0.0.1:3780")
	n := newInlet(&synclink.OwnPlace{Address: at.Addr(), Port: at.Port(), Interface: "lo"}, &synclink.Receiving{})
	defer n.Close()
	lo := &synclink.Interface{Name: "lo", Index: 1, Running: true, Addresses: []netip.Addr{at.Addr()}}
	if err := host.Do(func() error { return n.Open(lo) }); err != nil {
		t.Fatal(err)
	}
	first := dial(t, host, at)
	got := 0
	receive := func() error {
		_, _, err := n.Receive(func(*synclink.Datagram) error { got++; return nil })
		return err
	}
	testbed.Eventually(t, time.Minute, func() error { return errors.Join(receive(), has(len(n.all), 1)) })
	dial(t, host, at)
	if _, err := first.Write(notrack.AppendAlive(nil)); err != nil {
		t.Fatal(err)
	}
	undo := exhaust(t)
	err := receive()
	for i := 0; err == nil && got == 0 && i < 1000; i++ { // both are on their way
		err = receive()
	}
	fds := n.Poll(nil)
	undo()
	if !errors.Is(err, unix.EMFILE) {
		t.Errorf("accept: %v", err)
	}
	if got != 1 {
		t.Errorf("%d datagrams of who is connected", got)
	}
	if len(fds) != 1 {
		t.Errorf("polled: %v", fds)
	}
	testbed.Eventually(t, time.Minute, func() error { return errors.Join(receive(), has(len(n.all), 2)) })
}

func has(got, want int) error {
	if got != want {
		return errors.New("not yet")
	}
	return nil
}

func dial(t *testing.T, host *testbed.Namespace, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := host.Dial(t.Context(), "tcp", netip.AddrPort{}, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// exhaust opens files until no descriptor is left.
func exhaust(t *testing.T) (undo func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	little := before
	little.Cur = 64
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &little); err != nil {
		t.Fatal(err)
	}
	var opened []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		opened = append(opened, f)
	}
	return func() {
		for _, f := range opened {
			f.Close()
		}
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &before)
	}
}
