package recording

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-project/sluice/core/flow"
)

// An Event is an event for programs, with what its batch says of it.
type Event struct {
	Time *time.Time `json:"time,omitempty"` // when it passed, of a recording
	flow.View
	Origin string `json:"origin,omitempty"` // if it is not the kernel's: "own" or "peer"
	Owner  string `json:"owner,omitempty"`
	Replay uint64 `json:"replay,omitempty"`
}

// AppendJSON appends an event as an object on a line. A zero time is left out.
func AppendJSON(p []byte, e *flow.Event, h *flow.Header, at time.Time) []byte {
	one := Event{View: e.View(), Owner: ownerName(h.Owner), Replay: h.Replay}
	if h.Origin != flow.Kernel {
		one.Origin = h.Origin.String()
	}
	if !at.IsZero() {
		one.Time = &at
	}
	b, err := json.Marshal(one)
	if err != nil {
		b = fmt.Appendf(nil, `{"error":%q}`, err.Error())
	}
	return append(append(p, b...), '\n')
}

func ownerName(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// AppendText appends an event as a line, as `conntrack -E` prints it, with what its
// batch says of it.
func AppendText(p []byte, e *flow.Event, h *flow.Header) []byte {
	p = e.AppendText(p)
	if h.Owner.IsValid() {
		p = append(append(p, " owner="...), h.Owner.String()...)
	}
	if h.Replay != 0 {
		p = strconv.AppendUint(append(p, " replay="...), h.Replay, 10)
	}
	return append(p, '\n')
}

// A Printer prints a recording: text, events with their times in seconds and what
// else there is in lines that begin with #; or JSON, one object a line, the header
// first and the end last.
type Printer struct {
	Out        io.Writer
	JSON       bool
	Conditions flow.Conditions // choose events

	line []byte
}

// Print prints all of it. Its error may be the recording's.
func (p *Printer) Print(r *Reader) error {
	if err := p.note(map[string]any{"recording": r.About}, r.About.String()); err != nil {
		return err
	}
	for {
		b, err := r.Read()
		if err == io.EOF {
			end := r.End()
			return p.note(map[string]any{"end": end}, end.String())
		}
		if err != nil {
			return err
		}
		if b.Packet == nil {
			err = p.note(map[string]any{"lost": b.Lost}, fmt.Sprintf("%d events are missing here", b.Lost))
		} else {
			err = p.batch(&b, r.About.Started)
		}
		if err != nil {
			return err
		}
	}
}

func (p *Printer) note(v any, text string) error {
	p.line = append(append(append(p.line[:0], "# "...), text...), '\n')
	if p.JSON {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("print: %w", err)
		}
		p.line = append(append(p.line[:0], b...), '\n')
	}
	_, err := p.Out.Write(p.line)
	return err
}

func (p *Printer) batch(b *Batch, started time.Time) error {
	p.line = p.line[:0]
	var e flow.Event
	for c := b.Cursor(); c.Next(&e); {
		switch {
		case !chosen(p.Conditions, &e, &b.Header):
		case p.JSON:
			p.line = AppendJSON(p.line, &e, &b.Header, started.Add(b.At))
		default:
			p.line = fmt.Appendf(p.line, "%12.6f ", b.At.Seconds())
			p.line = AppendText(p.line, &e, &b.Header)
		}
	}
	_, err := p.Out.Write(p.line)
	return err
}

// chosen says whether conditions choose an event. Marks are no flow's.
func chosen(c flow.Conditions, e *flow.Event, h *flow.Header) bool {
	return len(c) == 0 || !e.IsMark() && c.Match(e, h.Owner)
}

// String says for people what a recording is of.
func (a About) String() string {
	text := "recorded"
	if a.Stage != "" {
		text += fmt.Sprintf(" at the %s of %s", a.Edge, a.Stage)
	}
	if a.Node != "" {
		text += " on " + a.Node
	}
	text += " from " + a.Started.UTC().Format(time.RFC3339Nano)
	if a.Sluice != "" {
		text += ", sluice " + a.Sluice
	}
	if a.Kernel != "" {
		text += ", Linux " + a.Kernel
	}
	if a.Anonymized {
		text += "; addresses are not the real ones"
	}
	return plain(text)
}

// String says for people how a recording ended.
func (e *End) String() string {
	text := fmt.Sprintf("%d events in %d batches and %v; ended: %s", e.Events, e.Batches, e.Elapsed.Round(time.Millisecond), e.Reason)
	if e.Lost > 0 {
		text += fmt.Sprintf("; %d events that passed are missing", e.Lost)
	}
	return plain(text)
}

// plain makes one line of it that moves no cursor: a recording may be from anywhere.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}
