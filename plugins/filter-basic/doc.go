// Package filterbasic is the bundled plugin filter "basic": it lets events pass
// by layer-4 protocol, by address and by TCP state, as conntrackd's Filter
// section does.
//
// It stands anywhere between a source and a sink. Above a cache it keeps flows
// out of it, and with them out of everything below; below a cache it sees whole
// flows rather than partial updates, which is where sets of states belong.
//
// config.go reads and checks the sets, filter.go judges, prefixes.go holds
// addresses. Judging an event allocates nothing and takes one lookup for each
// prefix length in use.
//
// The filter never changes an event, keeps no state between events and knows
// nothing of marks: the stage library passes those and keeps their counts.
package filterbasic
