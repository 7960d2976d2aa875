package sourcenetlink

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
	"github.com/sluice-project/sluice/internal/ctnl"
	"github.com/sluice-project/sluice/internal/testbed"
)

// TestMain is the stage's process when a test starts it as one.
func TestMain(m *testing.M) {
	if os.Getenv(plugin.Handshake.MagicCookieKey) != "" {
		fmt.Fprintln(os.Stderr, plugin.Serve(Definition))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

const wait = 20 * time.Second

// A stage is the plugin at work in a process of its own, as the runner starts
// it, with this test at the other end of its edge.
type stage struct {
	t      testing.TB
	client stagepb.StageClient
	edge   int
	plugin *goplugin.Client

	mu      sync.Mutex
	signals map[string]int
}

// startStage starts the plugin in a namespace.
func startStage(t testing.TB, n *testbed.Namespace, config string, start *stagepb.StartRequest) *stage {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, edge: fds[0], signals: map[string]int{}}
	theirs := os.NewFile(uintptr(fds[1]), "edge")
	cmd := n.Command("/proc/self/exe")
	cmd.Args[len(cmd.Args)-1] = os.Args[0]
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(cmd.Env, "PLUGIN_UNIX_SOCKET_DIR="+t.TempDir()) // its socket stays when it is killed
	s.plugin = goplugin.NewClient(&goplugin.ClientConfig{
		Cmd: cmd, HandshakeConfig: plugin.Handshake, VersionedPlugins: plugin.ClientPlugins(),
		AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC}, Logger: hclog.NewNullLogger(),
		SyncStderr: os.Stderr,
	})
	t.Cleanup(func() {
		s.plugin.Kill()
		unix.Close(s.edge)
	})
	protocol, err := s.plugin.Client()
	if err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	raw, err := protocol.Dispense(plugin.ServiceName)
	if err != nil {
		t.Fatal(err)
	}
	s.client = raw.(stagepb.StageClient)
	s.start(config, start)
	return s
}

func (s *stage) start(config string, start *stagepb.StartRequest) {
	s.t.Helper()
	ctx := context.Background()
	configured, err := s.client.Configure(ctx, &stagepb.Configuration{Json: []byte(config)})
	if err != nil || len(configured.Diagnostics) > 0 {
		s.t.Fatal(configured, err)
	}
	start.Stage, start.Outputs, start.Generation = "test.source.netlink", []uint32{3}, 1
	started, err := s.client.Start(ctx, start)
	if err != nil || started.Error != "" {
		s.t.Fatal(started, err)
	}
	stream, err := s.client.Signals(ctx, &stagepb.Empty{})
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for {
			signal, err := stream.Recv()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.signals[signal.Name]++
			s.mu.Unlock()
		}
	}()
}

// signalled is a condition: the stage raised the signal.
func (s *stage) signalled(name plugin.Signal) func() error {
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.signals[string(name)] == 0 {
			return fmt.Errorf("no signal %s in %v", name, s.signals)
		}
		return nil
	}
}

// An arrival is an event with the header of its batch.
type arrival struct {
	flow.Header
	flow.Event
}

// read returns the events of the next batch, nil at the end of the stream.
func (s *stage) read() (arrivals []arrival) {
	s.t.Helper()
	poll := []unix.PollFd{{Fd: int32(s.edge), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(wait.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		if n == 0 || err != nil {
			s.t.Fatalf("no batch: %v", err)
		}
		break
	}
	buf := make([]byte, flow.MaxBatch+1)
	n, err := unix.Read(s.edge, buf)
	if err != nil {
		s.t.Fatal(err)
	}
	if n == 0 {
		return nil
	}
	b, err := flow.DecodeBatch(buf[:n])
	if err != nil {
		s.t.Fatal(err)
	}
	var e flow.Event
	for c := b.Cursor(); c.Next(&e); {
		arrivals = append(arrivals, arrival{b.Header, e})
	}
	return arrivals
}

// readUntil reads until an event is the last that is wanted, and returns all.
func (s *stage) readUntil(last func(arrival) bool) (all []arrival) {
	s.t.Helper()
	for {
		batch := s.read()
		if batch == nil {
			s.t.Fatalf("the stream ended after %d events", len(all))
		}
		all = append(all, batch...)
		for _, a := range batch {
			if last(a) {
				return all
			}
		}
	}
}

func isEnd(replay uint64) func(arrival) bool {
	return func(a arrival) bool { return a.Kind == flow.SyncEnd && a.Replay == replay }
}

// statistic returns one number of the stage's own.
// beats is how often the source's loop has gone round.
func (s *stage) beats() uint64 {
	s.t.Helper()
	r, err := s.client.Statistics(context.Background(), &stagepb.Empty{})
	if err != nil {
		s.t.Fatal(err)
	}
	return r.Beats
}

func (s *stage) statistic(name string) uint64 {
	s.t.Helper()
	r, err := s.client.Statistics(context.Background(), &stagepb.Empty{})
	if err != nil {
		s.t.Fatal(err)
	}
	for _, one := range r.Own {
		if one.Name == name {
			return one.Value
		}
	}
	s.t.Fatalf("no statistic %q", name)
	return 0
}

func (s *stage) replay(id uint64, flags flow.SyncFlags) {
	s.t.Helper()
	if _, err := s.client.Replay(context.Background(), &stagepb.ReplayRequest{Id: id, Flags: uint32(flags)}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) command(name string) {
	s.t.Helper()
	stream, err := s.client.Command(context.Background(), &stagepb.CommandRequest{Name: name})
	for err == nil {
		_, err = stream.Recv()
	}
	if err != io.EOF {
		s.t.Fatalf("%s: %v", name, err)
	}
}

func mustWriter(t testing.TB, n *testbed.Namespace, port uint32) (w *ctnl.Writer) {
	t.Helper()
	err := n.Do(func() (err error) {
		w, err = ctnl.OpenWriter(ctnl.WriterConfig{Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// testFlow is the i-th of many UDP flows.
func testFlow(i int) *flow.Flow {
	f := &flow.Flow{
		Family: flow.IPv4, Protocol: flow.UDP, Present: flow.HasReply | flow.HasStatus | flow.HasTimeout,
		Status: flow.SeenReply | flow.Assured | flow.Confirmed, Timeout: 600,
	}
	f.Original.Source = [16]byte{10, 1, byte(i >> 16), byte(i >> 8)}
	f.Original.Destination = [16]byte{10, 2, 0, byte(i)}
	f.Original.SourcePort, f.Original.DestinationPort = 1000, 53
	f.Reply = f.Original.Inverted(flow.UDP)
	return f
}

// create makes flows first … first+n-1.
func create(t testing.TB, w *ctnl.Writer, first, n int) {
	t.Helper()
	for i := first; i < first+n; i++ {
		if err := w.Commit(testFlow(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	if c := w.Counts(true); c.Created != uint64(n) {
		t.Fatalf("created %+v", c)
	}
}
