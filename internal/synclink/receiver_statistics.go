package synclink

import (
	"slices"
	"strings"

	"github.com/sluice-project/sluice/core/plugin"
)

// received are the loop's own counters.
type received struct {
	datagrams, bytes, flows, expectations, resyncs       uint64
	own, refused, elsewhere, tooMany, truncated, tooLong uint64
	dropped, errors, late                                uint64
}

// Statistics implements plugin.Meter. It never waits for the next stage: the
// loop lets go of the lock while it sends.
func (r *Receiver) Statistics() (all []plugin.Statistic) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, d := &r.count, &r.decoder.Counters
	add := func(name, help string, typ plugin.StatisticType, v uint64) {
		all = append(all, plugin.Statistic{Name: name, Help: help, Type: typ, Value: v})
	}
	add("datagrams_received", "datagrams read, of whomever", plugin.Counter, c.datagrams)
	add("bytes_received", "bytes of messages in them", plugin.Counter, c.bytes)
	add("flows_received", "messages about flows", plugin.Counter, c.flows)
	add("expectations_received", "messages about expectations", plugin.Counter, c.expectations)
	add("resyncs_requested", "times that a peer asked for all flows", plugin.Counter, c.resyncs)
	add("datagrams_own", "datagrams of this node, ignored", plugin.Counter, c.own)
	add("datagrams_refused", "datagrams from outside accept_from", plugin.Counter, c.refused)
	add("datagrams_elsewhere", "datagrams to another address, or from another interface", plugin.Counter, c.elsewhere)
	add("datagrams_of_too_many", "datagrams of new senders while all that are remembered send", plugin.Loss, c.tooMany)
	add("datagrams_truncated", "datagrams longer than the buffer", plugin.Loss, c.truncated)
	add("datagrams_dropped", "datagrams that did not fit into the receive buffer", plugin.Loss, c.dropped)
	add("datagrams_late", "datagrams that a connection had kept while another was used, ignored", plugin.Counter, c.late)
	add("receive_errors", "errors of the socket or of the interface", plugin.Counter, c.errors)
	add("malformed", "messages refused, the sum of the five below", plugin.Loss, d.Malformed)
	add("malformed_truncated", "fewer bytes left than a header", plugin.Counter, d.Truncated)
	add("malformed_size", "impossible length", plugin.Counter, d.BadSize)
	add("malformed_version", "another protocol version", plugin.Counter, d.WrongVersion)
	add("malformed_header", "unknown type or flags", plugin.Counter, d.MalformedHeader)
	add("malformed_payload", "an attribute of wrong length", plugin.Counter, d.MalformedPayload)
	add("flows_incomplete", "flows without addresses or protocol, refused", plugin.Loss, d.Incomplete)
	add("flows_too_long", "flows that fit into no batch", plugin.Loss, c.tooLong)
	add("attributes_unknown", "attributes skipped", plugin.Counter, d.UnknownAttributes)
	add("elements_unknown", "elements of extensions skipped", plugin.Counter, d.UnknownElements)
	add("extensions_stray", "extensions of no message, or of one that was refused", plugin.Counter, d.StrayExtensions)
	for _, n := range r.nodes.list {
		all = append(all, n.statistics()...)
	}
	slices.SortStableFunc(all, func(a, b plugin.Statistic) int { return strings.Compare(a.Peer, b.Peer) })
	return all
}

// Peers implements plugin.Listener.
func (r *Receiver) Peers() (all []plugin.Peer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range r.nodes.list {
		all = append(all, plugin.Peer{
			Address: n.owner, Name: n.name, Up: n.up, Marks: n.marks, Flows: n.flows, Replayed: n.replayed, Heard: n.heard,
		})
	}
	return all
}

func (n *node) statistics() []plugin.Statistic {
	var up uint64
	if n.up {
		up = 1
	}
	who, t := n.who(), n.total()
	return []plugin.Statistic{
		{Name: "peer_up", Help: "1 while the peer sends", Type: plugin.Gauge, Value: up, Peer: who},
		{Name: "messages_received", Help: "messages of the peer", Value: t.Messages, Peer: who},
		{Name: "message_gaps", Help: "times that messages of the peer were missing", Value: t.Gaps, Peer: who},
		{Name: "messages_lost", Help: "messages of the peer that were missing", Type: plugin.Loss, Value: t.Lost, Peer: who},
		{Name: "messages_repeated", Help: "messages of the peer that came twice, used once", Value: t.Repeated, Peer: who},
		{Name: "messages_before", Help: "messages of the peer out of order", Value: t.Before, Peer: who},
	}
}
