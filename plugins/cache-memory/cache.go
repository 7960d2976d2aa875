package cachememory

import (
	"context"
	"fmt"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// An output is what the cache needs of a plugin.Output.
type output interface {
	Lock()
	Unlock()
	SendLocked(*flow.Builder) error
	AwaitRoom(ctx context.Context, edge uint16) error
}

// A Cache is the stage: a core with its locks.
type Cache struct {
	config Config
	host   plugin.Host
	clock  func() uint32 // seconds since the cache was made

	mu   sync.Mutex // guards core; taken after the output's lock
	core *core

	giveBack *time.Timer // guarded by mu: memory goes back to the system then

	pace pace // Replay's own: there is one at a time

	// Apply's own.
	packed packer
	told   [classes]told
}

// told is what the runner knows of a class's limit.
type told struct {
	refused uint64 // how many were when it was last told
	full    bool
}

// step is how many slots are looked at under one hold of the table's lock:
// about one batch.
const step = 512

func newCache(c Config) *Cache {
	start := time.Now()
	return &Cache{
		config: c,
		clock:  func() uint32 { return uint32(time.Since(start) / time.Second) },
	}
}

// Open implements plugin.Opener.
func (c *Cache) Open(_ context.Context, host plugin.Host) error {
	c.host = host
	c.core = newCore([classes]int{flows: int(c.config.Limit), expectations: int(c.config.ExpectationLimit)}, c.config.Hold, host.Start().WriteThrough)
	c.core.everyFlow = host.Start().EveryFlow
	return nil
}

// Apply implements plugin.Cache.
func (c *Cache) Apply(b *flow.Batch, out *plugin.Output) error { return c.apply(b, out) }

func (c *Cache) apply(b *flow.Batch, out output) error {
	out.Lock()
	defer out.Unlock()
	cursor := b.Cursor()
	for more := true; more; {
		c.mu.Lock()
		more = c.core.apply(&b.Header, &cursor, c.clock())
		mark := c.core.event
		c.core.emit(b.Header, &c.packed)
		if c.core.index.let >= worthwhile {
			c.letGo()
		}
		c.mu.Unlock()
		c.tellFull()
		if err := c.packed.send(out); err != nil {
			return err
		}
		if more {
			if err := c.mark(&b.Header, &mark, out); err != nil {
				return err
			}
		}
	}
	return nil
}

// worthwhile is how many bytes are given back to the system at once. The garbage
// collector may not look at them for hours: the table has no other garbage.
const worthwhile = 256 << 10

// letGo gives memory back that the table does not use any more, when it has not
// grown for a second: this stops everything for some milliseconds. The caller
// holds mu.
func (c *Cache) letGo() {
	c.core.index.let = 0
	if c.giveBack == nil {
		c.giveBack = time.AfterFunc(time.Second, debug.FreeOSMemory)
	} else {
		c.giveBack.Reset(time.Second)
	}
}

// tellFull raises the signal when the cache refuses flows, or expectations, for
// the first time, and again after there was room in between.
func (c *Cache) tellFull() {
	c.mu.Lock()
	count, limit := c.core.count.of, c.core.limit
	c.mu.Unlock()
	for of := range classes {
		told, n := &c.told[of], &count[of]
		if n.refused != told.refused && !told.full {
			told.full = true
			detail := fmt.Sprintf("%d %s are all that the limit allows", limit[of], of.noun())
			if n.held < limit[of] {
				detail = fmt.Sprintf("%s of %d peers are here, and no room for one more peer", of.noun(), maxOwners-1)
			}
			c.host.Signal(plugin.SignalFull, detail)
		}
		told.refused = n.refused
		if n.held < limit[of]-limit[of]/16 {
			told.full = false
		}
	}
}

// mark takes a mark of a replay: it ends here.
func (c *Cache) mark(h *flow.Header, mark *flow.Event, out output) error {
	if mark.Sync.Flags&flow.SyncKeep != 0 {
		if mark.Kind == flow.SyncEnd {
			c.host.Done(plugin.Report{Replay: h.Replay, Owner: h.Owner})
		}
		return nil
	}
	c.mu.Lock()
	owner, ok := c.core.owners.of(h.Owner)
	if !ok {
		c.mu.Unlock()
		return nil // its records are refused too
	}
	if mark.Kind == flow.SyncBegin {
		c.core.begin(owner, h.Replay, mark.Sync.Flags)
		c.mu.Unlock()
		c.reap()
		return nil
	}
	r, why := c.core.end(owner, h.Replay, mark.Sync.Count)
	c.mu.Unlock()
	switch {
	case why != "":
		c.fail(h, why)
	case r != nil:
		if err := c.sweep(r, out); err != nil {
			return err
		}
		c.done(r, h.Owner)
	}
	c.reap()
	return nil
}

// fail reports a replay that lost records, and asks for another.
func (c *Cache) fail(h *flow.Header, why string) {
	detail := fmt.Sprintf("replay %d: %s", h.Replay, why)
	if h.Owner.IsValid() {
		detail = fmt.Sprintf("%v: %s", h.Owner, detail)
	}
	c.host.Signal(plugin.SignalGap, detail)
	c.host.Done(plugin.Report{Replay: h.Replay, Owner: h.Owner, Failed: why})
}

// sweep removes what a complete replay did not name, a few at a time.
func (c *Cache) sweep(r *replay, out output) error {
	for slot, more := uint32(0), true; more; {
		c.mu.Lock()
		slot, more = c.core.sweep(r, slot, step, &c.packed)
		c.mu.Unlock()
		if err := c.packed.send(out); err != nil {
			return err
		}
	}
	return nil
}

// done ends a replay and reports it.
func (c *Cache) done(r *replay, owner netip.Addr) {
	c.mu.Lock()
	id, arrived, n := r.id, r.arrived, r.counts
	c.core.finish(r)
	c.mu.Unlock()
	counts := []plugin.Count{{Name: "flows", Value: arrived[flows]}}
	if n := arrived[expectations]; n > 0 {
		counts = append(counts, plugin.Count{Name: "expectations", Value: n})
	}
	c.host.Done(plugin.Report{Replay: id, Owner: owner, Counts: append(counts,
		plugin.Count{Name: "new", Value: n.inserted},
		plugin.Count{Name: "changed", Value: n.changed},
		plugin.Count{Name: "swept", Value: n.swept},
	)})
}

// reap removes tombstones that are of no use any more, a few at a time.
func (c *Cache) reap() {
	for more := true; more; {
		c.mu.Lock()
		more = c.core.reap(step)
		c.mu.Unlock()
	}
}

// originOf returns the origin of what a node owns.
func originOf(address netip.Addr) flow.Origin {
	if address.IsValid() {
		return flow.Peer
	}
	return flow.Kernel
}
