package synclink

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/sluice-project/sluice/internal/testbed"
)

// TestLookWhileAddressesChange holds that addresses of other interfaces that
// come and go, as on a busy router, never make a link look broken.
func TestLookWhileAddressesChange(t *testing.T) {
	n, far := testbed.MustNamespace(t, "busy"), testbed.MustNamespace(t, "far")
	for _, name := range []string{"sync", "other"} {
		if err := testbed.Cable(n, name, far, name); err != nil {
			t.Fatal(err)
		}
	}
	err := n.Do(func() error {
		m, err := openMonitor()
		if err != nil {
			return err
		}
		defer m.close()
		other, err := netlink.LinkByName("other")
		if err != nil {
			return err
		}
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		address := func(i int) *netlink.Addr {
			return &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 1, byte(i>>8), byte(i)), Mask: net.CIDRMask(32, 32)}}
		}
		for i := range 2000 { // more than one message of the list
			if err := h.AddrAdd(other, address(i)); err != nil {
				return err
			}
		}
		stop, stopped := make(chan struct{}), make(chan error, 1)
		go func() {
			for i := 2000; ; i++ {
				select {
				case <-stop:
					stopped <- nil
					return
				default:
				}
				if err := h.AddrAdd(other, address(i%60000)); err == nil {
					err = h.AddrDel(other, address(i%60000))
					if err != nil {
						stopped <- err
						return
					}
				}
			}
		}()
		for range 50 {
			i := Interface{Name: "sync"}
			if err := m.look(&i); err != nil {
				t.Errorf("look: %v", err)
				break
			}
		}
		close(stop)
		return <-stopped
	})
	if err != nil {
		t.Fatal(err)
	}
}
