package control

import (
	"errors"
	"net/http"
	"time"
)

// ErrUnknown is wrapped by a Backend's error that says that there is no such
// pipeline or stage. It only chooses the status (404) of an answer.
var ErrUnknown = errors.New("not found")

// The paths and names of version 1 of the protocol.
const (
	pathStatus = "/v1/status"
	pathDump   = "/v1/dump"
	pathTap    = "/v1/tap"
	pathDo     = "/v1/do"
	pathPlan   = "/v1/plan"

	// trailerError carries what ended a dump whose first lines were sent. A
	// dump that ended well has it too, and empty: without it the answer was
	// cut short.
	trailerError = "Sluice-Error"

	typeJSON  = "application/json"
	typeLines = "application/x-ndjson"
	typeText  = "text/plain; charset=utf-8"
)

// The limits of the server.
const (
	maxHeader  = 16 << 10 // bytes
	maxBody    = 64 << 10 // bytes, of a Request
	maxConfig  = 16 << 20 // bytes, of a configuration to be compared
	maxError   = 64 << 10 // bytes, of an answer that is no 200
	maxReaders = 16       // status and dump requests at a time
	maxTaps    = 8        // at a time: they last
	maxActors  = 16       // commands at a time: so many dumps never keep a takeover out
	maxConns   = 128      // connections at a time, idle ones included
)

const (
	readTimeout  = 10 * time.Second // for a whole request
	idleTimeout  = 30 * time.Second // between two requests
	writeTimeout = 5 * time.Minute  // for one piece of an answer: somebody reads a dump with a pager
)

// failure is an answer that is no 200.
type failure struct {
	Error string `json:"error"`
}

// line is a line of the answer to a Request: a Step, or, with Done set, the
// end of the answer.
type line struct {
	Step
	Done  bool   `json:"done"`
	Error string `json:"error"` // the step's, or the command's
}

// End is the last line of the answer to a Request, and of what a program reads
// from a command with -o json.
type End struct {
	Done  bool   `json:"done"` // always true
	Error string `json:"error,omitempty"`
}

func statusOf(err error) int {
	if errors.Is(err, ErrUnknown) {
		return http.StatusNotFound
	}
	return http.StatusInternalServerError
}
