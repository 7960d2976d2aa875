package cachememory

import "github.com/sluice-project/sluice/core/plugin"

// Statistics implements plugin.Meter. It waits for the table's lock at most for
// one batch, and never for the output.
func (c *Cache) Statistics() []plugin.Statistic {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, f, x := &c.core.count, &c.core.count.of[flows], &c.core.count.of[expectations]
	s := []plugin.Statistic{
		{Name: "flows", Help: "flows in the cache", Type: plugin.Gauge, Value: uint64(f.held)},
		{Name: "flows_foreign", Help: "of them, other nodes' flows that this one put into its kernel", Type: plugin.Gauge, Value: uint64(f.foreign)},
		{Name: "flows_limit", Help: "most flows that the cache keeps", Type: plugin.Gauge, Value: uint64(c.core.limit[flows])},
		{Name: "memory_bytes", Help: "memory allocated for flows and expectations, in bytes", Type: plugin.Gauge, Value: uint64(c.core.bytes())},
		{Name: "tombstones", Help: "flows and expectations that ended during a replay and are remembered until its end", Type: plugin.Gauge, Value: uint64(len(c.core.replays.graves) - c.core.replays.head)},
		{Name: "inserted", Help: "flows that became known", Value: f.inserted},
		{Name: "updated", Help: "changes of known flows", Value: f.updated},
		{Name: "destroyed", Help: "flows that ended", Value: f.destroyed},
		{Name: "swept", Help: "flows that a replay did not name", Value: f.swept},
		{Name: "refused", Help: "new flows refused at the limit", Type: plugin.Loss, Value: f.refused},
		{Name: "expectations", Help: "expectations in the cache", Type: plugin.Gauge, Value: uint64(x.held)},
		{Name: "expectations_foreign", Help: "of them, other nodes' expectations that this one put into its kernel", Type: plugin.Gauge, Value: uint64(x.foreign)},
		{Name: "expectations_limit", Help: "most expectations that the cache keeps", Type: plugin.Gauge, Value: uint64(c.core.limit[expectations])},
		{Name: "expectations_inserted", Help: "expectations that became known", Value: x.inserted},
		{Name: "expectations_updated", Help: "changes of known expectations", Value: x.updated},
		{Name: "expectations_destroyed", Help: "expectations that ended", Value: x.destroyed},
		{Name: "expectations_swept", Help: "expectations that a replay did not name", Value: x.swept},
		{Name: "expectations_refused", Help: "new expectations refused at the limit", Type: plugin.Loss, Value: x.refused},
		{Name: "unchanged", Help: "replayed records that told nothing new", Value: n.unchanged},
		{Name: "destroys_ignored", Help: "ends told by a node that doesn't own the flow, or of a predecessor of the same addresses", Value: n.ignoredDestroys},
		{Name: "replayed_overtaken", Help: "replayed records of flows that a live event touched meanwhile", Value: n.overtaken},
		{Name: "replayed_of_others", Help: "records in peers' replays of flows that another peer owns, left as they were", Value: n.spared},
		{Name: "replayed_stale", Help: "replayed records of replays that were cancelled, or whose begin was lost", Type: plugin.Loss, Value: n.stale},
		{Name: "replays_incomplete", Help: "replays that lost records on their way", Type: plugin.Loss, Value: n.incomplete},
	}
	s = append(s, c.core.population.statistics()...)
	return append(s, c.core.owners.statistics()...)
}

// statistics counts what each peer owns.
func (o *owners) statistics() (s []plugin.Statistic) {
	for _, one := range o.list[1:] {
		if !one.address.IsValid() {
			continue
		}
		peer := one.address.String()
		s = append(s,
			plugin.Statistic{Name: "peer_flows", Help: "flows that the peer owns", Type: plugin.Gauge, Value: uint64(one.held[flows]), Peer: peer},
			plugin.Statistic{Name: "peer_expectations", Help: "expectations that the peer owns", Type: plugin.Gauge, Value: uint64(one.held[expectations]), Peer: peer})
	}
	return s
}
