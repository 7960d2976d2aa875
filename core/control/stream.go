package control

import (
	"encoding/json"
	"io"
	"net/http"
	"sync"
	"time"
)

// timedWriter gives every write a deadline of its own, so that an answer may
// take as long as it needs, but a caller that stops reading does not hold its
// backend for ever.
type timedWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func timed(w http.ResponseWriter) timedWriter {
	return timedWriter{w, http.NewResponseController(w)}
}

func (t timedWriter) Write(p []byte) (int, error) {
	if err := t.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return t.w.Write(p)
}

// prompt sends every write at once.
type prompt struct{ timedWriter }

func (p prompt) Write(b []byte) (int, error) {
	n, err := p.timedWriter.Write(b)
	if err == nil {
		err = p.control.Flush()
	}
	return n, err
}

// counter counts the bytes that went through.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// steps streams the answer to a Request. Its methods may be called from any
// goroutine.
type steps struct {
	out timedWriter

	mu    sync.Mutex
	ended bool
}

// newSteps sends the header at once: a caller may take silence from here on as
// work.
func newSteps(w http.ResponseWriter) *steps {
	s := &steps{out: timed(w)}
	w.WriteHeader(http.StatusOK)
	_ = s.out.control.Flush()
	return s
}

func (s *steps) report(step Step) { s.send(step, false) }

func (s *steps) end(err error) {
	last := End{Done: true}
	if err != nil {
		last.Error = err.Error()
	}
	s.send(last, true)
}

// send writes one line. A step that a backend's goroutine reports after the
// end is dropped: net/http forbids a write after the handler. Errors mean that
// the caller has gone away, which the request's context tells the backend.
func (s *steps) send(v any, last bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return
	}
	s.ended = last
	_ = json.NewEncoder(s.out).Encode(v)
	_ = s.out.control.Flush()
}
