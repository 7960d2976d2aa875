package sourcemulticast

import (
	"net/netip"
	"time"

	"github.com/sluice-project/sluice/internal/notrack"
)

// Bounds of what is kept about senders, so that forged addresses fill nothing.
const (
	maxPeers    = 64
	maxPorts    = 4               // of one peer: the ports of its last sinks
	silentAfter = 3 * time.Second // nodes send at least once a second
)

// A peer is a node of the group, known by its address. What it sends comes from
// one port; a restart of its sink brings another, and a new sequence.
type peer struct {
	address netip.Addr
	name    string
	up      bool
	heard   time.Time
	ports   []sender        // the latest first
	before  notrack.Tracker // the counts of ports that were forgotten

	marks           bool   // it speaks the extension, so it marks its replays
	flows, replayed uint64 // see plugin.Peer
}

type sender struct {
	port    uint16
	tracker *notrack.Tracker
}

// tracker returns the tracker of a port of the peer.
func (p *peer) tracker(port uint16) *notrack.Tracker {
	for i, s := range p.ports {
		if s.port == port {
			if i > 0 {
				copy(p.ports[1:], p.ports[:i])
				p.ports[0] = s
			}
			return s.tracker
		}
	}
	if len(p.ports) == maxPorts {
		add(&p.before, p.ports[maxPorts-1].tracker)
		p.ports = p.ports[:maxPorts-1]
	}
	p.ports = append([]sender{{port, &notrack.Tracker{}}}, p.ports...)
	return p.ports[0].tracker
}

func add(sum, t *notrack.Tracker) {
	sum.Messages += t.Messages
	sum.Gaps += t.Gaps
	sum.Lost += t.Lost
	sum.Before += t.Before
	sum.Repeated += t.Repeated
}

// total returns the counts of all ports together.
func (p *peer) total() notrack.Tracker {
	sum := p.before
	for _, s := range p.ports {
		add(&sum, s.tracker)
	}
	return sum
}

// who names the peer for people.
func (p *peer) who() string {
	if p.name == "" {
		return p.address.String()
	}
	return p.name + " (" + p.address.String() + ")"
}

// peers are all nodes that were heard of.
type peers map[netip.Addr]*peer

// get returns the peer of an address. When there are too many it forgets the
// one that has been silent for longest, or returns nil if none is.
func (ps peers) get(a netip.Addr) *peer {
	if p := ps[a]; p != nil {
		return p
	}
	if len(ps) >= maxPeers {
		var oldest *peer
		for _, p := range ps {
			if !p.up && (oldest == nil || p.heard.Before(oldest.heard)) {
				oldest = p
			}
		}
		if oldest == nil {
			return nil
		}
		delete(ps, oldest.address)
	}
	p := &peer{address: a}
	ps[a] = p
	return p
}
