package sinklog

import (
	"encoding/binary"
	"encoding/json"
	"strconv"
	"time"

	"github.com/sluice-project/sluice/core/flow"
)

// A format appends a line about an event, with the newline. What comes from the
// network is printed as numbers, names or hexadecimal digits, so that no line
// has control characters: package flow sees to that, and a fuzz test here.
type format func(p []byte, at time.Time, e *flow.Event) []byte

// An object is a line of JSON: the View, and what a log needs besides.
type object struct {
	Time     time.Time `json:"time"`
	Duration *float64  `json:"duration,omitempty"` // seconds
	flow.View
}

func appendJSON(p []byte, at time.Time, e *flow.Event) []byte {
	o := object{Time: at, View: e.View()}
	if d, ok := duration(&e.Flow); ok {
		o.Duration = &d
	}
	line, _ := json.Marshal(&o) // nothing in it can fail
	return append(append(p, line...), '\n')
}

// appendText begins with the time, which syslog's own lines have already.
func appendText(p []byte, at time.Time, e *flow.Event) []byte {
	p = at.AppendFormat(p, "2006-01-02T15:04:05.000000Z07:00 ")
	return appendPlain(p, at, e)
}

func appendPlain(p []byte, _ time.Time, e *flow.Event) []byte {
	p = e.AppendText(p)
	if d, ok := duration(&e.Flow); ok {
		p = strconv.AppendFloat(append(p, " duration="...), d, 'f', 3, 64)
	}
	return append(p, '\n')
}

// duration is how many seconds a flow lived, in whole milliseconds, where the
// kernel kept the time of both ends.
func duration(f *flow.Flow) (seconds float64, ok bool) {
	v, ok := f.Tail.Get(flow.AttrTimestamps)
	if !ok || len(v) != 16 {
		return 0, false
	}
	start, stop := binary.LittleEndian.Uint64(v), binary.LittleEndian.Uint64(v[8:])
	return float64((stop-start)/1e6) / 1e3, start != 0 && stop >= start
}
