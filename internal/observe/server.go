package observe

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/exporter-toolkit/web"
	"golang.org/x/net/netutil"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/pipeline"
)

// The limits of the listener.
const (
	maxConns      = 64               // connections at a time
	maxHeader     = 16 << 10         // bytes
	maxScrapes    = 4                // at a time; the backend is asked once for all
	scrapeTimeout = 8 * time.Second  // Prometheus' own default is 10 s
	readTimeout   = 10 * time.Second // for a request
	writeTimeout  = 30 * time.Second // for an answer
	idleTimeout   = 2 * time.Minute  // between two requests; scrapes come each minute at least
)

// A Server serves metrics, health and the page of a node.
type Server struct {
	config pipeline.Metrics
	log    *slog.Logger
	http   *http.Server
	closed chan struct{}

	mu       sync.Mutex
	listener net.Listener // nil: its address can't be had at the moment

	replays, commands *prometheus.HistogramVec
	lines             *Lines // nil without a page
}

// durations are the buckets of what takes from a millisecond to a minute.
var durations = []float64{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60}

func durationsOf(m *Metric) *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: durations}, m.Labels)
}

// Listen makes the listener that c describes. Serve must follow, or Close. An address
// that can't be had, since another listens there or it is not this node's yet, is no
// error: the flows don't wait for it, and Serve tries again.
func Listen(c pipeline.Metrics, log *slog.Logger) (*Server, error) {
	if c.WebConfig != "" {
		if err := web.Validate(c.WebConfig); err != nil {
			return nil, fmt.Errorf("metrics: web_config: %s: %w", c.WebConfig, err)
		}
	}
	s := newServer(c, log)
	if _, err := s.listen(); err != nil {
		log.Error("metrics are not served yet", "error", err, "again_in", firstPause)
	}
	return s, nil
}

// listen returns the listener, which it makes if there is none.
func (s *Server) listen() (net.Listener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.closed:
		return nil, net.ErrClosed
	default:
	}
	if s.listener != nil {
		return s.listener, nil
	}
	l, err := listen(s.config)
	if err == nil {
		s.listener = l
		s.log.Info("metrics", "listen", s.config.Listen)
	}
	return l, err
}

func newServer(c pipeline.Metrics, log *slog.Logger) *Server {
	s := &Server{config: c, log: log, closed: make(chan struct{}), replays: durationsOf(metricReplays), commands: durationsOf(metricCommand)}
	s.http = &http.Server{
		ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug), // of clients' TLS handshakes and the like
	}
	if c.Page {
		s.lines = &Lines{}
	}
	return s
}

// Lines are to be given what is logged, for the page; nil if there is no page.
func (s *Server) Lines() *Lines { return s.lines }

func listen(c pipeline.Metrics) (net.Listener, error) {
	if path, ok := strings.CutPrefix(c.Listen, "unix:"); ok {
		return control.Listen(control.Socket{Path: path, Group: c.Group, Block: "metrics"})
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return l, nil
}

// Between two tries to serve it waits so long, each time twice as long.
const (
	firstPause = time.Second
	lastPause  = time.Minute
)

// Serve answers what comes in, until Close. What keeps it from that is logged, and
// tried again.
func (s *Server) Serve(b Backend) {
	handler := s.handler(b)
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		err := s.serveOnce(handler)
		if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			return
		}
		s.log.Error("metrics are not served", "error", err, "again_in", pause)
		select {
		case <-s.closed:
			return
		case <-time.After(pause):
		}
	}
}

func (s *Server) serveOnce(handler http.Handler) error {
	l, err := s.listen()
	if err != nil {
		return err
	}
	defer s.forget() // else clients would wait in its backlog
	l = netutil.LimitListener(&fairListener{Listener: l}, maxConns)
	s.http.Handler = handler
	if s.config.WebConfig == "" {
		return s.http.Serve(l)
	}
	return web.Serve(l, s.http, &web.FlagConfig{WebConfigFile: &s.config.WebConfig}, s.log)
}

// forget closes the listener, if there is one.
func (s *Server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener != nil {
		s.listener.Close()
		s.listener = nil
	}
}

// Close ends the server and all its connections.
func (s *Server) Close() {
	close(s.closed)
	s.http.Close()
	s.forget()
}

func (s *Server) handler(b Backend) http.Handler {
	n := &node{backend: b}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collector{n}, s.replays, s.commands,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn), ErrorHandling: promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes, Timeout: scrapeTimeout, EnableOpenMetrics: true,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { tell(w, b.Health().Unhealthy) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { tell(w, b.Health().Unready) })
	if s.config.Page {
		(&page{node: n, lines: s.lines}).serve(mux)
	}
	if s.config.Pprof {
		profile(mux)
	}
	return mux
}

// profile registers Go's profiles of the runner.
func profile(mux *http.ServeMux) {
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
}

// tell answers with what is wrong, a line each.
func tell(w http.ResponseWriter, wrong []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if len(wrong) == 0 {
		fmt.Fprintln(w, "ok")
		return
	}
	w.WriteHeader(http.StatusServiceUnavailable)
	fmt.Fprintln(w, strings.Join(wrong, "\n"))
}
