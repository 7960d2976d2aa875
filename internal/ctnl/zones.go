package ctnl

import (
	"sync"

	"github.com/sluice-project/sluice/core/flow"
)

// maxMasters bounds what MasterZones remembers, in flows of about 60 bytes, and
// maxEnded what it remembers of those that ended.
const (
	maxMasters = 16384
	maxEnded   = 2048
)

// MasterZones remembers in which conntrack zones flows with helpers are, since
// the kernel tells the zone of no expectation, and finds it in its own alone. It
// is shown the events and the dumps of flows. Any goroutine may call its methods.
//
// Two flows with equal tuples and helpers in two zones are told apart no further:
// the later counts.
type MasterZones struct {
	mu    sync.Mutex
	zones map[master]uint16

	// The kernel tells of a master's end before it tells of the expectations that
	// end with it. Those that ended are in two halves: when one is full the other
	// is forgotten.
	ended [2]map[master]uint16
}

type master struct {
	tuple            flow.Tuple
	family, protocol uint8
}

// Note takes in an event about a flow. Flows without zones and helpers cost
// nothing.
func (z *MasterZones) Note(e *flow.Event) {
	zone := e.Zone
	if zone == 0 { // a zone of the original direction is the expectation's too
		zone = e.ZoneOriginal
	}
	if e.IsExpectation() || e.IsMark() {
		return
	}
	key := master{e.Original, e.Family, e.Protocol}
	if e.Kind == flow.Destroy { // which does not say whether there was a helper
		if zone != 0 {
			z.end(key, zone)
		}
		return
	}
	if !e.Tail.Has(flow.AttrHelper) {
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.forget(key)
	if zone == 0 {
		return
	}
	if z.zones == nil || len(z.zones) >= maxMasters { // the next dump tells of them again
		z.zones = map[master]uint16{}
	}
	z.zones[key] = zone
}

func (z *MasterZones) forget(key master) {
	delete(z.zones, key)
	delete(z.ended[0], key)
	delete(z.ended[1], key)
}

// end notes that a flow ended, if it is one that is remembered.
func (z *MasterZones) end(key master, zone uint16) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.zones[key] != zone {
		return
	}
	z.forget(key)
	if z.ended[0] == nil || len(z.ended[0]) >= maxEnded/2 {
		z.ended = [...]map[master]uint16{{}, z.ended[0]}
	}
	z.ended[0][key] = zone
}

// zoneOf returns the zone of a master, or 0 if it is not known.
func (z *MasterZones) zoneOf(key master) uint16 {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, zones := range [...]map[master]uint16{z.zones, z.ended[0], z.ended[1]} {
		if zone := zones[key]; zone != 0 {
			return zone
		}
	}
	return 0
}

// Complete gives an event about an expectation its zone, if its master has one.
// The tail is then in memory of its own.
func (z *MasterZones) Complete(e *flow.Event) {
	m, ok := e.Tail.Master()
	if !ok || e.Zone != 0 {
		return
	}
	zone := z.zoneOf(master{m.Tuple, m.Family, m.Protocol})
	if zone == 0 {
		return
	}
	e.Zone, m.Zone = zone, zone
	e.Tail = e.Tail.Without(flow.AttrMaster, nil).AppendMaster(&m)
}
