package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// server is the stage's side of the control protocol.
type server struct {
	stagepb.UnimplementedStageServer
	definition Definition
	host       *host
	restore    func() // called once calls come; may be nil

	mu     sync.Mutex
	config any    // the last configuration that had nothing wrong
	stage  *stage // once started
	drain  context.CancelFunc
	begin  func() // begins to move data; nil once it was called

	control sync.Mutex // one of Pause, Resume, Rewire and Drain at a time
	paused  struct{ input, output bool }
}

func newServer(d Definition, logger *slog.Logger) *server {
	return &server{definition: d, host: newHost(logger)}
}

func (s *server) Describe(context.Context, *stagepb.DescribeRequest) (*stagepb.Description, error) {
	if s.restore != nil {
		s.restore()
	}
	return Describe(s.definition), nil
}

// Describe returns what a plugin says of itself.
func Describe(d Definition) *stagepb.Description {
	return &stagepb.Description{
		Kind: string(d.Kind), Type: d.Type, Summary: d.Summary,
		Schema: schemaMessage(SchemaOf(d.Config())), BatchVersion: flow.Version,
	}
}

func schemaMessage(s Schema) *stagepb.Schema {
	m := &stagepb.Schema{}
	for _, a := range s.Attributes {
		m.Attributes = append(m.Attributes, &stagepb.Attribute{
			Name: a.Name, Type: a.Type, Format: a.Format, Required: a.Required, Default: a.Default, Doc: a.Doc,
		})
	}
	for _, b := range s.Blocks {
		m.Blocks = append(m.Blocks, &stagepb.Block{
			Name: b.Name, Repeated: b.Repeated, Doc: b.Doc, Schema: schemaMessage(b.Schema),
		})
	}
	return m
}

func (s *server) Configure(_ context.Context, c *stagepb.Configuration) (*stagepb.Configured, error) {
	config, reply := Configure(s.definition, c.Json)
	if len(reply.Diagnostics) == 0 {
		s.mu.Lock()
		s.config = config
		s.mu.Unlock()
	}
	return reply, nil
}

// Configure decodes and checks a configuration, a JSON object, and returns it
// with the diagnostics or the traits.
func Configure(d Definition, json []byte) (config any, reply *stagepb.Configured) {
	config, reply = d.Config(), &stagepb.Configured{}
	for _, one := range Decode(json, config) {
		reply.Diagnostics = append(reply.Diagnostics, diagnosticMessage(one))
	}
	if t, ok := config.(Traiter); ok && len(reply.Diagnostics) == 0 {
		reply.Traits = traitsMessage(t.Traits())
	} else {
		reply.Traits = &stagepb.Traits{Handover: true}
	}
	return config, reply
}

func diagnosticMessage(d Diagnostic) *stagepb.Diagnostic {
	m := &stagepb.Diagnostic{Summary: d.Summary, Detail: d.Detail}
	for _, step := range d.Path {
		switch step := step.(type) {
		case string:
			m.Path = append(m.Path, &stagepb.Step{Step: &stagepb.Step_Name{Name: step}})
		case int:
			m.Path = append(m.Path, &stagepb.Step{Step: &stagepb.Step_Index{Index: uint32(step)}})
		}
	}
	return m
}

func traitsMessage(t Traits) *stagepb.Traits {
	return &stagepb.Traits{
		Commands: t.Commands, Netns: t.NetNS, Hold: t.Hold, Link: t.Link, RequestResync: t.RequestResync,
		Kernel: t.Kernel, Scope: t.Scope, PurgeAfter: t.PurgeAfter, EveryFlow: t.EveryFlow,
		Screen: screenMessage(t.Screen), Exclusive: t.Exclusive, Screened: t.Screened, Handover: true,
		Needs: needsMessage(t.Needs),
	}
}

func needsMessage(n Needs) *stagepb.Needs {
	if len(n.Capabilities)+len(n.Read)+len(n.Write) == 0 && !n.Network && !n.RunnerUser {
		return nil
	}
	return &stagepb.Needs{Capabilities: n.Capabilities, Network: n.Network, Read: n.Read, Write: n.Write, RunnerUser: n.RunnerUser}
}

func (s *server) Start(ctx context.Context, r *stagepb.StartRequest) (*stagepb.Started, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config == nil || s.stage != nil {
		return nil, status.Error(codes.FailedPrecondition, "start: configure first, and start once")
	}
	stage, err := s.build(ctx, r)
	if err != nil {
		return &stagepb.Started{Error: err.Error()}, nil
	}
	s.stage = stage
	dataCtx, drain := context.WithCancel(context.Background())
	s.drain = drain
	s.begin = func() { go s.run(dataCtx, stage) }
	if !r.Paused {
		s.begin()
		s.begin = nil
	}
	return &stagepb.Started{}, nil
}

// build makes and opens the stage.
func (s *server) build(ctx context.Context, r *stagepb.StartRequest) (*stage, error) {
	s.host.logger = s.host.logger.With("stage", r.Stage)
	screens, err := screensOf(r.Screens)
	if err != nil {
		return nil, err
	}
	s.host.start = Start{
		Node: r.Node, Stage: r.Stage, Generation: r.Generation, PortID: r.PortId, OwnPortIDs: r.OwnPortIds,
		DropOwn: r.DropOwn, WriteThrough: r.WriteThrough, EveryFlow: r.EveryFlow, OneShot: r.OneShot, Screens: screens,
	}
	plugin := s.config
	if b, ok := s.config.(Builder); ok {
		built, err := b.Build()
		if err != nil {
			return nil, fmt.Errorf("build: %w", err)
		}
		plugin = built
	}
	for _, fd := range append(append([]uint32{}, r.Inputs...), r.Outputs...) {
		unix.CloseOnExec(int(fd))
	}
	if o, ok := plugin.(Opener); ok {
		if err := o.Open(ctx, s.host); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
	}
	st := &stage{plugin: plugin, host: s.host, out: newOutput(r.Outputs, r.Generation, s.host)}
	if len(r.Inputs) > 0 {
		var err error
		if st.in, err = newInput(int(r.Inputs[0])); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// run moves data to the end, drains, and ends the process.
func (s *server) run(ctx context.Context, st *stage) {
	err := st.run(ctx)
	if d, ok := st.plugin.(Drainer); ok && err == nil {
		err = d.Drain()
	}
	if c, ok := st.plugin.(io.Closer); ok {
		c.Close()
	}
	code := 0
	if err != nil {
		s.host.logger.Error("stage ended", "error", err)
		code = 1
	}
	time.Sleep(lastWords)
	os.Exit(code)
}

// lastWords is for the control connection to send what it has still to say, such
// as the answer to Start, if the stage had nothing to do: gRPC does not tell when
// it has.
const lastWords = 10 * time.Millisecond

// started returns the stage, or an error that says that there is none yet.
func (s *server) started() (*stage, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stage == nil {
		return nil, status.Error(codes.FailedPrecondition, "the stage is not started")
	}
	return s.stage, nil
}

func (s *server) Replay(_ context.Context, r *stagepb.ReplayRequest) (*stagepb.Empty, error) {
	st, err := s.started()
	if err != nil {
		return nil, err
	}
	err = st.replay(Replay{ID: r.Id, Flags: flow.SyncFlags(r.Flags), Edge: uint16(r.Edge), Tracked: r.Tracked, Repeated: r.Repeated})
	if err != nil {
		return nil, status.Error(codes.Unimplemented, err.Error())
	}
	return &stagepb.Empty{}, nil
}

func (s *server) Statistics(context.Context, *stagepb.Empty) (*stagepb.StatisticsReply, error) {
	st, err := s.started()
	if err != nil {
		return nil, err
	}
	r := &stagepb.StatisticsReply{
		BatchesIn: st.batchesIn.Load(), EventsIn: st.eventsIn.Load(), BytesIn: st.bytesIn.Load(),
		BatchesOut: st.out.batches.Load(), EventsOut: st.out.events.Load(), BytesOut: st.out.bytes.Load(),
		Malformed: st.malformed.Load(), EdgeDropped: st.out.dropped.Load(),
		Sending: st.out.sending.Load(), Working: st.working.Load(), Beats: st.out.beats.Load(),
		Behind: uint32(st.out.behind.Load()), BatchSizes: st.out.sizes.message(sizeBounds, 1), BatchAges: st.out.ages.message(ageBounds, microsASecond),
	}
	if _, ok := st.plugin.(Sink); ok {
		r.BatchSizes, r.BatchAges = st.sizes.message(sizeBounds, 1), st.ages.message(ageBounds, microsASecond)
	}
	if m, ok := st.plugin.(Meter); ok {
		for _, one := range m.Statistics() {
			r.Own = append(r.Own, &stagepb.Statistic{
				Name: one.Name, Help: one.Help, Type: uint32(one.Type), Value: one.Value, Peer: one.Peer, Labels: one.Labels,
			})
		}
	}
	if n, ok := st.plugin.(Noter); ok {
		r.Note = n.Note()
	}
	if l, ok := st.plugin.(Listener); ok {
		for _, p := range l.Peers() {
			r.Peers = append(r.Peers, peerMessage(p))
		}
	}
	return r, nil
}

func peerMessage(p Peer) *stagepb.Peer {
	m := &stagepb.Peer{Address: p.Address.String(), Name: p.Name, Up: p.Up, Marks: p.Marks, Flows: p.Flows, Replayed: p.Replayed}
	if !p.Heard.IsZero() {
		m.Heard = p.Heard.Unix()
	}
	return m
}

func (s *server) Command(r *stagepb.CommandRequest, stream stagepb.Stage_CommandServer) error {
	st, err := s.started()
	if err != nil {
		return err
	}
	if r.Name == tapCommand {
		return st.tap(stream.Context(), Command{Args: r.Args, JSON: r.Json}, commandOutput{stream})
	}
	c, ok := st.plugin.(Commander)
	if !ok {
		return status.Error(codes.Unimplemented, "this stage has no commands")
	}
	out := commandOutput{stream}
	err = c.Command(stream.Context(), Command{Name: r.Name, Args: r.Args, JSON: r.Json}, out)
	if errors.Is(err, ErrUnreached) {
		return status.Error(codes.FailedPrecondition, err.Error())
	}
	return err
}

// commandOutput streams what a command writes in pieces that gRPC takes.
type commandOutput struct {
	stream stagepb.Stage_CommandServer
}

const maxOutput = 1 << 20

func (o commandOutput) Write(p []byte) (n int, err error) {
	for n < len(p) {
		piece := p[n:min(n+maxOutput, len(p))]
		if err := o.stream.Send(&stagepb.CommandOutput{Data: piece}); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

func (s *server) Signals(_ *stagepb.Empty, stream stagepb.Stage_SignalsServer) error {
	for {
		for _, signal := range s.host.take() {
			if err := stream.Send(signal); err != nil {
				return err
			}
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-s.host.wake:
		}
	}
}
