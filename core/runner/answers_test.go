package runner

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A sight is what the source tells of one peer after some time.
type sight struct {
	after time.Duration
	peer  *stagepb.Peer
	ended bool
}

func TestAnswersAreOverWhenNothingMoreIsToBeExpected(t *testing.T) {
	const ms = time.Millisecond
	conntrackd := func(flows uint64) *stagepb.Peer {
		return &stagepb.Peer{Address: "192.0.2.1", Up: true, Flows: flows}
	}
	sluice := func(flows, replayed uint64) *stagepb.Peer {
		return &stagepb.Peer{Address: "192.0.2.2", Name: "fw2", Up: true, Marks: true, Flows: flows, Replayed: replayed}
	}
	silent := &stagepb.Peer{Address: "192.0.2.2", Name: "fw2", Marks: true}
	for name, test := range map[string]struct {
		peers  []*stagepb.Peer // when they are asked
		sights []sight
		open   time.Duration // it is not over yet
		over   time.Duration // it is
		note   string
	}{
		"nobody":                {open: 2900 * ms, over: 3 * time.Second, note: "no peer is heard"},
		"somebody, and silent":  {peers: []*stagepb.Peer{silent}, open: 2900 * ms, over: 3 * time.Second, note: "no peer is heard"},
		"nothing to send":       {peers: []*stagepb.Peer{conntrackd(7)}, open: 2900 * ms, over: 3 * time.Second, note: "192.0.2.1 sent no flows"},
		"a burst":               {peers: []*stagepb.Peer{conntrackd(7)}, sights: []sight{{after: 10 * ms, peer: conntrackd(17)}}, open: 300 * ms, over: 310 * ms, note: "192.0.2.1 sent 10 flows and then paused"},
		"a burst, and no pause": {peers: []*stagepb.Peer{conntrackd(7)}, sights: []sight{{after: 10 * ms, peer: conntrackd(17)}, {after: 2950 * ms, peer: conntrackd(30)}}, open: 2990 * ms, over: 3 * time.Second, note: "192.0.2.1 sent 23 flows and goes on"},
		"the source starts anew": {
			peers:  []*stagepb.Peer{conntrackd(70)},
			sights: []sight{{after: 10 * ms, peer: conntrackd(5)}},
			open:   300 * ms, over: 310 * ms, note: "192.0.2.1 sent 5 flows and then paused",
		},
		"a newcomer":            {sights: []sight{{after: 10 * ms, peer: conntrackd(5)}}, open: 300 * ms, over: 310 * ms, note: "192.0.2.1 sent 5 flows and then paused"},
		"marks":                 {peers: []*stagepb.Peer{sluice(7, 0)}, sights: []sight{{after: 1000 * ms, peer: sluice(17, 12), ended: true}}, open: 990 * ms, over: time.Second},
		"marks, and no end":     {peers: []*stagepb.Peer{sluice(7, 0)}, sights: []sight{{after: 1000 * ms, peer: sluice(17, 12)}}, open: 5990 * ms, over: 6 * time.Second, note: "fw2 (192.0.2.2) has not come to the end of its answer"},
		"marks, and no answer":  {peers: []*stagepb.Peer{sluice(7, 9)}, sights: []sight{{after: 4000 * ms, peer: sluice(8, 9)}}, open: 4990 * ms, over: 5 * time.Second, note: "fw2 (192.0.2.2) has not answered"},
		"marks, and then falls": {peers: []*stagepb.Peer{sluice(7, 0)}, sights: []sight{{after: 1000 * ms, peer: silent}}, open: 990 * ms, over: time.Second, note: "fw2 (192.0.2.2) fell silent"},
		"both": {
			peers:  []*stagepb.Peer{conntrackd(7), sluice(7, 0)},
			sights: []sight{{after: 10 * ms, peer: conntrackd(17)}, {after: 1000 * ms, peer: sluice(17, 12), ended: true}},
			open:   990 * ms, over: time.Second, note: "192.0.2.1 sent 10 flows and then paused",
		},
	} {
		t.Run(name, func(t *testing.T) {
			asked := time.Now()
			a := newAnswers(asked, test.peers)
			for _, peer := range test.peers {
				a.look(asked, []*stagepb.Peer{peer}, nil)
			}
			seen := 0
			until := func(after time.Duration) bool {
				for ; seen < len(test.sights) && test.sights[seen].after <= after; seen++ {
					s, ended := test.sights[seen], []string(nil)
					if s.ended {
						ended = []string{s.peer.Address}
					}
					a.look(asked.Add(s.after), []*stagepb.Peer{s.peer}, ended)
				}
				return a.over(asked.Add(after))
			}
			if until(test.open) {
				t.Errorf("over after %v", test.open)
			}
			if !until(test.over) {
				t.Errorf("not over after %v", test.over)
			}
			if got := a.note(asked.Add(test.over)); !strings.HasPrefix(got, test.note) || got != "" && test.note == "" {
				t.Errorf("note is %q, want %q", got, test.note)
			}
		})
	}
}
