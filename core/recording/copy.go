package recording

import (
	"fmt"
	"io"
	"time"

	"github.com/sluice-project/sluice/core/flow"
)

// A Copy says what to take from a Reader into a Writer, and when to stop.
type Copy struct {
	Conditions flow.Conditions // choose events; marks are left out if there are any
	Anonymizer *Anonymizer     // nil: addresses stay

	Events uint64        // end after so many; 0: never
	Size   int64         // end when the file has so many bytes, give or take a megabyte; 0: never
	For    time.Duration // end before what passed after so long; 0: never

	builder flow.Builder
	event   flow.Event
}

// Run copies until a limit is reached, which it names, or the reader ends. The
// error is the reader's or the writer's; io.EOF is none.
func (c *Copy) Run(w *Writer, r *Reader) (reason string, err error) {
	for {
		b, err := r.Read()
		switch {
		case err == io.EOF:
			return "", nil
		case err != nil:
			return "", err
		case c.For > 0 && b.At > c.For:
			return fmt.Sprintf("after %v", c.For), nil
		}
		if err := c.one(w, &b); err != nil {
			return "", err
		}
		switch {
		case c.Events > 0 && w.SoFar().Events >= c.Events:
			return fmt.Sprintf("after %d events", c.Events), nil
		case c.Size > 0 && w.Size() >= c.Size:
			return fmt.Sprintf("the file has reached %d bytes", c.Size), nil
		}
	}
}

func (c *Copy) one(w *Writer, b *Batch) error {
	if b.Packet == nil {
		if b.Lost == 0 {
			return w.Tick(b.At)
		}
		return w.Lost(b.At, b.Lost)
	}
	packet, events := b.Packet, b.Count
	if left := c.left(w); len(c.Conditions) > 0 || uint64(events) > left {
		packet, events = c.choose(b, left)
	}
	if events == 0 {
		return w.Tick(b.At)
	}
	if c.Anonymizer != nil {
		chosen, err := flow.DecodeBatch(packet)
		if err != nil {
			return fmt.Errorf("recording: %w", err)
		}
		packet = c.Anonymizer.Batch(&chosen)
	}
	return w.Write(b.At, packet, events)
}

// left is how many events there may be.
func (c *Copy) left(w *Writer) uint64 {
	if c.Events == 0 {
		return 1 << 63
	}
	return c.Events - w.SoFar().Events
}

// choose makes a batch of the events that are chosen, as far as there is room.
func (c *Copy) choose(b *Batch, left uint64) (packet []byte, events int) {
	c.builder.Reset(b.Header)
	for cursor := b.Cursor(); cursor.Next(&c.event); {
		if uint64(c.builder.Len()) < left && chosen(c.Conditions, &c.event, &b.Header) {
			c.builder.AppendRecord(cursor.Record()) // there was room in the batch that it is from
		}
	}
	return c.builder.Bytes(), c.builder.Len()
}
