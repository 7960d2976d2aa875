package recording

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// memberSize and memberAge are how much of a recording, and how long, a member of
// the gzip stream gathers before it is ended and reaches the file: what a crash
// can cost.
const (
	memberSize = 1 << 20
	memberAge  = time.Second
)

// A Writer writes a recording. It is for one goroutine.
type Writer struct {
	out    counter
	pack   *gzip.Writer
	buf    []byte
	packed int           // bytes in the member at hand
	began  time.Duration // when it was begun
	open   bool          // there is one
	end    End
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// NewWriter writes the header.
func NewWriter(w io.Writer, about About) (*Writer, error) {
	r := &Writer{out: counter{w: w}}
	r.pack, _ = gzip.NewWriterLevel(&r.out, gzip.BestSpeed) // the level is a right one
	text, err := json.Marshal(about)
	if err != nil {
		return nil, fmt.Errorf("recording: header: %w", err)
	}
	if len(text) > maxContent {
		return nil, fmt.Errorf("recording: header: %d bytes are too many", len(text))
	}
	p := append(appendHead([]byte(magic), frameAbout, 0, len(text)), text...)
	if err := r.write(p, 0); err != nil {
		return nil, err
	}
	return r, r.Flush()
}

// write adds frames to the member at hand, and ends it if it is large or old.
func (r *Writer) write(p []byte, at time.Duration) error {
	if !r.open {
		r.pack.Reset(&r.out)
		r.pack.Comment = "sluice recording"
		r.open, r.began = true, at
	}
	if _, err := r.pack.Write(p); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	r.packed += len(p)
	r.end.Elapsed = max(r.end.Elapsed, at)
	if r.packed >= memberSize || at-r.began >= memberAge {
		return r.Flush()
	}
	return nil
}

// Flush ends the member at hand, so that all that was written reaches the file.
func (r *Writer) Flush() error {
	if !r.open {
		return nil
	}
	r.open, r.packed = false, 0
	if err := r.pack.Close(); err != nil {
		return fmt.Errorf("recording: %w", err)
	}
	return nil
}

// Write adds a batch in binary form with its number of events.
func (r *Writer) Write(at time.Duration, packet []byte, events int) error {
	r.end.Batches++
	r.end.Events += uint64(events)
	r.buf = AppendBatch(r.buf[:0], at, packet)
	return r.write(r.buf, at)
}

// Tick says that time has passed, so that what was written long enough ago reaches
// the file.
func (r *Writer) Tick(at time.Duration) error {
	if r.open && at-r.began >= memberAge {
		return r.Flush()
	}
	return nil
}

// Lost tells of events that passed and are not in the recording.
func (r *Writer) Lost(at time.Duration, events uint64) error {
	r.end.Lost += events
	r.buf = AppendLost(r.buf[:0], at, events)
	return r.write(r.buf, at)
}

// Size returns how many bytes the file has, but for the member at hand.
func (r *Writer) Size() int64 { return r.out.n }

// SoFar returns what was written.
func (r *Writer) SoFar() End { return r.end }

// Close writes the end.
func (r *Writer) Close(reason string, elapsed time.Duration) error {
	r.end.Reason, r.end.Elapsed = reason, max(elapsed, r.end.Elapsed)
	text, err := json.Marshal(r.end)
	if err != nil {
		return fmt.Errorf("recording: end: %w", err)
	}
	if err := r.write(append(appendHead(nil, frameEnd, r.end.Elapsed, len(text)), text...), r.end.Elapsed); err != nil {
		return err
	}
	return r.Flush()
}
