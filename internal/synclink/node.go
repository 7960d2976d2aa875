package synclink

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sluice-project/sluice/internal/notrack"
)

// Bounds of what is kept about senders, so that forged addresses fill nothing.
const (
	maxNodes     = 64
	maxAddresses = 16              // of one node
	maxPorts     = 4               // of one address: those of its last sinks
	silentAfter  = 3 * time.Second // nodes send at least once a second
)

// A node is another node of the cluster. It is known by its address on the link;
// on several links it has several addresses, which are one node's:
//
//  1. A Sluice node that has several links says the address by which it is
//     known, before it sends anything else on a link.
//  2. A node that says nothing (a conntrackd) is taken for the one on another
//     link if on each of the two links nobody else was heard who says nothing.
//
// The owner of its flows stays the same for as long as this process lives, or,
// by rule 1, longer: a DESTROY from one link must end what came over another.
type node struct {
	owner     netip.Addr
	name      string
	up        bool
	heard     time.Time
	addresses []*sender
	before    notrack.Tracker  // the counts of ports and addresses that were forgotten
	last      *notrack.Tracker // of the address and port that sent last
	link      int              // that it sent on
	since     time.Time        // when the connection was made that it sent over

	marks           bool   // it speaks the extension, so it marks its replays
	flows, replayed uint64 // see plugin.Peer
}

// A sender is one address of a node. What it sends comes from one port; a
// restart of its sink brings another, and a new sequence.
type sender struct {
	address netip.Addr
	link    int
	settled bool   // rule 2 was applied
	ports   []port // the latest first
}

type port struct {
	number  uint16
	tracker *notrack.Tracker
}

// tracker returns the tracker of a port of the sender.
func (n *node) tracker(s *sender, number uint16) *notrack.Tracker {
	for i, p := range s.ports {
		if p.number == number {
			if i > 0 {
				copy(s.ports[1:], s.ports[:i])
				s.ports[0] = p
			}
			return p.tracker
		}
	}
	if len(s.ports) == maxPorts {
		sum(&n.before, s.ports[maxPorts-1].tracker)
		s.ports = s.ports[:maxPorts-1]
	}
	s.ports = append([]port{{number, &notrack.Tracker{}}}, s.ports...)
	return s.ports[0].tracker
}

func sum(total, t *notrack.Tracker) {
	total.Messages += t.Messages
	total.Gaps += t.Gaps
	total.Lost += t.Lost
	total.Before += t.Before
	total.Repeated += t.Repeated
}

// total returns the counts of all ports together.
func (n *node) total() notrack.Tracker {
	all := n.before
	for _, s := range n.addresses {
		for _, p := range s.ports {
			sum(&all, p.tracker)
		}
	}
	return all
}

// who names the node for people.
func (n *node) who() string {
	if n.name == "" {
		return n.owner.String()
	}
	return n.name + " (" + n.owner.String() + ")"
}

// nodes are all that were heard of.
type nodes struct {
	byAddress map[netip.Addr]*node
	list      []*node
}

// get returns the node of an address that was heard on a link. When there are
// too many it forgets the one that has been silent for longest, or returns nil
// if none is.
func (ns *nodes) get(a netip.Addr, link int) (*node, *sender) {
	if n := ns.byAddress[a]; n != nil {
		return n, n.sender(a)
	}
	if len(ns.list) >= maxNodes {
		var oldest *node
		for _, n := range ns.list {
			if !n.up && (oldest == nil || n.heard.Before(oldest.heard)) {
				oldest = n
			}
		}
		if oldest == nil {
			return nil, nil
		}
		ns.forget(oldest)
	}
	n := &node{owner: a}
	ns.list = append(ns.list, n)
	return n, ns.add(n, a, link)
}

func (n *node) sender(a netip.Addr) *sender {
	for _, s := range n.addresses {
		if s.address == a {
			return s
		}
	}
	return nil
}

func (ns *nodes) add(n *node, a netip.Addr, link int) *sender {
	s := &sender{address: a, link: link}
	n.addresses = append(n.addresses, s)
	if ns.byAddress == nil {
		ns.byAddress = map[netip.Addr]*node{}
	}
	ns.byAddress[a] = n
	return s
}

func (ns *nodes) forget(n *node) {
	for _, s := range n.addresses {
		delete(ns.byAddress, s.address)
	}
	ns.list = slices.DeleteFunc(ns.list, func(one *node) bool { return one == n })
}

// take makes an address one of n's that was another node's.
func (ns *nodes) take(n *node, s *sender, from *node) {
	from.addresses = slices.DeleteFunc(from.addresses, func(one *sender) bool { return one == s })
	n.addresses = append(n.addresses, s)
	ns.byAddress[s.address] = n
	n.up = n.up || from.up
	n.marks = n.marks || from.marks
	if len(from.addresses) == 0 {
		sum(&n.before, &from.before)
		ns.forget(from)
	}
	if len(n.addresses) > maxAddresses {
		oldest := n.addresses[0]
		for _, p := range oldest.ports {
			sum(&n.before, p.tracker)
		}
		delete(ns.byAddress, oldest.address)
		n.addresses = n.addresses[1:]
	}
}

// identify applies rule 1: the node that sends from s said its name and the
// address by which it is known. It returns the node.
func (ns *nodes) identify(n *node, s *sender, name string, known netip.Addr) *node {
	s.settled = true
	if !known.IsValid() || known.IsUnspecified() || known.IsMulticast() {
		known = s.address
	}
	target := ns.byOwner(known)
	switch {
	case target == n:
	case target != nil:
		ns.take(target, s, n)
		n = target
	case len(n.addresses) == 1:
		n.owner = known
	case len(ns.list) < maxNodes:
		fresh := &node{owner: known, heard: n.heard, up: n.up}
		ns.list = append(ns.list, fresh)
		ns.take(fresh, s, n)
		n = fresh
	}
	n.name = name
	return n
}

func (ns *nodes) byOwner(a netip.Addr) *node {
	for _, n := range ns.list {
		if n.owner == a {
			return n
		}
	}
	return nil
}

// settle applies rule 2 to a node that sends flows from s, and returns the node.
func (ns *nodes) settle(n *node, s *sender) *node {
	if s.settled {
		return n
	}
	s.settled = true
	if n.name != "" || len(n.addresses) > 1 {
		return n
	}
	var other *node
	for _, one := range ns.list {
		if one == n || one.name != "" {
			continue
		}
		if other != nil || one.on(s.link) {
			return n // there are more of them
		}
		other = one
	}
	if other == nil {
		return n
	}
	ns.take(other, s, n)
	return other
}

// on says whether the node was heard on a link.
func (n *node) on(link int) bool {
	return slices.ContainsFunc(n.addresses, func(s *sender) bool { return s.link == link })
}

// lateFor is how long a new connection may begin with what is late.
const lateFor = 2 * time.Second

// moved is called when the node is heard at an address and port of which t has
// the numbers; first is the next of them, and since is when the connection that
// it came over was made, zero for datagrams. It says whether what came is of use.
//
//  1. A node has one count for all its links, so on another one the count goes
//     on, and shows what was lost in between. A number that is too far away
//     begins another count: the node was started again.
//  2. Over another connection the same holds, but a node that marks its replays
//     sends one then, so nothing that is missing there is asked for.
//  3. What is behind the count and comes over an older connection than the last
//     is late: it waited there while that link was down. It must not undo what
//     came since.
//  4. So is that with which a conntrackd begins a connection: it keeps what it
//     could not send. If that does not end soon it was started again.
func (n *node) moved(t *notrack.Tracker, link int, since time.Time, first uint32) bool {
	stream := !since.IsZero()
	if n.last == t || n.last == nil {
		n.last, n.link, n.since = t, link, since
		return true
	}
	if stream && n.last.Behind(first) && (!since.After(n.since) || !n.marks && time.Since(since) < lateFor) {
		return false
	}
	if (n.link != link || stream && !n.marks) && n.last.Near(first) {
		t.Follow(n.last)
	}
	n.last, n.link, n.since = t, link, since
	return true
}
