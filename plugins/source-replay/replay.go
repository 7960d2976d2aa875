package sourcereplay

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// step is how many records a replay takes from the state at once, so that it holds
// live events up for no longer.
const step = 400

// Replay sends what was sent and has not ended, each owner's between marks of its
// own, those of the kernel last: their end says that all is there.
func (s *source) Replay(ctx context.Context, r plugin.Replay, out *plugin.Output) error {
	s.mu.Lock()
	full := s.state.full
	owners := slices.SortedFunc(maps.Keys(s.state.owners), func(a, b netip.Addr) int { return cmp.Or(-cmp.Compare(a.BitLen(), b.BitLen()), a.Compare(b)) })
	s.mu.Unlock()
	if r.Flags&flow.SyncKeep != 0 {
		owners = nil
	} else if full {
		return fmt.Errorf("replay: not all flows of the recording are remembered, since there are more than %d at once: raise limit", s.config.Limit)
	}
	if !slices.Contains(owners, netip.Addr{}) {
		owners = append(owners, netip.Addr{})
	}
	for _, owner := range owners {
		p := replayer{source: s, ctx: ctx, replay: r, out: out, header: flow.Header{Replay: r.ID, Edge: r.Edge, Owner: owner}}
		if owner.IsValid() {
			p.header.Origin = flow.Peer
		}
		if err := p.run(); err != nil {
			return err
		}
	}
	return nil
}

// A replayer sends the part of a replay that belongs to one owner.
type replayer struct {
	*source
	ctx    context.Context
	replay plugin.Replay
	out    *plugin.Output
	header flow.Header
	batch  flow.Builder
	sent   uint64
}

func (p *replayer) run() error {
	p.batch.Reset(p.header)
	if err := p.mark(flow.SyncBegin); err != nil {
		return err
	}
	if p.replay.Flags&flow.SyncKeep == 0 {
		if err := p.table(); err != nil {
			return err
		}
	}
	return p.mark(flow.SyncEnd)
}

// table sends what the owner has: flows, then expectations, whose masters are known
// by then.
func (p *replayer) table() error {
	p.mu.Lock()
	t := p.state.owners[p.header.Owner]
	p.mu.Unlock()
	if t == nil {
		return nil
	}
	if err := each(p, t.flows); err != nil {
		return err
	}
	return each(p, t.expectations)
}

// each sends the records of a map, which changes meanwhile: what is added or goes
// away is sent live.
func each[K comparable](p *replayer, m map[K]flow.Record) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, r := range m {
		if n == step || !p.batch.AppendRecord(r) {
			p.mu.Unlock()
			err = p.flush()
			p.mu.Lock()
			if err != nil {
				return err
			}
			n = 0
			p.batch.AppendRecord(r) // it fits into an empty one
		}
		n++
		p.sent++
	}
	return nil
}

func (p *replayer) mark(kind flow.Kind) error {
	e := flow.Event{Kind: kind, Sync: flow.Sync{Flags: p.replay.Flags}}
	if kind == flow.SyncEnd {
		e.Sync.Count = p.sent
	}
	if !p.batch.Append(&e) {
		if err := p.flush(); err != nil {
			return err
		}
		p.batch.Append(&e)
	}
	return p.flush()
}

// flush sends the batch, when there is room for it.
func (p *replayer) flush() error {
	if err := p.out.AwaitRoom(p.ctx, p.replay.Edge); err != nil {
		return err
	}
	err := p.out.Send(&p.batch)
	p.batch.Reset(p.header)
	return err
}
