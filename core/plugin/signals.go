package plugin

import (
	"log/slog"
	"sync"

	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// host is the stage's side of Host: it keeps signals until the runner has read
// them. Signals of one name and edge are one entry, and reports of replays are
// one a replay at most, so the queue is bounded by what the runner asked for.
type host struct {
	start  Start
	logger *slog.Logger

	mu      sync.Mutex
	pending []*stagepb.Signal
	reports int           // raised since the runner last read; at most maxPending of them are pending
	wake    chan struct{} // holds one token while something is pending
	done    map[doneKey]bool
}

type doneKey struct {
	replay uint64
	owner  string
}

// maxPending bounds the reports that wait, against a peer that ends replay after
// replay while the runner does not read. Signals are no more than there are
// names and edges.
const maxPending = 4096

func newHost(logger *slog.Logger) *host {
	return &host{logger: logger, wake: make(chan struct{}, 1), done: map[doneKey]bool{}}
}

func (h *host) Start() Start         { return h.start }
func (h *host) Logger() *slog.Logger { return h.logger }

func (h *host) Signal(s Signal, detail string) {
	h.raise(&stagepb.Signal{Name: string(s), Detail: detail, Times: 1})
}

func (h *host) signalEdge(number uint32) {
	h.raise(&stagepb.Signal{Name: string(SignalEdgeFull), Edge: number, Times: 1})
}

func (h *host) Done(r Report) {
	report := &stagepb.Report{Replay: r.Replay, Failed: r.Failed, Unreached: r.Unreached}
	if r.Owner.IsValid() {
		report.Owner = r.Owner.String()
	}
	for _, c := range r.Counts {
		report.Counts = append(report.Counts, &stagepb.Count{Name: c.Name, Value: c.Value})
	}
	h.mu.Lock()
	if len(h.done) > maxPending {
		clear(h.done)
	}
	h.done[doneKey{r.Replay, report.Owner}] = true
	h.mu.Unlock()
	h.raise(&stagepb.Signal{Name: string(SignalReplayDone), Done: report, Times: 1})
}

// reported says whether Done was called for the replay, and forgets it.
func (h *host) reported(replay uint64, owner string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	key := doneKey{replay, owner}
	was := h.done[key]
	delete(h.done, key)
	return was
}

func (h *host) raise(s *stagepb.Signal) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.Done == nil {
		for _, p := range h.pending {
			if p.Name == s.Name && p.Edge == s.Edge {
				p.Times++
				p.Detail = s.Detail
				return
			}
		}
	}
	if s.Done != nil {
		if h.reports++; h.reports > maxPending {
			if h.reports == maxPending+1 {
				h.logger.Error("reports of replays dropped: the runner does not read them", "pending", maxPending)
			}
			return
		}
	}
	h.pending = append(h.pending, s)
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// take returns what is pending.
func (h *host) take() []*stagepb.Signal {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pending
	h.pending, h.reports = nil, 0
	return p
}
