package recording

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/sluice-project/sluice/core/flow"
)

// magic is the first line of what is in the gzip stream. The number is the
// version: one that an older reader would misread gets the next.
const magic = "sluice-recording 1\n"

// frameHead is the length of what stands before each frame's content: its length
// (4 bytes), kind (1), three zero bytes, and when it was (8 bytes: nanoseconds
// since the recording began), all little-endian.
const frameHead = 16

// maxContent is the longest content of a frame.
const maxContent = flow.MaxBatch

// The kinds of frame. A reader skips others.
const (
	frameAbout = 1 // an About in JSON: once, first
	frameBatch = 2 // a batch
	frameLost  = 3 // 8 bytes: events that passed since the frame before and are not in the recording
	frameEnd   = 4 // an End in JSON: once, last
)

// Errors that a caller may tell apart.
var (
	// ErrMalformed is wrapped by errors about a file that is no recording, or a
	// damaged one.
	ErrMalformed = errors.New("malformed recording")

	// ErrCutShort is wrapped by the error of a recording that has no end: all that
	// was read before it is good.
	ErrCutShort = errors.New("the recording is cut short")
)

// About says what a recording is of.
type About struct {
	Node  string `json:"node,omitempty"`  // its name
	Stage string `json:"stage,omitempty"` // the address of the stage, as in "local.cache.memory"
	Edge  string `json:"edge,omitempty"`  // "output" or "input" of it

	// Started is when the recording began, by the clock on the wall; the times of
	// its frames are counted from there by a clock that nobody sets. SinceBoot
	// is how long after the machine's start that was (CLOCK_BOOTTIME), and Boot
	// which start it was (/proc/sys/kernel/random/boot_id).
	Started   time.Time     `json:"started"`
	SinceBoot time.Duration `json:"since_boot_ns,omitempty"`
	Boot      string        `json:"boot,omitempty"`

	Sluice     string   `json:"sluice,omitempty"`     // its version
	Kernel     string   `json:"kernel,omitempty"`     // its release
	Conditions []string `json:"conditions,omitempty"` // that chose the events
	Anonymized bool     `json:"anonymized,omitempty"` // addresses are not the real ones
}

// An End says how a recording ended and what is in it.
type End struct {
	Reason  string        `json:"reason"`     // for people, as in "interrupted"
	Batches uint64        `json:"batches"`    // in the recording
	Events  uint64        `json:"events"`     // in them, marks included
	Lost    uint64        `json:"lost"`       // events that passed and are not in it
	Elapsed time.Duration `json:"elapsed_ns"` // since it began
}

// A Batch is one frame that a Reader returns.
type Batch struct {
	// At is when it passed, since the recording began.
	At time.Duration

	// Packet is the batch in binary form, valid until the next Read, and Batch
	// the same decoded. Packet is nil if the frame only tells of a loss.
	Packet []byte
	flow.Batch

	// Lost events passed before it and are not in the recording.
	Lost uint64
}

// appendHead appends what stands before a frame's content.
func appendHead(p []byte, kind byte, at time.Duration, length int) []byte {
	p = binary.LittleEndian.AppendUint32(p, uint32(length))
	p = append(p, kind, 0, 0, 0)
	return binary.LittleEndian.AppendUint64(p, uint64(at))
}

// AppendBatch appends the frame of a batch in binary form.
func AppendBatch(p []byte, at time.Duration, packet []byte) []byte {
	return append(appendHead(p, frameBatch, at, len(packet)), packet...)
}

// AppendLost appends a frame that tells of events that were lost.
func AppendLost(p []byte, at time.Duration, events uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendHead(p, frameLost, at, 8), events)
}
