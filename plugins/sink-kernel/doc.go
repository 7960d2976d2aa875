// Package sinkkernel is the stage that puts flows into this node's conntrack
// table. It has three uses, which the runner chooses:
//
//   - At a takeover the hold cache above replays what the peers' flows are, and
//     the sink commits them: creates, updates or replaces entries, masters
//     before the flows that name them, and reports counts.
//   - Write-through, for active-active pairs: every change of a peer's flow is
//     injected at once, without taking back what local packets did.
//   - One-shot: every flow that arrives is deleted. This is how a purge works:
//     a one-shot source dumps the table through the filters into such a sink.
//
// How a flow becomes a request, and what the kernel's refusals mean, is in
// package ctnl. The stage keeps no flows and sweeps nothing.
package sinkkernel
