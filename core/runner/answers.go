package runner

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// When an answer of peers that were asked for everything is over. There is no
// list of peers, but the source tells whom it hears, and of each whether it
// marks the end of what it sends.
const (
	// markedAnswer is how long a peer that marks may send nothing of a replay:
	// longer than the pause between replays that it may make first.
	markedAnswer = maxReplayPause + 2*time.Second
	// firstAnswer is how long to wait for anything of a peer that does not
	// mark, and for any peer at all. (conntrackd answers at once.)
	firstAnswer = 3 * time.Second
	// quietAnswer is the pause that ends a burst: conntrackd sends all that it
	// has in one go, and nothing between.
	quietAnswer = 300 * time.Millisecond
	// burstAnswer bounds the wait for such a pause, which may never come while
	// the peer carries traffic.
	burstAnswer = 3 * time.Second
	// allAnswers bounds it all.
	allAnswers = time.Minute
)

// answers is what is known of the answers to one request. It looks at the peers
// now and then, by the clock of its caller.
type answers struct {
	asked time.Time
	peers map[string]*answer // by address
}

// An answer is that of one peer.
type answer struct {
	name     string
	marks    bool
	before   uint64    // flows that it had sent when it was asked
	flows    uint64    // that it sent since
	replayed uint64    // records of replays that it had sent when looked at last
	answers  bool      // it sent some since it was asked
	changed  time.Time // when it sent last what can be part of an answer
	ended    bool      // it marked the end
	gone     bool
}

func newAnswers(asked time.Time, peers []*stagepb.Peer) *answers {
	a := &answers{asked: asked, peers: map[string]*answer{}}
	for _, p := range peers {
		if p.Up {
			a.peers[p.Address] = &answer{before: p.Flows, replayed: p.Replayed, changed: asked}
		}
	}
	return a
}

// look notes what the source tells of the peers, and whose end marks came.
func (a *answers) look(now time.Time, peers []*stagepb.Peer, ended []string) {
	for _, p := range peers {
		one := a.peers[p.Address]
		if one == nil && p.Up {
			one = &answer{changed: now}
			a.peers[p.Address] = one
		}
		if one != nil {
			one.look(now, p)
		}
	}
	for _, address := range ended {
		if a.peers[address] == nil {
			a.peers[address] = &answer{}
		}
		a.peers[address].ended = true
	}
}

func (a *answer) look(now time.Time, p *stagepb.Peer) {
	if p.Flows < a.before { // the source was started again, and counts anew
		a.before = 0
	}
	flows := p.Flows - a.before
	replays := p.Replayed != a.replayed
	if replays || flows != a.flows && !p.Marks {
		a.changed = now
	}
	a.answers = a.answers || replays
	a.name, a.marks, a.gone, a.flows, a.replayed = printable(p.Name), p.Marks, !p.Up, flows, p.Replayed
}

// over says whether there is nothing more to wait for.
func (a *answers) over(now time.Time) bool {
	if len(a.peers) == 0 {
		return now.Sub(a.asked) >= firstAnswer
	}
	for _, one := range a.peers {
		if !one.over(now, a.asked) {
			return false
		}
	}
	return true
}

func (a *answer) over(now, asked time.Time) bool {
	quiet := now.Sub(a.changed)
	switch {
	case a.ended || a.gone:
		return true
	case a.marks:
		return quiet >= markedAnswer
	case a.flows == 0:
		return quiet >= firstAnswer
	}
	return quiet >= quietAnswer || now.Sub(asked) >= burstAnswer
}

// unmarked returns how many flows came of peers that mark nothing.
func (a *answers) unmarked() (flows uint64) {
	for _, one := range a.peers {
		if !one.marks && !one.ended {
			flows += one.flows
		}
	}
	return flows
}

// note tells of all that did not mark the end of its answer; "" if all did.
func (a *answers) note(now time.Time) string {
	if len(a.peers) == 0 {
		return "no peer is heard"
	}
	var notes []string
	for address, one := range a.peers {
		if note := one.note(now); note != "" {
			who := address
			if one.name != "" {
				who = fmt.Sprintf("%s (%s)", one.name, address)
			}
			notes = append(notes, who+" "+note)
		}
	}
	slices.Sort(notes)
	return strings.Join(notes, "; ")
}

func (a *answer) note(now time.Time) string {
	switch {
	case a.ended:
		return ""
	case a.gone:
		return "fell silent"
	case a.marks && a.answers:
		return "has not come to the end of its answer"
	case a.marks:
		return "has not answered"
	case a.flows == 0:
		return "sent no flows"
	case now.Sub(a.changed) >= quietAnswer:
		return fmt.Sprintf("sent %d flows and then paused: it marks no end", a.flows)
	}
	return fmt.Sprintf("sent %d flows and goes on: it marks no end, and traffic looks the same", a.flows)
}
