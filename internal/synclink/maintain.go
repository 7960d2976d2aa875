package synclink

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// lookEvery is how often peers are looked after.
const lookEvery = time.Second

// heard notes that the node whose datagram is being read lives.
func (r *Receiver) heard() {
	n := r.node
	n.heard = time.Now()
	if !n.up {
		n.up = true
		r.host.Signal(plugin.SignalPeerUp, n.who()+" sends")
	}
}

// greeted notes the name of a node. It is printed, so only what prints stays.
func (r *Receiver) greeted(h *notrack.Hello) {
	name := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(h.Name), ""))
	r.node.marks = true
	before, owner := r.node.name, r.node.owner
	r.node = r.nodes.identify(r.node, r.sender, name, h.Node)
	if name != before || r.node.owner != owner {
		r.host.Logger().Info("peer said its name", "peer", r.sender.address, "name", name, "owner", r.node.owner, "version", h.Version)
	}
}

// maintain looks after interfaces of which there is news, and after peers when
// it is time.
func (r *Receiver) maintain(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	due := now.Sub(r.looked) >= lookEvery
	news := r.monitor.news(r.watched)
	for _, n := range r.links {
		if news || due && !n.works() {
			r.watch(n)
		}
	}
	if !due {
		return
	}
	r.looked = now
	for _, n := range r.nodes.list {
		if n.up && now.Sub(n.heard) >= silentAfter {
			n.up = false
			r.host.Signal(plugin.SignalPeerDown, n.who()+" is silent")
		}
	}
}

func (r *Receiver) watched(index int) bool {
	for _, n := range r.links {
		if n.iface.Index == index || n.iface.Index == 0 {
			return true
		}
	}
	return false
}

// Note implements plugin.Noter: what is wrong with links.
func (r *Receiver) Note() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var words []string
	for _, n := range r.links {
		switch {
		case n.iface.Index == 0:
			words = append(words, fmt.Sprintf("interface %s: %v", n.Interface, unix.ENODEV))
		case !n.iface.Running:
			words = append(words, fmt.Sprintf("interface %s: %v", n.Interface, unix.ENETDOWN))
		case !n.open:
			words = append(words, fmt.Sprintf("interface %s: can't receive there: see the log", n.Interface))
		}
	}
	return strings.Join(words, "; ")
}

// works says whether something can be received on the link.
func (n *incoming) works() bool { return n.open && n.iface.Running }

// watch adapts to an interface that was made anew or has another address, and
// tells the runner when it goes and comes: what was sent meanwhile is missing.
func (r *Receiver) watch(n *incoming) {
	before, worked := n.iface, n.works()
	if err := r.monitor.look(&n.iface); err != nil {
		r.failed("look at the interface", err)
		return
	}
	if n.iface.Index != 0 {
		if err := r.openLink(n); err != nil {
			n.open = false
			r.failed("receive on the interface", err)
		}
	}
	switch {
	case worked && !n.works():
		r.host.Signal(plugin.SignalLinkDown, "interface "+n.Interface+" went away")
	case n.works() && (!worked || before.Index != n.iface.Index):
		r.host.Signal(plugin.SignalLinkUp, "interface "+n.Interface+" works again")
	}
}

// failed counts and logs an error that the loop survives.
func (r *Receiver) failed(operation string, err error) {
	r.count.errors++
	r.log.Do(func() { r.host.Logger().Warn(operation+" failed", "error", err) })
}
