package sinktcp

import (
	"errors"
	"math"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
)

const (
	// room is what is sent at once; a peer must have it in memory as a whole.
	room = 16 << 10
	// patience is how long peers that have kept up so far hold up the pipeline,
	// all of them together.
	patience = 500 * time.Millisecond
	// connectWithin is how long a link without a connection is not yet at fault.
	connectWithin = time.Second
)

var errNobody = errors.New("no peer is connected")

// An outlet is connected to each of the peers of a link, or tries to be.
//
// A peer that is not connected, or does not take what it is sent, misses what
// is sent meanwhile, and nothing is kept for it but the rest of what it got the
// beginning of. When it is there again the runner is told, and has the cache
// replay.
type outlet struct {
	place  *synclink.PeersPlace
	config *synclink.Sending
	wake   func()
	inside func(open func() error) error

	peers  []*peer
	opened time.Time
}

func newOutlet(p *synclink.PeersPlace, s *synclink.Sending) *outlet {
	return &outlet{place: p, config: s}
}

// Start implements synclink.Connecting.
func (o *outlet) Start(wake func(), inside func(open func() error) error) {
	o.wake, o.inside = wake, inside
}

// Open begins to connect from the interface's address.
func (o *outlet) Open(i *synclink.Interface) (netip.Addr, error) {
	address, err := i.Address(o.place.Address, o.place.Family())
	if err != nil {
		return address, err
	}
	_ = o.Close()
	o.opened = time.Now()
	for _, to := range o.place.Destination {
		o.peers = append(o.peers, connectTo(netip.AddrPortFrom(to.Unmap(), o.place.Port), address, *i, o))
	}
	return address, nil
}

// Adapt has everything opened again when the interface is another one.
func (o *outlet) Adapt(i *synclink.Interface) error {
	for _, p := range o.peers {
		if p.on.Index != i.Index {
			return errors.New("it is another one of this name")
		}
	}
	return nil
}

// Room does not depend on the MTU.
func (o *outlet) Room(*synclink.Interface) int { return room }

// Buffer is that of a connection, once there is one.
func (o *outlet) Buffer() int {
	for _, p := range o.peers {
		if c, ok := p.connection().(syscall.Conn); ok {
			size, _ := synclink.Getsockopt(c, unix.SOL_SOCKET, unix.SO_SNDBUF)
			return size
		}
	}
	return math.MaxInt // not known yet
}

// Ready says whether any peer is connected.
func (o *outlet) Ready() error {
	if time.Since(o.opened) < connectWithin {
		return nil
	}
	for _, p := range o.peers {
		if p.connection() != nil {
			return nil
		}
	}
	return errNobody
}

// Send sends everything to every peer.
func (o *outlet) Send(p *notrack.Packer, t synclink.Tally) {
	until := time.Now().Add(patience)
	for _, one := range o.peers {
		one.send(p, until, t)
	}
}

// Leave ends connections with something in them that has not arrived.
func (o *outlet) Leave() {
	for _, p := range o.peers {
		p.leave()
	}
}

// Tend tells of peers that are there again.
func (o *outlet) Tend(_ time.Time, t synclink.Tally) {
	for _, p := range o.peers {
		p.tend(t)
	}
}

// Close ends all connections.
func (o *outlet) Close() error {
	for _, p := range o.peers {
		p.close()
	}
	o.peers = nil
	return nil
}
