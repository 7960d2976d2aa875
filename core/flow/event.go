package flow

import "net/netip"

// Kind says what an event reports.
type Kind uint8

// The kinds of event. SyncBegin and SyncEnd are the in-band marks of a replay
// and carry a Sync instead of a flow. Expect and Unexpect are about a flow that
// a helper waits for: see Expectation for what the fields of Flow mean there.
const (
	New       Kind = 1 // the flow is new, or replaces the one of the same key
	Update    Kind = 2 // merges into what is known of the flow
	Destroy   Kind = 3 // the flow ended
	SyncBegin Kind = 4
	SyncEnd   Kind = 5
	Expect    Kind = 6 // there is this expectation; it replaces the one of the same key
	Unexpect  Kind = 7 // the expectation ended: it was met, or timed out
)

// Origin says who caused the events of a batch.
type Origin uint8

// The origins.
const (
	Kernel Origin = 0 // a packet, or the passing of time
	Own    Origin = 1 // a commit or an injection of this node
	Peer   Origin = 2 // another node; the batch's Owner says which
)

// SyncFlags change what a cache does with a replay. Both marks carry them.
type SyncFlags uint8

// The flags of a replay.
const (
	// SyncQuiet makes the sweep emit no DESTROY: the flows were purged on
	// purpose and live on elsewhere.
	SyncQuiet SyncFlags = 1 << iota
	// SyncClaim makes every flow that the replay names its sender's own,
	// whosever it was: foreign flows this node's, other peers' flows that
	// peer's.
	SyncClaim
	// SyncKeep names no flow and sweeps nothing: the pair of marks only tells
	// the runner, by its arrival, that all that was sent before it arrived too.
	SyncKeep
	// SyncCommit marks the replay of a hold cache into the kernel.
	SyncCommit
)

// Sync is what a SyncBegin or SyncEnd carries beside the batch's replay id.
type Sync struct {
	Flags SyncFlags
	Count uint64 // SyncEnd: the records sent since SyncBegin
}

// An Event is one record of a batch.
type Event struct {
	Kind Kind
	Sync Sync // SyncBegin and SyncEnd only
	Flow      // all other kinds
}

// IsExpectation says whether the event is about an expectation.
func (e *Event) IsExpectation() bool { return e.Kind == Expect || e.Kind == Unexpect }

// Mark says whether the event is a mark of a replay rather than about a flow.
func (e *Event) IsMark() bool { return e.Kind == SyncBegin || e.Kind == SyncEnd }

// A Header is what the records of one batch have in common. A batch never
// mixes live and replayed records, origins, owners or edges.
type Header struct {
	Origin     Origin
	Generation uint32     // how often the stage that wrote the batch was started
	Replay     uint64     // 0: live
	Owner      netip.Addr // Origin Peer: its address on the link; else invalid

	// Edge chooses one output where the pipeline fans out, counted from 1;
	// 0 means all. Stages with one output pass it on.
	Edge uint16

	// Time is when the first record was received, in nanoseconds since 1970;
	// 0 if not known. Metrics alone read it.
	Time int64
}
