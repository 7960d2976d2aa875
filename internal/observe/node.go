package observe

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/control"
)

// A Backend tells how a node is. The runner is one.
type Backend interface {
	// Status asks the stages, and waits for those that hang no longer than a
	// moment.
	Status(ctx context.Context) (*control.Status, error)

	// Health asks no stage.
	Health() control.Health
}

// freshness is how long the answer to one question is the answer to the next:
// whoever asks how often, the stages are woken only so often.
const freshness = 200 * time.Millisecond

// A node remembers how its backend was a moment ago.
type node struct {
	backend Backend

	mu    sync.Mutex // held while the backend is asked: who comes meanwhile gets the same
	last  *control.Status
	asked time.Time // when last was there
}

// status returns the node's state, which nobody changes any more.
func (n *node) status() (*control.Status, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.last != nil && time.Since(n.asked) < freshness {
		return n.last, nil
	}
	status, err := n.backend.Status(context.Background())
	if err != nil {
		return nil, err
	}
	n.last, n.asked = status, time.Now()
	return status, nil
}
