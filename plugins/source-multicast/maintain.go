package sourcemulticast

import (
	"strings"
	"time"
	"unicode"

	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
)

// lookEvery is how often peers and interface are looked after.
const lookEvery = time.Second

// heard notes that a peer lives.
func (s *Source) heard(p *peer) {
	p.heard = time.Now()
	if !p.up {
		p.up = true
		s.host.Signal(plugin.SignalPeerUp, p.who()+" sends")
	}
}

// greeted notes the name of a peer. It is printed, so only what prints stays.
func (s *Source) greeted(p *peer, h *notrack.Hello) {
	p.marks = true
	name := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(string(h.Name), ""))
	if p.name != name {
		p.name = name
		s.host.Logger().Info("peer said its name", "peer", p.address, "name", name, "version", h.Version)
	}
}

// maintain looks after peers and interface when it is time.
func (s *Source) maintain(now time.Time) {
	if now.Sub(s.looked) < lookEvery {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.looked = now
	for _, p := range s.peers {
		if p.up && now.Sub(p.heard) >= silentAfter {
			p.up = false
			s.host.Signal(plugin.SignalPeerDown, p.who()+" is silent")
		}
	}
	s.watch()
}

// watch joins again where the interface was made anew, and tells the runner
// when it goes and comes: what was sent meanwhile is missing here.
func (s *Source) watch() {
	index, running := s.socket.index, s.socket.running
	if err := s.socket.look(); err != nil {
		s.trouble("look at the interface", err)
		return
	}
	switch {
	case running && !s.socket.running:
		s.host.Signal(plugin.SignalLinkDown, "interface "+s.socket.name+" went away")
	case s.socket.running && (!running || index != s.socket.index):
		s.host.Signal(plugin.SignalLinkUp, "interface "+s.socket.name+" works again")
	}
}

// trouble counts and logs an error that the loop survives.
func (s *Source) trouble(operation string, err error) {
	s.count.errors++
	s.log.Do(func() { s.host.Logger().Warn(operation+" failed", "error", err) })
}
