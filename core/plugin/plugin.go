package plugin

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/sluice-project/sluice/core/flow"
)

// Kind is one of the four kinds of stage.
type Kind string

// The kinds of stage, as they are written in a pipeline.
const (
	KindSource Kind = "source"
	KindFilter Kind = "filter"
	KindCache  Kind = "cache"
	KindSink   Kind = "sink"
)

// A Definition declares one plugin. Serve takes it.
type Definition struct {
	Kind    Kind
	Type    string // the second label in HCL, as in: filter "basic"
	Summary string // one line for people

	// Config returns a pointer to a fresh configuration struct that holds the
	// defaults. Its fields are the plugin's attributes and blocks: see Schema.
	//
	// The configuration is also the stage (it implements Source, Filter, Cache
	// or Sink), unless it implements Builder, which then makes the stage.
	Config func() any

	// Parallel is how many goroutines run at once (GOMAXPROCS). 0 is one: a stage
	// has one busy loop, and the runtime's work of spreading goroutines over
	// threads costs more than a batch. What a plugin does in goroutines beside the
	// loop then waits until a batch is done, or for 5 ms.
	Parallel int
}

// What a configuration may implement besides.
type (
	// A Builder makes the stage from the decoded and valid configuration. It
	// is called once, after Validate, before Open.
	Builder interface{ Build() (any, error) }

	// A Validator checks what types can't. It has no side effects: it also
	// runs for `sluice validate`, without privilege, on any machine.
	Validator interface{ Validate() Diagnostics }

	// A Traiter tells the runner what it must know to wire the stage. It is
	// called after Validate found nothing wrong, and has no side effects.
	Traiter interface{ Traits() Traits }
)

// A stage's life: describe, configure (Validate, Traits), build, open, run
// (with replays and commands at any time), drain, close. Each method is called
// as follows.

// A Source makes events.
type Source interface {
	// Run sends batches to out until ctx ends, which means drain: it then
	// sends what it holds and returns nil, and the process exits. Any error
	// ends the process; the runner logs it and starts the stage again. A loop
	// that calls out.Beat each time round is also started again when it hangs.
	Run(ctx context.Context, out *Output) error

	// Replay sends all flows that the source can find between two marks (see
	// Replay), paced, beside Run and on another goroutine; at most one runs at
	// a time, and ctx ends when another is asked for. An error is logged and
	// reported as the replay's failure.
	Replay(ctx context.Context, r Replay, out *Output) error
}

// A Filter judges events. A source's marks never reach it.
type Filter interface {
	// Filter is called for one event after another, from one goroutine. The
	// event is valid until it returns; to change what passes, change e and
	// return Rewrite (never its key).
	Filter(e *flow.Event) Verdict
}

// Verdict is a Filter's word on an event.
type Verdict uint8

// The verdicts.
const (
	Drop    Verdict = iota // the event goes no further
	Pass                   // it goes on as it came, unknown attributes and all
	Rewrite                // it goes on as the filter left it
)

// A Cache keeps flows, passes their changes on, and consumes marks.
type Cache interface {
	// Apply takes one batch, live or replayed, and sends to out what changed.
	// It is called from one goroutine; b is valid until it returns. An error
	// ends the process.
	Apply(b *flow.Batch, out *Output) error

	// Replay sends what the cache holds: see Source.Replay.
	Replay(ctx context.Context, r Replay, out *Output) error
}

// A Sink takes events out of the pipeline.
type Sink interface {
	// Write takes one batch, marks included. It is called from one goroutine;
	// b is valid until it returns. An error ends the process; what can be
	// repaired is counted, signalled and no error.
	Write(b *flow.Batch) error
}

// What a stage may implement besides.
type (
	// An Opener gets what it needs (sockets, the host) before the first batch.
	// An error ends the process before it counts as started.
	Opener interface {
		Open(ctx context.Context, host Host) error
	}

	// A Drainer is told that no batch will come any more. Sources see it by
	// the end of Run's ctx instead.
	Drainer interface{ Drain() error }

	// A Meter has statistics of its own beside those that every stage has. It
	// is called from any goroutine at any time and must not wait for the data
	// path.
	Meter interface{ Statistics() []Statistic }

	// A Noter has a few words for people to read beside its state in `sluice
	// status`, as which of several links it uses; "" is nothing. It is called as
	// a Meter is.
	Noter interface{ Note() string }

	// A Listener is a source with a link (see Traits) that tells which peers it
	// hears, so that the runner knows when those that were asked for their
	// flows have answered. It is called as a Meter is.
	Listener interface{ Peers() []Peer }

	// A Commander carries out an administrator's commands (but "tap", which this
	// package answers for every stage) that the stage's
	// traits name, each on a goroutine of its own; what it writes to out is
	// streamed to the administrator. It must not hold up the data path.
	Commander interface {
		Command(ctx context.Context, c Command, out io.Writer) error
	}
)

// A Command is an administrator's command to one stage.
type Command struct {
	Name string   // as in Traits.Commands
	Args []string // what the administrator wrote behind it
	JSON bool     // answer with one JSON object a line rather than text
}

// Commands that the runner gives a source of the kernel's flows, if its traits
// name them: while a takeover puts flows into the kernel, IgnoreNew spares it the
// events of flows that begin. After HearNew a replay follows.
const (
	IgnoreNew = "ignore-new"
	HearNew   = "hear-new"
)

// A Replay asks a source or a cache to send all the flows that it has as
// records of kind flow.Update in batches whose header has this ID and Edge,
// after a flow.SyncBegin and before a flow.SyncEnd with their number.
type Replay struct {
	ID    uint64
	Flags flow.SyncFlags
	Edge  uint16 // flow.Header.Edge

	// Tracked: whoever receives it notices what it misses and asks for it again,
	// so the pace may be what went well before. Otherwise there are peers, or may
	// be, whose losses nobody learns of.
	Tracked bool

	// Repeated: a receiver asked for it while the last one ran, or at once after
	// it, so probably some of that was lost.
	Repeated bool
}

// A Statistic is one number that a stage counts or measures.
type Statistic struct {
	Name  string // lower case with underscores, as in "events_lost"
	Help  string // what it counts, and in which unit
	Type  StatisticType
	Value uint64
	Peer  string // the node that it is about, if it is about one

	// Labels say what else the number is about, as in protocol: tcp. Statistics
	// of one name have the same labels, each of which has few values: never
	// an address of a flow, or a port.
	Labels map[string]string
}

// A Peer is a node that a Listener hears. Its counts only rise while the
// process lives.
type Peer struct {
	Address  netip.Addr // flow.Header.Owner of its batches
	Name     string     // what it calls itself, "" if it does not say
	Up       bool       // it was heard of late
	Marks    bool       // it is known to mark the begin and the end of replays
	Flows    uint64     // records about flows that it sent, live or replayed
	Replayed uint64     // records that belong to its replays, marks included
	Heard    time.Time  // when it was heard last; zero: not known
}

// StatisticType says how a number behaves.
type StatisticType uint8

// The types of statistic.
const (
	Counter StatisticType = iota // only rises while the process lives
	Gauge                        // rises and falls
	Loss                         // a counter of what was lost
)

// Traits is what the runner must know of a configured stage.
type Traits struct {
	// Commands that the stage's Commander carries out.
	Commands []string

	// NetNS is the network namespace to run in (a path), "" for the runner's.
	NetNS string

	// Hold: a cache that forwards nothing until the replay of a commit.
	Hold bool

	// Link is equal in a source and in the sinks through which the same peers
	// are reached, as "225.0.0.50:3780@eth2". A source with a link is replayed
	// by asking the peers, with the command "request-resync" of such a sink.
	Link string

	// RequestResync: a source with a Link wants a replay when it starts.
	RequestResync bool

	// Kernel: the stage reads or changes the kernel's table. Sinks get a
	// netlink port id in Start.PortID.
	Kernel bool

	// Scope is the pipeline whose filters say what of the kernel's table a
	// purge may delete, and PurgeAfter how many nanoseconds after the role
	// changed. A sink with a scope is started once more for each purge, with
	// Start.OneShot set, to delete what that pipeline's source and filters send.
	Scope      string
	PurgeAfter int64

	// Screen is what a filter certainly drops; nil says nothing. The source
	// right above is told in Start.Screens. A filter with a screen passes
	// events on as they came.
	Screen *flow.Screen

	// EveryFlow: a sink wants to hear of every flow, also of one that came and
	// went within a batch. The caches above it get Start.EveryFlow.
	EveryFlow bool

	// Needs is what the stage, configured like this, can't do without. The zero
	// value is a stage that takes batches and makes batches.
	Needs Needs

	// Exclusive: what the stage opens can't be opened while another process has
	// it, as a port that it listens on. When its configuration changes the new
	// process is started after the old one has ended, rather than beside it.
	Exclusive bool

	// Screened: a source that uses Start.Screens. It is started anew when the
	// filters below it change what they screen.
	Screened bool
}

// Needs are what a stage must be allowed to do beyond computing, and talking to
// the runner and its neighbours. A bundled plugin is allowed what it needs; a
// vendor's only what the administrator grants it, who is warned where that is
// less than it needs.
type Needs struct {
	// Capabilities as in "net_admin"; see capabilities(7).
	Capabilities []string

	// Network: sockets, but for the inherited ones.
	Network bool

	// Read and Write are absolute paths of files, or of directories with all
	// that is below them. A file that is written may be made, and made again
	// under its name.
	Read, Write []string

	// RunnerUser: a bundled plugin runs as the runner's user rather than as one
	// of its own, since it makes files that outlive it.
	RunnerUser bool
}
