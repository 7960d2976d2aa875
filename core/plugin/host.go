package plugin

import (
	"errors"
	"log/slog"
	"net/netip"

	"github.com/sluice-project/sluice/core/flow"
)

// Start is what the runner tells a stage when it starts.
type Start struct {
	Node       string // the node's name
	Stage      string // the stage's address, as in "local.cache.memory"
	Generation uint32 // how often this stage was started before, plus one

	// PortID is the netlink port id that a sink with Traits.Kernel binds its
	// socket to, so that OwnPortIDs tells every reader whose events are ours.
	PortID     uint32
	OwnPortIDs []uint32

	// DropOwn asks a source that reads the kernel to drop the events of
	// OwnPortIDs in the kernel: all that this node commits comes from a hold
	// cache, and a dump claims it at the end of the takeover.
	DropOwn bool

	// WriteThrough: peers' flows go into the kernel at once. Caches then keep
	// flows of origin flow.Own, and those that only a dump told of, as foreign
	// until an event of origin flow.Kernel claims them.
	WriteThrough bool

	// EveryFlow: a sink below this cache wants the begin and the end of every
	// flow, also of one that came and went within a batch, which would
	// otherwise leave no trace.
	EveryFlow bool

	// OneShot: a source replays once without subscribing and ends; a kernel
	// sink deletes every flow that it is sent. Together they purge.
	OneShot bool

	// Screens are those of the filters between a source and whatever is below
	// them: what a screen does not pass goes no further than there, so the
	// source may leave it out of what it sends live. Replays are sent whole.
	Screens []flow.Screen
}

// Host is the runner as a stage sees it. Its methods return at once, may be
// called from any goroutine, and never block the data path.
type Host interface {
	// Start returns the parameters that the stage was started with.
	Start() Start

	// Logger's lines reach the runner's log with the stage's address.
	Logger() *slog.Logger

	// Signal raises a flag at the runner, which decides what to do. Signals of
	// one name coalesce until the runner has read them; detail is for the log.
	Signal(s Signal, detail string)

	// Done reports the end of a replay that reached this stage, or that this
	// stage was asked for and failed to send.
	Done(r Report)
}

// A Signal is a one-way flag from a stage to the runner.
type Signal string

// The signals, and what the runner does.
const (
	SignalOverrun    Signal = "overrun"          // kernel events were lost: replay the source
	SignalPoll       Signal = "poll"             // it is time to read everything again: replay the source
	SignalEdgeFull   Signal = "edge-full"        // batches were dropped and the edge takes data again: replay into it
	SignalResync     Signal = "resync-requested" // a peer asks for everything: replay the cache above the link's sink
	SignalGap        Signal = "gap"              // a peer's messages, or records of a replay, were lost: replay again
	SignalPeerUp     Signal = "peer-up"          // a node was heard of for the first time, or again
	SignalPeerDown   Signal = "peer-down"        // a node went silent
	SignalFull       Signal = "full"             // a cache is at its limit; nothing is replayed
	SignalLinkUp     Signal = "link-up"          // a network link works again: replay into it
	SignalLinkDown   Signal = "link-down"        // a network link went away
	SignalReplayDone Signal = "replay-done"      // reserved for Host.Done
)

// A Report says how a replay ended.
type Report struct {
	Replay uint64
	Owner  netip.Addr // the peer whose replay it was; invalid for this node's
	Counts []Count    // for people and programs, in this order
	Failed string     // why the replay did not work, or ""

	// Unreached says why a sink could send nothing of the replay to the peers,
	// or is "": the link is down, or none of them is there. It is not tried
	// again: SignalLinkUp follows when somebody can be reached.
	Unreached string
}

// ErrUnreached is wrapped by the error of a sink's command that sent nothing to
// the peers: see Report.Unreached.
var ErrUnreached = errors.New("nothing was sent to the peers")

// A Count is a number with a name, as in {"swept", 12}.
type Count struct {
	Name  string
	Value uint64
}
