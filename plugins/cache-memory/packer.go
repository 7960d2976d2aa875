package cachememory

import "github.com/sluice-project/sluice/core/flow"

// A packer packs records into as many batches as they need, reusing its
// memory. What it packed is built under the table's lock and sent after that
// was released.
type packer struct {
	builders []*flow.Builder // the first used of them hold something
	used     int
	header   flow.Header
	fresh    bool // the next record begins a batch
	records  uint64
}

// reset forgets what was packed.
func (p *packer) reset() { p.used, p.records = 0, 0 }

// start makes the records that follow part of a batch with the header h.
func (p *packer) start(h flow.Header) {
	if p.used == 0 || p.header != h {
		p.header, p.fresh = h, true
	}
}

// next begins the next batch.
func (p *packer) next() *flow.Builder {
	if p.used == len(p.builders) {
		p.builders = append(p.builders, new(flow.Builder))
	}
	b := p.builders[p.used]
	b.Reset(p.header)
	p.used++
	p.fresh = false
	return b
}

// add packs a record.
func (p *packer) add(r flow.Record) {
	if p.fresh || !p.builders[p.used-1].AppendRecord(r) {
		p.next().AppendRecord(r)
	}
	p.records++
}

// mark packs a mark.
func (p *packer) mark(kind flow.Kind, s flow.Sync) {
	e := flow.Event{Kind: kind, Sync: s}
	if p.fresh || !p.builders[p.used-1].Append(&e) {
		p.next().Append(&e)
	}
}

// send sends all batches. The caller holds the output's lock, and not the
// table's.
func (p *packer) send(out output) error {
	for _, b := range p.builders[:p.used] {
		if err := out.SendLocked(b); err != nil {
			return err
		}
	}
	p.reset()
	return nil
}
