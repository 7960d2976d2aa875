package ctnl

import (
	"sync"

	"github.com/sluice-project/sluice/core/flow"
)

// maxMasters bounds what MasterZones remembers, in flows of about 60 bytes.
const maxMasters = 16384

// MasterZones remembers in which conntrack zones flows with helpers are, since
// the kernel tells the zone of no expectation, and finds it in its own alone. It
// is shown the events and the dumps of flows. Any goroutine may call its methods.
//
// Two flows with equal tuples and helpers in two zones are told apart no further:
// the later counts.
type MasterZones struct {
	mu    sync.Mutex
	zones map[master]uint16
}

type master struct {
	tuple            flow.Tuple
	family, protocol uint8
}

// Note takes in an event about a flow. Without zones in use it costs nothing.
func (z *MasterZones) Note(e *flow.Event) {
	zone := e.Zone
	if zone == 0 { // a zone of the original direction is the expectation's too
		zone = e.ZoneOriginal
	}
	if zone == 0 || e.IsExpectation() || e.IsMark() {
		return
	}
	key := master{e.Original, e.Family, e.Protocol}
	if e.Kind == flow.Destroy { // which does not say whether there was a helper
		z.mu.Lock()
		if z.zones[key] == zone {
			delete(z.zones, key)
		}
		z.mu.Unlock()
		return
	}
	if !e.Tail.Has(flow.AttrHelper) {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.zones == nil || len(z.zones) >= maxMasters { // the next dump tells of them again
		z.zones = map[master]uint16{}
	}
	z.zones[key] = zone
}

// Complete gives an event about an expectation its zone, if its master has one.
// The tail is then in memory of its own.
func (z *MasterZones) Complete(e *flow.Event) {
	m, ok := e.Tail.Master()
	if !ok || e.Zone != 0 {
		return
	}
	z.mu.Lock()
	zone := z.zones[master{m.Tuple, m.Family, m.Protocol}]
	z.mu.Unlock()
	if zone == 0 {
		return
	}
	e.Zone, m.Zone = zone, zone
	e.Tail = e.Tail.Without(flow.AttrMaster, nil).AppendMaster(&m)
}
