package synclink

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/plugin"
)

// transmitted is counted while a batch is being sent, so each is atomic.
type transmitted struct {
	datagrams, bytes, fragmented       atomic.Uint64
	lost                               atomic.Uint64
	full, unreachable, refused, absent atomic.Uint64
	zones, tooLong                     atomic.Uint64
	replays, replaysFailed, requests   atomic.Uint64
	changes                            atomic.Uint64
}

// errors returns the counter for an error of a send.
func (c *transmitted) errors(err error) *atomic.Uint64 {
	switch {
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return &c.full
	case errors.Is(err, unix.EPERM):
		return &c.refused
	}
	return &c.unreachable
}

// Statistics implements plugin.Meter.
func (t *Transmitter) Statistics() []plugin.Statistic {
	c := &t.count
	one := func(name, help string, typ plugin.StatisticType, v *atomic.Uint64) plugin.Statistic {
		return plugin.Statistic{Name: name, Help: help, Type: typ, Value: v.Load()}
	}
	all := []plugin.Statistic{
		one("datagrams_sent", "datagrams that the kernel took", plugin.Counter, &c.datagrams),
		one("bytes_sent", "bytes of messages in them", plugin.Counter, &c.bytes),
		one("datagrams_fragmented", "datagrams sent in fragments, since the MTU had become smaller", plugin.Counter, &c.fragmented),
		one("datagrams_lost", "datagrams that could not be sent", plugin.Loss, &c.lost),
		one("send_queue_full", "of these, because the interface's queue was full", plugin.Counter, &c.full),
		one("send_unreachable", "of these, because interface, address or route were not there", plugin.Counter, &c.unreachable),
		one("send_refused", "of these, because a packet filter dropped them", plugin.Counter, &c.refused),
		one("send_absent", "of these, because their peer was not there", plugin.Counter, &c.absent),
		one("flows_of_zones", "flows not sent, since peer_version knows no zones", plugin.Counter, &c.zones),
		one("flows_too_long", "flows not sent, since they fit into no datagram", plugin.Loss, &c.tooLong),
		one("replays_sent", "replays sent to their end", plugin.Counter, &c.replays),
		one("replays_failed", "replays that were sent without their end", plugin.Counter, &c.replaysFailed),
		one("resyncs_requested", "times that the peers were asked for all they have", plugin.Counter, &c.requests),
		one("link_changes", "times that another link was taken", plugin.Counter, &c.changes),
	}
	for _, o := range t.links {
		all = append(all, o.statistics(t.shown.Load() == o))
	}
	return all
}

func (o *outgoing) statistics(active bool) plugin.Statistic {
	s := plugin.Statistic{Name: "link_active", Help: "1 for the link that is used", Type: plugin.Gauge, Peer: o.Interface}
	if active {
		s.Value = 1
	}
	return s
}
