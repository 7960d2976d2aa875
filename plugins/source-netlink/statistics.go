package sourcenetlink

import (
	"sync/atomic"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// statistics are counted by the reader and the replayer and read by anybody.
type statistics struct {
	created, updated, destroyed, own  atomic.Uint64
	expected, unexpected              atomic.Uint64
	overruns, malformed, queueDropped atomic.Uint64
	buffer, replays, replayed         atomic.Uint64
}

func (s *statistics) count(k flow.Kind) {
	switch k {
	case flow.New:
		s.created.Add(1)
	case flow.Update:
		s.updated.Add(1)
	case flow.Destroy:
		s.destroyed.Add(1)
	case flow.Expect:
		s.expected.Add(1)
	case flow.Unexpect:
		s.unexpected.Add(1)
	}
}

// Statistics implements plugin.Meter.
func (s *source) Statistics() []plugin.Statistic {
	list := []plugin.Statistic{
		{Name: "events_new", Help: "NEW events of the kernel", Value: s.stats.created.Load()},
		{Name: "events_update", Help: "UPDATE events of the kernel", Value: s.stats.updated.Load()},
		{Name: "events_destroy", Help: "DESTROY events of the kernel", Value: s.stats.destroyed.Load()},
		{Name: "events_expect", Help: "NEW events of expectations", Value: s.stats.expected.Load()},
		{Name: "events_unexpect", Help: "DESTROY events of expectations", Value: s.stats.unexpected.Load()},
		{Name: "events_own", Help: "events caused by this node's own writers", Value: s.stats.own.Load()},
		{Name: "overruns", Help: "times that the receive buffer overran (ENOBUFS)", Type: plugin.Loss, Value: s.stats.overruns.Load()},
		{Name: "events_malformed", Help: "events that did not decode", Type: plugin.Loss, Value: s.stats.malformed.Load()},
		{Name: "queue_dropped", Help: "events dropped while the edge was full", Type: plugin.Loss, Value: s.stats.queueDropped.Load()},
		{Name: "queue_bytes", Help: "bytes of events that wait for the edge", Type: plugin.Gauge, Value: uint64(s.queue.size())},
		{Name: "receive_buffer_bytes", Help: "bytes of the event socket's receive buffer", Type: plugin.Gauge, Value: s.stats.buffer.Load()},
		{Name: "replays", Help: "replays sent to their end", Value: s.stats.replays.Load()},
		{Name: "replayed", Help: "flows and expectations sent in replays", Value: s.stats.replayed.Load()},
	}
	if s.events == nil {
		return list
	}
	if drops, err := s.events.Drops(); err == nil {
		list = append(list, plugin.Statistic{Name: "socket_drops", Type: plugin.Loss, Value: drops,
			Help: "messages that the kernel could not queue on the event socket, those that came again later included"})
	}
	return list
}
