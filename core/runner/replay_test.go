package runner

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// placed is a stage that stands somewhere.
func placed(p place) *stage {
	s := &stage{}
	s.place.Store(&p)
	return s
}

// A replay that a signal asked for waits out a pause. An administrator who asks
// for the same does not wait with it.
func TestRequestEndsThePauseOfASignalsReplay(t *testing.T) {
	p := newReplayer(placed(place{conf: &pipeline.Stage{Traits: &stagepb.Traits{}}}))
	p.pause, p.ended = time.Hour, time.Now()
	bySignal := p.request(nil, 0, "resync requested", true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	next := make(chan *replay)
	go func() { next <- p.next(ctx) }()
	for len(p.wake) > 0 { // until the loop has seen the signal's
		time.Sleep(time.Millisecond)
	}
	if byAdministrator := p.request(nil, 0, "bulk", false); byAdministrator != bySignal {
		t.Error("two replays wait that are the same")
	}
	if got := <-next; got != bySignal {
		t.Errorf("next is %v after 10 s of a pause for signals", got)
	}
}

// A peer that asks for everything while a bulk is under way has missed its begin,
// so that begins anew rather than the peer wait for its end and the next. But not
// without end: with many peers that ask in turn nobody would get all.
func TestBulkBeginsAnewForThoseWhoAskMeanwhile(t *testing.T) {
	sink := placed(place{conf: &pipeline.Stage{Kind: plugin.KindSink, Traits: &stagepb.Traits{Link: "sync"}}})
	cache := placed(place{conf: &pipeline.Stage{Kind: plugin.KindCache, Traits: &stagepb.Traits{}}, below: []*stage{sink}})
	p := newReplayer(cache)
	p.request(nil, 0, "start", false)
	current := p.next(t.Context())
	for n := range maxAnew {
		if p.request(nil, 0, "resync-requested", n%2 == 0) != current {
			t.Fatalf("request %d waits for the end of what is of no use to it", n)
		}
		if lost := p.repeats(current); lost != (n%2 == 0) {
			t.Errorf("request %d: asked for again for a loss: %v", n, lost)
		}
		if again, anew := p.again(current, nil); !again || !anew {
			t.Fatalf("request %d: the replay ends without it", n)
		}
	}
	if next := p.request(nil, 0, "resync-requested", true); next == current {
		t.Error("a replay begins anew for ever")
	}
	if again, _ := p.again(current, nil); again || p.current != nil {
		t.Error("the replay does not end")
	}
	if late := p.request(nil, 0, "bulk", false); late == current {
		t.Error("a request joined a replay that has ended")
	}
}

// What goes to a cache or sink of this node alone can't be lost in silence; what
// goes to peers of whom none was heard can.
func TestTracked(t *testing.T) {
	sink := placed(place{conf: &pipeline.Stage{Kind: plugin.KindSink, Traits: &stagepb.Traits{Link: "sync"}}, edgeNumber: 1})
	kernel := placed(place{conf: &pipeline.Stage{Kind: plugin.KindSink, Traits: &stagepb.Traits{Kernel: true}}, edgeNumber: 2})
	r := &Runner{}
	r.current.Store(&graph{stages: []*stage{sink, kernel}})
	cache := placed(place{conf: &pipeline.Stage{Kind: plugin.KindCache, Traits: &stagepb.Traits{}}, below: []*stage{sink, kernel}})
	cache.runner = r
	for into, want := range map[*stage]bool{nil: false, sink: false, kernel: true} {
		if cache.tracked(into) != want {
			t.Errorf("into %v: %v", into, !want)
		}
	}
}

func TestPeersWhoMarkAreTracked(t *testing.T) {
	for _, tt := range []struct {
		peers []*stagepb.Peer
		want  bool
	}{
		{nil, false},
		{[]*stagepb.Peer{{Up: true, Marks: true}}, true},
		{[]*stagepb.Peer{{Up: true, Marks: true}, {Up: true}}, false},
		{[]*stagepb.Peer{{Up: true, Marks: true}, {}}, true}, // it is not there any more
		{[]*stagepb.Peer{{Marks: true}}, false},
	} {
		if got := allMark(tt.peers); got != tt.want {
			t.Errorf("%v: %v", tt.peers, got)
		}
	}
}
