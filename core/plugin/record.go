package plugin

import (
	"context"
	"time"

	"github.com/sluice-project/sluice/core/recording"
)

// What a recording may cost. It is a tap that sends whole batches, with their
// times, to a program. It may copy more than one that people read, gathers what it
// sends, so that it wakes nobody up for each batch, and says between which batches
// some are missing.
const (
	recordQueue  = 4096     // packets that wait to be sent
	recordQueued = 8 << 20  // bytes of them, more or less one packet
	recordBytes  = 32 << 20 // that are copied a second: some 300,000 events
	recordPiece  = 256 << 10

	recordInterval = 50 * time.Millisecond // between two looks at the queue
	recordSilence  = time.Second           // after which something is sent all the same
)

// runRecord sends what passes, in the frames of core/recording, until ctx ends.
// Times count from its begin.
func (t *tap) runRecord(ctx context.Context) error {
	began := time.Now()
	ticker := time.NewTicker(recordInterval)
	defer ticker.Stop()
	// Said at once, so that who waits knows that it works.
	frames := recording.AppendLost(nil, 0, 0)
	for refilled, told := began, began; ; {
		if len(frames) > 0 {
			if _, err := t.out.Write(frames); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			if now.Sub(refilled) >= tapInterval {
				refilled = now
				t.refill()
			}
		}
		var err error
		if frames, err = t.gather(frames[:0], began); err != nil {
			return err
		}
		if now := time.Now(); len(frames) > 0 {
			told = now
		} else if now.Sub(told) >= recordSilence { // tells the reader how late it is
			told, frames = now, recording.AppendLost(frames, now.Sub(began), 0)
		}
	}
}

// gather appends the frames of what is in the queue, and sends them whenever they
// are many.
func (t *tap) gather(frames []byte, began time.Time) ([]byte, error) {
	for {
		unseen := t.unseen.Load() // before the queue is looked at: what is in it comes first
		select {
		case one := <-t.queue:
			at := one.at.Sub(began)
			frames = t.appendUnseen(frames, at, one.unseen)
			frames = recording.AppendBatch(frames, at, t.taken(one))
		default:
			return t.appendUnseen(frames, time.Since(began), unseen), nil
		}
		if len(frames) < recordPiece {
			continue
		}
		if _, err := t.out.Write(frames); err != nil {
			return nil, err
		}
		frames = frames[:0]
	}
}

// appendUnseen tells of what was not copied until there were so many.
func (t *tap) appendUnseen(frames []byte, at time.Duration, unseen uint64) []byte {
	if unseen <= t.told {
		return frames
	}
	frames = recording.AppendLost(frames, at, unseen-t.told)
	t.told = unseen
	return frames
}
