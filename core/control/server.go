package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// A Server answers an administrator's requests from a Backend.
//
// The context that the backend gets ends when the caller goes away. A backend
// for which half a command is worse than a whole one carries on without it
// (context.WithoutCancel).
type Server struct {
	backend Backend
	log     *slog.Logger
	http    *http.Server
	stop    context.CancelFunc // ends every request's context
	ending  context.Context    // done when Shutdown begins: taps end then

	readers, actors, taps chan struct{} // hold a token for each request that runs
}

// NewServer returns a server for b. Commands that act are written to log with
// the process that asked for them.
func NewServer(b Backend, log *slog.Logger) *Server {
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{
		backend: b, log: log, stop: stop,
		readers: make(chan struct{}, maxReaders), actors: make(chan struct{}, maxActors),
		taps: make(chan struct{}, maxTaps),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+pathStatus, limited(s.readers, s.status))
	mux.HandleFunc("GET "+pathDump, limited(s.readers, s.dump))
	mux.HandleFunc("GET "+pathTap, limited(s.taps, s.tap))
	mux.HandleFunc("POST "+pathPlan, limited(s.readers, s.plan))
	mux.HandleFunc("POST "+pathDo, limited(s.actors, s.do))
	s.http = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withCaller,
	}
	ending, end := context.WithCancel(ctx)
	s.ending = ending
	s.http.RegisterOnShutdown(end)
	return s
}

// Serve answers what comes in on l, which it closes, until Shutdown.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(netutil.LimitListener(callerListener{l}, maxConns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("control socket: %w", err)
}

// Shutdown accepts no more connections, removes the socket, and waits for the
// requests that run. When ctx ends it cancels them.
func (s *Server) Shutdown(ctx context.Context) error {
	defer s.stop()
	if err := s.http.Shutdown(ctx); err != nil {
		s.stop()
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// limited refuses a request rather than have it wait while as many run as
// tokens holds.
func limited(tokens chan struct{}, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case tokens <- struct{}{}:
			defer func() { <-tokens }()
			next(w, r)
		default:
			refuse(w, http.StatusServiceUnavailable,
				fmt.Errorf("the runner is busy with %d requests of this sort: try again later", cap(tokens)))
		}
	}
}

// refuse answers with an error.
func refuse(w http.ResponseWriter, code int, err error) {
	w.Header().Set("Content-Type", typeJSON)
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(failure{Error: err.Error()}) // the caller has gone away
}

func (s *Server) status(w http.ResponseWriter, r *http.Request) {
	status, err := s.backend.Status(r.Context())
	if err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	if err := json.NewEncoder(timed(w)).Encode(status); err != nil {
		s.log.Debug("control: status not sent", "error", err)
	}
}

func (s *Server) plan(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTimeout))
	configuration, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxConfig))
	_ = control.SetReadDeadline(time.Time{}) // one that passes would end the request's context
	if err != nil {
		refuse(w, http.StatusBadRequest, fmt.Errorf("request: %w", err))
		return
	}
	plan, err := s.backend.Plan(r.Context(), configuration)
	if err != nil {
		refuse(w, statusOf(err), err)
		return
	}
	w.Header().Set("Content-Type", typeJSON)
	_ = json.NewEncoder(timed(w)).Encode(plan) // the caller has gone away
}

func (s *Server) dump(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	request := DumpRequest{Target: query.Get("target"), What: query.Get("what"), Args: query["arg"], JSON: isTrue(query.Get("json"))}
	if request.Target == "" {
		refuse(w, http.StatusBadRequest, errors.New("dump: no target: name a pipeline or a stage"))
		return
	}
	if !slices.Contains([]string{DumpFlows, DumpExpectations, DumpStats}, request.What) {
		refuse(w, http.StatusBadRequest, fmt.Errorf("dump: what=%q is nothing that a cache has: write %s or %s, or nothing for flows",
			request.What, DumpExpectations, DumpStats))
		return
	}
	w.Header().Set("Content-Type", typeText)
	if request.JSON {
		w.Header().Set("Content-Type", typeLines)
	}
	out := &counter{w: timed(w)}
	buffer := bufio.NewWriterSize(out, 64<<10)
	err := s.backend.Dump(r.Context(), request, buffer)
	if err != nil && out.n == 0 && buffer.Buffered() == 0 {
		refuse(w, statusOf(err), err)
		return
	}
	// Sent behind the body, which TrailerPrefix says.
	w.Header().Set(http.TrailerPrefix+trailerError, oneLine(err))
	_ = buffer.Flush() // the caller has gone away
}

// tap streams what passes a stage, each piece as it comes.
func (s *Server) tap(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	request := DumpRequest{Target: query.Get("target"), What: DumpTap, Args: query["arg"], JSON: isTrue(query.Get("json"))}
	if request.Target == "" {
		refuse(w, http.StatusBadRequest, errors.New("tap: no target: name a stage"))
		return
	}
	w.Header().Set("Content-Type", typeText)
	if request.JSON {
		w.Header().Set("Content-Type", typeLines)
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ending, cancel)()
	out := &counter{w: prompt{timed(w)}}
	err := s.backend.Dump(ctx, request, out)
	if err != nil && out.n == 0 {
		refuse(w, statusOf(err), err)
		return
	}
	w.Header().Set(http.TrailerPrefix+trailerError, oneLine(err))
}

// isTrue reads a flag of a query: "json", "json=1" and "json=true" are alike.
func isTrue(value string) bool { return value == "1" || value == "true" }

// oneLine makes an error fit into a header.
func oneLine(err error) string {
	if err == nil {
		return ""
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

func (s *Server) do(w http.ResponseWriter, r *http.Request) {
	request, err := readRequest(w, r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err)
		return
	}
	log := s.log.With("command", request.Command, "targets", request.Targets)
	log.Info("command", caller(r.Context()))
	w.Header().Set("Content-Type", typeLines)
	steps := newSteps(w)
	started := time.Now()
	err = s.backend.Do(r.Context(), request, steps.report)
	steps.end(err)
	if err != nil {
		log.Error("command failed", "elapsed", time.Since(started), "error", err)
		return
	}
	log.Info("command done", "elapsed", time.Since(started))
}

// readRequest reads and checks a Request.
func readRequest(w http.ResponseWriter, r *http.Request) (request Request, err error) {
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTimeout))
	defer control.SetReadDeadline(time.Time{}) // one that passes would end the request's context
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	// A member that we do not know could be what makes the command harmless.
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&request); err != nil {
		return request, fmt.Errorf("request: %w", err)
	}
	// To the end, which lets net/http notice when the caller leaves.
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return request, errors.New("request: more than one JSON object")
	}
	if !slices.Contains(Commands, request.Command) {
		return request, fmt.Errorf("there is no command %q; there are %s", request.Command, strings.Join(Commands, ", "))
	}
	return request, nil
}
