package synclink

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

// What a link's sockets dropped goes on being counted when another is opened,
// which has a count of its own.
func TestDroppedBySeveralSockets(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	open := 0
	n := &DatagramInlet{
		Keeps: func(*Interface) bool { return false },
		Listen: func(*Interface) (int, error) {
			open++
			return BindDatagrams(netip.MustParseAddrPort("127.0.0.1:0"), 0, &Receiving{ReceiveBuffer: 4096}, nil)
		},
	}
	defer n.Close()
	var before uint32
	for range 3 {
		if err := n.Open(&Interface{Index: lo.Index}); err != nil {
			t.Fatal(err)
		}
		local, err := unix.Getsockname(n.FD())
		if err != nil {
			t.Fatal(err)
		}
		conn, err := net.DialUDP("udp", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: local.(*unix.SockaddrInet4).Port})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		last := before
		for range 2 { // too many, which are received, and another, which tells
			for range 50 {
				if _, err := conn.Write(make([]byte, 1000)); err != nil {
					t.Fatal(err)
				}
			}
			_, _, err = n.Receive(func(d *Datagram) error {
				if d.Dropped < last || d.Dropped > last+100 {
					t.Errorf("%d dropped, after %d", d.Dropped, last)
				}
				last = d.Dropped
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if last == before {
			t.Fatalf("nothing was dropped at socket %d", open)
		}
		before = last
	}
}
