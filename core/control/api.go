package control

import (
	"context"
	"io"
	"time"
)

// A Backend is the runner behind an administrator's socket. Its methods may be
// called from any number of goroutines.
type Backend interface {
	// Status describes the node as it is now.
	Status(ctx context.Context) (*Status, error)

	// Dump streams what the cache holds that target (a pipeline or a stage)
	// names to out: lines of text, or one JSON object a line.
	Dump(ctx context.Context, r DumpRequest, out io.Writer) error

	// Plan says what a reload would do: of the configuration that the runner was
	// started with, read again, or of another one, checked, as the caller's side
	// has encoded it.
	Plan(ctx context.Context, configuration []byte) (*Plan, error)

	// Do carries out one of Commands and calls report for each step as it
	// ends. The error says why the command failed.
	Do(ctx context.Context, r Request, report func(Step)) error
}

// Commands are the names that Backend.Do takes.
var Commands = []string{"flush", "commit", "bulk", "resync", "request-resync", "purge", "role", "reload", "reopen", "stop"}

// A Request asks for a command.
type Request struct {
	Command string   `json:"command"`
	Targets []string `json:"targets,omitempty"` // pipelines or stages; role: primary, backup or fault; flush: also "kernel"
	All     bool     `json:"all,omitempty"`     // flush: every cache

	// Expectations narrows a flush of caches to these.
	Expectations bool `json:"expectations,omitempty"`

	// Background says that purge and request-resync are begun and not waited
	// for.
	Background bool `json:"background,omitempty"`
}

// What a DumpRequest may ask for.
const (
	DumpFlows        = ""             // the flows
	DumpExpectations = "expectations" // the expectations of helpers
	DumpStats        = "stats"        // how many there are, by what they have in common
	DumpTap          = "tap"          // no cache: what passes the stage that is the target, until nobody reads any more
)

// A DumpRequest asks for what a cache holds.
type DumpRequest struct {
	Target string   `json:"target"`
	What   string   `json:"what,omitempty"` // one of the constants
	Args   []string `json:"args,omitempty"` // the cache plugin's own filters; a tap's: conditions, edge=, rate=, count=
	JSON   bool     `json:"json,omitempty"`
}

// A Step is one thing that a command did.
type Step struct {
	Name    string        `json:"step"`             // as in "commit"
	Stage   string        `json:"stage,omitempty"`  // where
	Counts  []Count       `json:"counts,omitempty"` // how much
	Elapsed time.Duration `json:"elapsed_ns"`
	Note    string        `json:"note,omitempty"`  // for people
	Error   string        `json:"error,omitempty"` // why it failed
}

// A Count is a number with a name.
type Count struct {
	Name  string `json:"name"`
	Value uint64 `json:"value"`
}

// Status describes a node.
type Status struct {
	Node      string           `json:"node"`
	Version   string           `json:"version"`
	PID       int              `json:"pid"`
	Started   time.Time        `json:"started"`
	Role      string           `json:"role"` // the last one given: primary, backup, fault, or ""
	Purge     *time.Time       `json:"purge,omitempty"`
	Reload    *ReloadStatus    `json:"reload,omitempty"`    // the last one
	Scheduler string           `json:"scheduler,omitempty"` // of the runner and its stages, as in "rr 50" or "nice -5"
	Pipelines []PipelineStatus `json:"pipelines"`
	Signals   []SignalStatus   `json:"signals"`
	Replays   []ReplayStatus   `json:"replays"` // the last of each stage
	Health
}

// Health says whether a node works, and whether it is in sync. Both are lists of
// what is wrong, for people; empty is good.
type Health struct {
	// Unhealthy: what the runner has not repaired by itself. A node that is
	// unhealthy needs somebody.
	Unhealthy []string `json:"unhealthy"`

	// Unready: why this node, or what it tells its peers, may lack flows at the
	// moment.
	Unready []string `json:"unready"`
}

// PipelineStatus describes a pipeline.
type PipelineStatus struct {
	Name   string        `json:"name"`
	Stages []StageStatus `json:"stages"`
}

// StageStatus describes a stage.
type StageStatus struct {
	Address     string      `json:"address"`
	Kind        string      `json:"kind"`
	Type        string      `json:"type"`
	State       string      `json:"state"` // starting, running, waiting (to be started again), drained
	PID         int         `json:"pid,omitempty"`
	Since       time.Time   `json:"since"` // of the state
	Restarts    uint64      `json:"restarts"`
	LastError   string      `json:"last_error,omitempty"`
	Note        string      `json:"note,omitempty"` // what the stage says of itself, for people
	EventsIn    uint64      `json:"events_in"`
	EventsOut   uint64      `json:"events_out"`
	Lost        uint64      `json:"lost"` // all its losses, of every generation
	BatchesIn   uint64      `json:"batches_in"`
	BatchesOut  uint64      `json:"batches_out"`
	BytesIn     uint64      `json:"bytes_in"`
	BytesOut    uint64      `json:"bytes_out"`
	Malformed   uint64      `json:"malformed"`    // batches refused; part of Lost
	EdgeDropped uint64      `json:"edge_dropped"` // events dropped where the pipeline fans out; part of Lost
	Behind      uint32      `json:"behind"`       // of these edges, those that are full at the moment
	QueueBytes  uint64      `json:"queue_bytes"`  // waiting in its input
	QueueUsed   uint64      `json:"queue_used"`   // of QueueLimit, what they take with the kernel's own
	QueueLimit  uint64      `json:"queue_limit"`  // the buffer of its input
	BatchSizes  *Histogram  `json:"batch_sizes,omitempty"`
	BatchAges   *Histogram  `json:"batch_ages,omitempty"`
	Answered    time.Time   `json:"answered,omitzero"` // when its process told the numbers last; zero: it has not
	CPUSeconds  float64     `json:"cpu_seconds"`
	MemoryBytes uint64      `json:"memory_bytes"` // resident
	Statistics  []Statistic `json:"statistics,omitempty"`

	May *Permissions `json:"may,omitempty"` // what its process may do, while there is one

	Program *Program `json:"program,omitempty"` // of a vendor's plugin

	Peers []PeerStatus `json:"peers,omitempty"` // that a source hears
}

// A Program is what a stage of a vendor's plugin executes.
type Program struct {
	Path   string `json:"path"`   // where it lay when the configuration was read
	SHA256 string `json:"sha256"` // of what is executed
	Lock   string `json:"lock"`   // locked, or unlocked: the stage says unlocked = true
}

// Permissions are what a stage may do.
type Permissions struct {
	User            string   `json:"user"`                   // its name, or number
	Capabilities    []string `json:"capabilities,omitempty"` // as in "net_admin"
	Network         bool     `json:"network"`                // sockets beside those to the runner and its neighbours
	Read            []string `json:"read,omitempty"`         // paths, beside what is harmless
	Write           []string `json:"write,omitempty"`        // paths
	NoNewPrivileges bool     `json:"no_new_privs"`
	Seccomp         bool     `json:"seccomp"`  // system calls are filtered
	Landlock        int      `json:"landlock"` // version of the kernel's; 0: it has none, and only owners and modes protect files
}

// A Histogram counts observations by size: of the batches that a stage sent (a
// sink: wrote) by their events, and of the live ones by their age in seconds.
type Histogram struct {
	Bounds []float64 `json:"bounds"` // upper ones, rising
	Counts []uint64  `json:"counts"` // of each bound, not cumulated; one more for what is above all
	Sum    float64   `json:"sum"`
}

// PeerStatus describes a node that a source hears.
type PeerStatus struct {
	Address  string    `json:"address"`
	Name     string    `json:"name,omitempty"` // what it calls itself
	Up       bool      `json:"up"`             // it was heard of late
	Marks    bool      `json:"marks"`          // it is a Sluice: it marks the end of replays
	Flows    uint64    `json:"flows"`          // records about flows that it sent
	Replayed uint64    `json:"replayed"`       // of them, in replays
	Heard    time.Time `json:"heard,omitzero"` // last; zero: not known
}

// A Statistic is a number of a stage's own.
type Statistic struct {
	Name  string `json:"name"`
	Help  string `json:"help,omitempty"`
	Type  string `json:"type"` // counter, gauge or loss
	Value uint64 `json:"value"`
	Peer  string `json:"peer,omitempty"`

	Labels map[string]string `json:"labels,omitempty"` // what else it is about
}

// SignalStatus counts one signal of one stage.
type SignalStatus struct {
	Stage  string    `json:"stage"`
	Name   string    `json:"name"`
	Times  uint64    `json:"times"`
	Last   time.Time `json:"last"`
	Detail string    `json:"detail,omitempty"`
}

// ReplayStatus describes a replay.
type ReplayStatus struct {
	Stage   string        `json:"stage"` // that replays
	Reason  string        `json:"reason"`
	Started time.Time     `json:"started"`
	Elapsed time.Duration `json:"elapsed_ns"`
	State   string        `json:"state"` // running, done or failed
	Error   string        `json:"error,omitempty"`
	Counts  []Count       `json:"counts,omitempty"`
}
