package runner

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// totals is what the processes of a stage counted that are gone.
type totals struct {
	in, out, lost                            uint64
	batchesIn, batchesOut, bytesIn, bytesOut uint64
	malformed, edgeDropped                   uint64
}

func (t *totals) add(s *stagepb.StatisticsReply) {
	if s == nil {
		return
	}
	t.in += s.EventsIn
	t.out += s.EventsOut
	t.lost += lost(s)
	t.batchesIn += s.BatchesIn
	t.batchesOut += s.BatchesOut
	t.bytesIn += s.BytesIn
	t.bytesOut += s.BytesOut
	t.malformed += s.Malformed
	t.edgeDropped += s.EdgeDropped
}

// lost sums up what a stage lost, by any cause.
func lost(s *stagepb.StatisticsReply) uint64 {
	n := s.EdgeDropped + s.Malformed
	for _, one := range s.Own {
		if plugin.StatisticType(one.Type) == plugin.Loss {
			n += one.Value
		}
	}
	return n
}

// Status implements control.Backend. Numbers are of now, but for stages that
// don't answer.
func (r *Runner) Status(context.Context) (*control.Status, error) {
	r.refresh()
	status := &control.Status{
		Node: r.graph().config.Runner.Name, Version: r.options.Version, PID: os.Getpid(), Started: r.started,
		Role: r.role.get(), Purge: r.purges.next(), Scheduler: scheduler(), Signals: r.signals.list(), Replays: []control.ReplayStatus{},
		Health: r.Health(),
	}
	if last := r.LastReload(); !last.Time.IsZero() {
		status.Reload = &last
	}
	for _, l := range r.graph().pipelines {
		p := control.PipelineStatus{Name: l.name}
		for _, s := range l.stages {
			p.Stages = append(p.Stages, s.status())
			if s.replays != nil {
				status.Replays = append(status.Replays, s.replays.status()...)
			}
		}
		status.Pipelines = append(status.Pipelines, p)
	}
	return status, nil
}

func (s *stage) status() control.StageStatus {
	below := s.at().belowTotals()
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.past
	all.add(s.statistics)
	c := control.StageStatus{
		Address: s.address, Kind: string(s.conf().Kind), Type: s.conf().Type, State: s.state, Since: s.since,
		Restarts: uint64(max(s.generation, s.planned+1) - s.planned - 1), LastError: s.lastError, Answered: s.answered,
		EventsIn: all.in, EventsOut: all.out, Lost: all.lost,
		BatchesIn: all.batchesIn, BatchesOut: all.batchesOut, BytesIn: all.bytesIn, BytesOut: all.bytesOut,
		Malformed: all.malformed, EdgeDropped: all.edgeDropped,
	}
	if e := s.input(); e != nil {
		c.QueueBytes = e.queued()
		c.QueueUsed, c.QueueLimit = e.occupied()
	}
	if s.proc != nil {
		c.PID = s.proc.pid()
		c.CPUSeconds, c.MemoryBytes = usage(c.PID)
		c.May = s.proc.permissions()
	}
	c.Program = s.at().programStatus()
	if s.statistics != nil {
		addReply(&c, s.statistics)
	}
	c.Note = s.withRemarks(c.Note, c.EventsIn, below)
	return c
}

// addReply adds what only the present process knows.
func addReply(c *control.StageStatus, reply *stagepb.StatisticsReply) {
	c.Note, c.Behind = printable(reply.Note), reply.Behind
	c.BatchSizes, c.BatchAges = histogramOf(reply.BatchSizes), histogramOf(reply.BatchAges)
	for _, one := range reply.Own {
		c.Statistics = append(c.Statistics, control.Statistic{
			Name: one.Name, Help: one.Help, Value: one.Value, Peer: one.Peer, Labels: one.Labels,
			Type: [...]string{"counter", "gauge", "loss"}[min(one.Type, 2)],
		})
	}
	for _, p := range reply.Peers {
		one := control.PeerStatus{
			Address: printable(p.Address), Name: printable(p.Name), Up: p.Up, Marks: p.Marks, Flows: p.Flows, Replayed: p.Replayed,
		}
		if p.Heard != 0 {
			one.Heard = time.Unix(p.Heard, 0)
		}
		c.Peers = append(c.Peers, one)
	}
}

// histogramOf returns nil for what is no histogram.
func histogramOf(h *stagepb.Histogram) *control.Histogram {
	if h == nil || len(h.Bounds) == 0 || len(h.Counts) != len(h.Bounds)+1 || !slices.IsSorted(h.Bounds) {
		return nil
	}
	return &control.Histogram{Bounds: h.Bounds, Counts: h.Counts, Sum: h.Sum}
}

// status lists the replays that ended last, and the one that runs.
func (p *replayer) status() (list []control.ReplayStatus) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.last {
		list = append(list, r.status(p.stage, "done"))
	}
	if p.current != nil {
		list = append(list, p.current.status(p.stage, "running"))
	}
	return list
}

func (r *replay) status(s *stage, state string) control.ReplayStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := control.ReplayStatus{
		Stage: s.address, Reason: r.reason, Started: r.started, Elapsed: r.elapsed, State: state,
		Counts: append([]control.Count(nil), r.counts...),
	}
	if state == "running" {
		c.Elapsed = time.Since(r.started)
	}
	if r.err != nil {
		c.State, c.Error = "failed", r.err.Error()
	}
	return c
}

// clockTick is USER_HZ, in which /proc/PID/stat counts; it is 100 on every
// architecture that Go knows.
const clockTick = 100

// processStat reads the fields of /proc/PID/stat from the third on.
func processStat(pid int) [][]byte {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/stat", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	stat := make([]byte, 1024) // os.ReadFile takes three times as many system calls, and each stage is looked at every second
	n, err := unix.Read(fd, stat)
	if err != nil {
		return nil
	}
	stat = stat[:n]
	// The command's name may hold spaces; fields are counted behind it.
	return bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
}

// stopped says whether a signal, or a debugger, has stopped a process.
func stopped(pid int) bool {
	fields := processStat(pid)
	return len(fields) > 0 && (string(fields[0]) == "T" || string(fields[0]) == "t")
}

// usage reads a process's CPU time, in seconds, and resident memory, in bytes.
func usage(pid int) (cpu float64, memory uint64) {
	fields := processStat(pid)
	if len(fields) < 24-2 {
		return 0, 0
	}
	number := func(i int) uint64 { // i as in proc(5)
		n, _ := strconv.ParseUint(string(fields[i-3]), 10, 64)
		return n
	}
	return float64(number(14)+number(15)) / clockTick, number(24) * uint64(os.Getpagesize())
}
