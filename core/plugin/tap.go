package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/recording"
)

// tapCommand is a command that this package answers for every stage: it streams
// events that pass an edge of the stage until its caller goes away, for people.
const tapCommand = "tap"

// What a tap may cost. The thread that moves data copies packets, and no more of
// them than this; all else is the reader's work. What does not fit is counted.
const (
	tapQueue    = 32                     // packets that wait for the reader, 64 KiB at most each
	tapBytes    = 8 << 20                // that are copied a second: some 60,000 events
	tapInterval = 100 * time.Millisecond // between two refills
	tapRate     = 100                    // events shown a second, unless the caller says otherwise
)

// taps are the taps of one place where packets pass. Without any, a packet costs
// the load of a pointer.
type taps struct {
	list atomic.Pointer[[]*tap]
	mu   sync.Mutex // serializes changes of the list
}

// pass offers a packet of events to those who tap. It never waits.
func (t *taps) pass(packet []byte, events int) {
	if list := t.list.Load(); list != nil {
		for _, one := range *list {
			one.offer(packet, events)
		}
	}
}

func (t *taps) change(change func([]*tap) []*tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []*tap
	if old := t.list.Load(); old != nil {
		list = slices.Clone(*old)
	}
	if list = change(list); len(list) == 0 {
		t.list.Store(nil)
		return
	}
	t.list.Store(&list)
}

func (t *taps) add(one *tap) { t.change(func(l []*tap) []*tap { return append(l, one) }) }

func (t *taps) remove(one *tap) {
	t.change(func(l []*tap) []*tap { return slices.DeleteFunc(l, func(o *tap) bool { return o == one }) })
}

// A tap is one who watches.
type tap struct {
	tapOptions
	queue  chan tapped
	budget atomic.Int64  // bytes that may be copied before the next refill
	queued atomic.Int64  // bytes in the queue
	unseen atomic.Uint64 // events that passed and were not copied

	out           io.Writer
	json          bool
	line          []byte
	second        int    // events shown since the last account
	shown         int    // in all
	told, unshown uint64 // of unseen; events that were chosen but too many
}

// A tapped is the copy of a packet.
type tapped struct {
	packet []byte
	at     time.Time // of a recording: when it passed
	unseen uint64    // of a recording: events that had passed before and were not copied
}

// tapOptions are a tap's arguments.
type tapOptions struct {
	record     bool // for a program, whole batches: see record.go
	conditions flow.Conditions
	input      bool // what enters the stage, instead of what leaves it
	rate       int  // events shown a second; 0 is all
	count      int  // ends after so many; 0 is never
}

func parseTap(args []string) (o tapOptions, err error) {
	o.rate = tapRate
	var rest []string
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "edge":
			if value != "input" && value != "output" {
				return o, fmt.Errorf("%q: write edge=input or edge=output", arg)
			}
			o.input = value == "input"
		case "format":
			if value != "recording" {
				return o, fmt.Errorf("%q: write format=recording, or nothing", arg)
			}
			o.record = true
		case "rate":
			o.rate, err = strconv.Atoi(value)
		case "count":
			o.count, err = strconv.Atoi(value)
		default:
			rest = append(rest, arg)
		}
		if err != nil || o.rate < 0 || o.count < 0 {
			return o, fmt.Errorf("%q: write a number from 0 on", arg)
		}
	}
	o.conditions, err = flow.ParseConditions(rest)
	return o, err
}

// tap carries out the command.
func (s *stage) tap(ctx context.Context, c Command, out io.Writer) error {
	options, err := parseTap(c.Args)
	if err != nil {
		return err
	}
	_, isSource := s.plugin.(Source)
	_, isSink := s.plugin.(Sink)
	if options.input && isSource {
		return errors.New("nothing enters a source: tap what leaves it")
	}
	place := &s.out.taps
	if options.input || isSink {
		place = &s.taps
	}
	t := &tap{tapOptions: options, out: out, json: c.JSON}
	run := t.run
	if t.queue = make(chan tapped, tapQueue); t.record {
		t.queue, run = make(chan tapped, recordQueue), t.runRecord
	}
	t.refill()
	place.add(t)
	defer place.remove(t)
	return run(ctx)
}

func (t *tap) refill() {
	perSecond := int64(tapBytes)
	if t.record {
		perSecond = recordBytes
	}
	t.budget.Store(perSecond * int64(tapInterval) / int64(time.Second))
}

// offer copies a packet if there is room and money for it.
func (t *tap) offer(packet []byte, events int) {
	if len(t.queue) < cap(t.queue) && t.queued.Load() < recordQueued && t.budget.Add(-int64(len(packet))) >= 0 {
		one := tapped{packet: slices.Clone(packet)}
		if t.record {
			one.at, one.unseen = time.Now(), t.unseen.Load()
		}
		select {
		case t.queue <- one:
			t.queued.Add(int64(len(packet)))
			return
		default: // another one was quicker
		}
	}
	t.unseen.Add(uint64(events))
}

// taken frees the place of what was taken out of the queue.
func (t *tap) taken(one tapped) []byte {
	t.queued.Add(-int64(len(one.packet)))
	return one.packet
}

// run shows what was copied, and every second what was not shown.
func (t *tap) run(ctx context.Context) error {
	ticker := time.NewTicker(tapInterval)
	defer ticker.Stop()
	// Said at once, so that who waits knows that it works.
	if err := t.say(tapNotice{Tapping: true}, "# tapping; interrupt to end\n"); err != nil {
		return err
	}
	for ticks := 1; ; {
		select {
		case <-ctx.Done():
			return nil
		case one := <-t.queue:
			done, err := t.show(t.taken(one))
			if err != nil || done {
				return errors.Join(err, t.account())
			}
		case <-ticker.C:
			t.refill()
			if ticks++; ticks%int(time.Second/tapInterval) == 0 {
				t.second = 0
				if err := t.account(); err != nil {
					return err
				}
			}
		}
	}
}

// A tapNotice is a line about the tap itself, for programs.
type tapNotice struct {
	Tapping bool   `json:"tapping,omitempty"`
	Unseen  uint64 `json:"unseen,omitempty"`
	Unshown uint64 `json:"unshown,omitempty"`
}

func (t *tap) say(n tapNotice, text string) error {
	if t.json {
		b, err := json.Marshal(n)
		if err != nil {
			return err
		}
		text = string(b) + "\n"
	}
	_, err := io.WriteString(t.out, text)
	return err
}

// account tells how many events were left out since it last told.
func (t *tap) account() error {
	unseen := t.unseen.Load()
	n := tapNotice{Unseen: unseen - t.told, Unshown: t.unshown}
	t.told, t.unshown = unseen, 0
	if n.Unseen == 0 && n.Unshown == 0 {
		return nil
	}
	return t.say(n, fmt.Sprintf("# left out: %d events not looked at, %d chosen but beyond the rate\n", n.Unseen, n.Unshown))
}

// show writes the events of a packet that are chosen, and tells whether that was
// all that was asked for.
func (t *tap) show(packet []byte) (done bool, err error) {
	b, err := flow.DecodeBatch(packet)
	if err != nil {
		return false, nil // the stage has refused it, and said so
	}
	t.line = t.line[:0]
	var e flow.Event
	for c := b.Cursor(); c.Next(&e) && !done; {
		if e.IsMark() && len(t.conditions) > 0 || !t.conditions.Match(&e, b.Owner) {
			continue
		}
		if t.rate > 0 && t.second >= t.rate {
			t.unshown++
			continue
		}
		t.second++
		t.shown++
		t.line = t.append(t.line, &e, &b.Header)
		done = t.count > 0 && t.shown >= t.count
	}
	if len(t.line) > 0 {
		_, err = t.out.Write(t.line)
	}
	return done, err
}

// append appends an event's line.
func (t *tap) append(p []byte, e *flow.Event, h *flow.Header) []byte {
	if t.json {
		return recording.AppendJSON(p, e, h, time.Time{})
	}
	return recording.AppendText(p, e, h)
}
