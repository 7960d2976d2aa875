package runner

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// A replay that a signal asked for waits out a pause. An administrator who asks
// for the same does not wait with it.
func TestRequestEndsThePauseOfASignalsReplay(t *testing.T) {
	p := newReplayer(&stage{conf: &pipeline.Stage{Traits: &stagepb.Traits{}}})
	p.pause, p.ended = time.Hour, time.Now()
	bySignal := p.request(0, 0, "resync requested", true)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	next := make(chan *replay)
	go func() { next <- p.next(ctx) }()
	for len(p.wake) > 0 { // until the loop has seen the signal's
		time.Sleep(time.Millisecond)
	}
	if byAdministrator := p.request(0, 0, "bulk", false); byAdministrator != bySignal {
		t.Error("two replays wait that are the same")
	}
	if got := <-next; got != bySignal {
		t.Errorf("next is %v after 10 s of a pause for signals", got)
	}
}
