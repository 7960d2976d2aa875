package kit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/core/runner"
)

// A Packet is one batch that came out of a stage.
type Packet struct {
	Raw     []byte
	Header  flow.Header
	Events  []flow.Event // their tails refer to Raw
	Records []flow.Record
	Err     error // why it is no batch
}

// A Stage is a plugin's process at work, with somebody who reads what it sends and
// signals.
type Stage struct {
	*runner.Probe
	patience time.Duration
	ctx      context.Context
	cancel   context.CancelFunc
	readers  sync.WaitGroup
	sent     uint64 // packets
	fed      bool   // it has an input: it is no source

	mu      sync.Mutex
	packets [][]Packet // by output
	signals []*stagepb.Signal
	changed chan struct{} // closed and replaced when something came
}

// NewStage wires a plugin that is yet to be launched. No wait is longer than
// patience. Close must follow.
func NewStage(c runner.ProbeConfig, patience time.Duration) (*Stage, error) {
	probe, err := runner.NewProbe(c)
	if err != nil {
		return nil, err
	}
	s := &Stage{Probe: probe, patience: patience, fed: c.Input, packets: make([][]Packet, c.Outputs), changed: make(chan struct{})}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, nil
}

// Close ends the process.
func (s *Stage) Close() {
	s.cancel()
	s.Probe.Close()
	s.readers.Wait()
}

// Run launches, configures and starts the stage, and listens to its signals. What
// it sends is read once Collect is called.
func (s *Stage) Run(config []byte, r *stagepb.StartRequest) error {
	ctx, cancel := context.WithTimeout(s.ctx, max(s.patience, startPatience))
	defer cancel()
	if _, err := s.Launch(ctx); err != nil {
		return err
	}
	if err := s.Begin(ctx, config, r); err != nil {
		return fmt.Errorf("it does not start: %w%s", err, s.wrote())
	}
	stream, err := s.Signals(s.ctx, &stagepb.Empty{})
	if err != nil {
		return fmt.Errorf("signals: %w", err)
	}
	s.readers.Go(func() {
		for {
			signal, err := stream.Recv()
			if err != nil {
				return
			}
			s.note(func() { s.signals = append(s.signals, signal) })
		}
	})
	return nil
}

// wrote ends a message with what the process wrote last.
func (s *Stage) wrote() string {
	if lines := s.LastLines(); lines != "" {
		return "; it wrote: " + lines
	}
	return ""
}

// Collect begins to read what the stage sends to one output.
func (s *Stage) Collect(output int) {
	s.readers.Go(func() {
		for {
			raw, err := s.Receive(s.ctx, output)
			if err != nil {
				return
			}
			p := decode(raw)
			s.note(func() { s.packets[output] = append(s.packets[output], p) })
		}
	})
}

func decode(raw []byte) Packet {
	p := Packet{Raw: raw}
	b, err := flow.DecodeBatch(raw)
	if err != nil {
		p.Err = err
		return p
	}
	p.Header = b.Header
	for c := b.Cursor(); ; {
		var e flow.Event
		if !c.Next(&e) {
			return p
		}
		p.Events, p.Records = append(p.Events, e), append(p.Records, c.Record())
	}
}

// note changes what came, and wakes who waits.
func (s *Stage) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until condition, which is called under the lock, holds.
func (s *Stage) await(what string, condition func() bool) error {
	deadline := time.NewTimer(s.patience)
	defer deadline.Stop()
	for {
		s.mu.Lock()
		met, changed := condition(), s.changed
		s.mu.Unlock()
		if met {
			return nil
		}
		select {
		case <-changed:
		case <-s.Exited():
			return s.died(what)
		case <-deadline.C:
			return fmt.Errorf("%s: not within %v", what, s.patience)
		}
	}
}

// died is the error of a process that ended when it should not.
func (s *Stage) died(what string) error {
	how := "with status 0"
	if err := s.Err(); err != nil {
		how = "with " + err.Error()
	}
	return fmt.Errorf("%s: the process ended, %s%s", what, how, s.wrote())
}

// Feed sends packets to the stage.
func (s *Stage) Feed(packets ...[]byte) error {
	for _, p := range packets {
		ctx, cancel := context.WithTimeout(s.ctx, s.patience)
		err := s.Send(ctx, p)
		cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("data waits in its input and it did not read it within %v%s", s.patience, s.wrote())
		}
		if err != nil {
			return fmt.Errorf("feed: %w", err)
		}
		s.sent++
	}
	return nil
}

// FeedEvents sends events as live ones of the kernel's, a hundred a batch.
func (s *Stage) FeedEvents(events ...flow.Event) error {
	return s.Feed(Pack(flow.Header{}, 100, events...)...)
}

// Numbers asks the stage for its statistics.
func (s *Stage) Numbers() (*stagepb.StatisticsReply, error) {
	ctx, cancel := context.WithTimeout(s.ctx, min(s.patience, hangTimeout))
	defer cancel()
	r, err := s.Statistics(ctx, &stagepb.Empty{})
	if err != nil {
		select {
		case <-s.Exited():
			return nil, s.died("asked for its statistics")
		case <-time.After(exitGrace):
		}
		return nil, fmt.Errorf("it does not answer a question for its statistics within %v: %w", hangTimeout, err)
	}
	return r, nil
}

// startPatience is how long a runner waits for a start, which loads a program first.
const startPatience = 15 * time.Second

// exitGrace is how long after a connection broke the end of its process is seen.
const exitGrace = 500 * time.Millisecond

// hangTimeout is how long a runner waits for an answer before it kills a stage.
const hangTimeout = 3 * time.Second

// AwaitRead waits until the stage has counted all packets that it was fed.
func (s *Stage) AwaitRead() error {
	deadline := time.Now().Add(s.patience)
	for {
		n, err := s.Numbers()
		if err != nil {
			return err
		}
		if n.BatchesIn >= s.sent {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("it counted %d of the %d batches that it was sent within %v", n.BatchesIn, s.sent, s.patience)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Drain ends the stage as a runner does: by the end of its input, or a source by
// the call. It waits for a clean exit and returns what came out of the first
// output, if that is collected.
func (s *Stage) Drain() ([]Packet, error) {
	if s.fed {
		s.End()
		return s.awaitEnd()
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.patience)
	defer cancel()
	if _, err := s.StageClient.Drain(ctx, &stagepb.Empty{}); err != nil && status.Code(err) != codes.Unavailable {
		return nil, fmt.Errorf("drain: %w", err) // Unavailable: it was gone before its answer
	}
	return s.awaitEnd()
}

// awaitEnd waits for a clean exit and for all that was sent before it.
func (s *Stage) awaitEnd() ([]Packet, error) {
	select {
	case <-s.Exited():
	case <-time.After(s.patience):
		if !s.fed {
			return nil, fmt.Errorf("it was told to drain and it still runs after %v%s", s.patience, s.wrote())
		}
		return nil, fmt.Errorf("its input has ended and it still runs after %v; %d bytes of it are not read%s", s.patience, s.Queued(), s.wrote())
	}
	for i := range s.packets {
		s.EndOutput(i)
	}
	if err := s.AwaitExit(s.patience); err != nil {
		return nil, fmt.Errorf("it did not end with status 0: %w%s", err, s.wrote())
	}
	s.readers.Wait() // to the ends of the edges
	return s.Packets(0), nil
}

// Packets returns what has come out of an output so far.
func (s *Stage) Packets(output int) []Packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	if output >= len(s.packets) {
		return nil
	}
	return slices.Clone(s.packets[output])
}

// Collected waits until the stage has read all that it was fed and what it says it
// sent since has come out of the first output, and returns that.
func (s *Stage) Collected() ([]Packet, error) {
	if err := s.AwaitRead(); err != nil {
		return nil, err
	}
	n, err := s.Numbers()
	if err != nil {
		return nil, err
	}
	err = s.await(fmt.Sprintf("the %d events that it counts as sent", n.EventsOut), func() bool {
		got := 0
		for _, p := range s.packets[0] {
			got += len(p.Events)
		}
		return uint64(got) >= n.EventsOut
	})
	return s.Packets(0), err
}

// EventsOf returns the events of packets, or why one is no batch.
func EventsOf(packets []Packet) (events []flow.Event, err error) {
	for i, p := range packets {
		if p.Err != nil {
			return nil, fmt.Errorf("the batch number %d that it sent is none: %w", i+1, p.Err)
		}
		events = append(events, p.Events...)
	}
	return events, nil
}

// AwaitSignal waits for a signal of a name, about an edge.
func (s *Stage) AwaitSignal(name plugin.Signal, edge uint32) error {
	var seen []string
	err := s.await(fmt.Sprintf("a signal %q of edge %d", name, edge), func() bool {
		seen = nil
		for _, one := range s.signals {
			seen = append(seen, fmt.Sprintf("%s of edge %d", one.Name, one.Edge))
		}
		return slices.ContainsFunc(s.signals, func(one *stagepb.Signal) bool { return one.Name == string(name) && one.Edge == edge })
	})
	if err != nil && len(seen) > 0 {
		return fmt.Errorf("%w; it raised %s", err, strings.Join(seen, ", "))
	}
	return err
}

// AwaitDone waits for the report of a replay.
func (s *Stage) AwaitDone(replay uint64) (report *stagepb.Report, err error) {
	err = s.await(fmt.Sprintf("the report (signal replay-done) of replay %d", replay), func() bool {
		for _, one := range s.signals {
			if one.Done.GetReplay() == replay && one.Done != nil {
				report = one.Done
			}
		}
		return report != nil
	})
	return report, err
}

// Order has a source or a cache replay, and waits for the end mark. It returns the
// packets of the replay.
func (s *Stage) Order(id uint64, flags flow.SyncFlags) (packets []Packet, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.patience)
	defer cancel()
	if _, err := s.Replay(ctx, &stagepb.ReplayRequest{Id: id, Flags: uint32(flags)}); err != nil {
		return nil, fmt.Errorf("it refuses to replay: %w", err)
	}
	failed := ""
	err = s.await(fmt.Sprintf("the end mark of replay %d", id), func() bool {
		for _, one := range s.signals {
			if one.Done.GetReplay() == id && one.Done.GetFailed() != "" {
				failed = one.Done.Failed
				return true
			}
		}
		packets = nil
		for _, p := range s.packets[0] {
			if p.Err == nil && p.Header.Replay == id {
				packets = append(packets, p)
			}
		}
		return len(packets) > 0 && slices.ContainsFunc(packets[len(packets)-1].Events, func(e flow.Event) bool { return e.Kind == flow.SyncEnd })
	})
	if failed != "" {
		return nil, fmt.Errorf("it reports that the replay failed: %s", failed)
	}
	return packets, err
}

// Ask carries out a command and returns what it answered.
func (s *Stage) Ask(r *stagepb.CommandRequest) ([]byte, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.patience)
	defer cancel()
	stream, err := s.Command(ctx, r)
	if err != nil {
		return nil, err
	}
	var all []byte
	for {
		piece, err := stream.Recv()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, piece.Data...)
	}
}

// discard reads what the stage sends to one output and keeps nothing.
func (s *Stage) discard(output int) {
	s.readers.Go(func() {
		for {
			if _, err := s.Receive(s.ctx, output); err != nil {
				return
			}
		}
	})
}
