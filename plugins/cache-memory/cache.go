package cachememory

import (
	"context"
	"fmt"
	"net/netip"
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

	// Apply's own.
	packed  packer
	refused uint64 // core.count.refused when the runner was last told
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
	c.core = newCore(int(c.config.Limit), c.config.Hold, host.Start().WriteThrough)
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

// tellFull raises the signal when the cache refuses flows for the first time,
// and again after there was room in between.
func (c *Cache) tellFull() {
	c.mu.Lock()
	refused, flows, limit := c.core.count.refused, c.core.count.flows, c.core.limit
	c.mu.Unlock()
	if refused != c.refused && !c.full {
		c.full = true
		detail := fmt.Sprintf("%d flows are all that the limit allows", limit)
		if flows < limit {
			detail = fmt.Sprintf("flows of %d peers are here, and no room for one more peer", maxOwners-1)
		}
		c.host.Signal(plugin.SignalFull, detail)
	}
	c.refused = refused
	if flows < limit-limit/16 {
		c.full = false
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
	c.host.Done(plugin.Report{Replay: id, Owner: owner, Counts: []plugin.Count{
		{Name: "flows", Value: arrived},
		{Name: "new", Value: n.inserted},
		{Name: "changed", Value: n.changed},
		{Name: "swept", Value: n.swept},
	}})
}

// reap removes tombstones that are of no use any more, a few at a time.
func (c *Cache) reap() {
	for more := true; more; {
		c.mu.Lock()
		more = c.core.reap(step)
		c.mu.Unlock()
	}
}

// Statistics implements plugin.Meter. It waits for the table's lock at most for
// one batch, and never for the output.
func (c *Cache) Statistics() []plugin.Statistic {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := &c.core.count
	s := []plugin.Statistic{
		{Name: "flows", Help: "flows in the cache", Type: plugin.Gauge, Value: uint64(n.flows)},
		{Name: "flows_foreign", Help: "of them, other nodes' flows that this one put into its kernel", Type: plugin.Gauge, Value: uint64(n.foreign)},
		{Name: "flows_limit", Help: "most flows that the cache keeps", Type: plugin.Gauge, Value: uint64(c.core.limit)},
		{Name: "memory_bytes", Help: "memory allocated for flows, in bytes", Type: plugin.Gauge, Value: uint64(c.core.bytes())},
		{Name: "tombstones", Help: "flows that ended during a replay and are remembered until its end", Type: plugin.Gauge, Value: uint64(len(c.core.replays.graves) - c.core.replays.head)},
		{Name: "inserted", Help: "flows that became known", Value: n.inserted},
		{Name: "updated", Help: "changes of known flows", Value: n.updated},
		{Name: "destroyed", Help: "flows that ended", Value: n.destroyed},
		{Name: "swept", Help: "flows that a replay did not name", Value: n.swept},
		{Name: "unchanged", Help: "replayed records that told nothing new", Value: n.unchanged},
		{Name: "destroys_ignored", Help: "ends told by a node that doesn't own the flow, or of a predecessor of the same addresses", Value: n.ignoredDestroys},
		{Name: "replayed_overtaken", Help: "replayed records of flows that a live event touched meanwhile", Value: n.overtaken},
		{Name: "replayed_stale", Help: "replayed records of replays that were cancelled, or whose begin was lost", Type: plugin.Loss, Value: n.stale},
		{Name: "replays_incomplete", Help: "replays that lost records on their way", Type: plugin.Loss, Value: n.incomplete},
		{Name: "refused", Help: "new flows refused at the limit", Type: plugin.Loss, Value: n.refused},
	}
	for _, o := range c.core.owners.list[1:] {
		if o.address.IsValid() {
			s = append(s, plugin.Statistic{
				Name: "peer_flows", Help: "flows that the peer owns", Type: plugin.Gauge, Value: uint64(o.flows), Peer: o.address.String(),
			})
		}
	}
	return s
}

// originOf returns the origin of what a node owns.
func originOf(address netip.Addr) flow.Origin {
	if address.IsValid() {
		return flow.Peer
	}
	return flow.Kernel
}
