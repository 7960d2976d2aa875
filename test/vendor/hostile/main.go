// Hostile is a plugin of many names, for tests: sluice-filter-NAME does what NAME
// says and what no plugin should. sluice-source-ticker, the only honest one, makes
// the events for the others.
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The descriptors of a filter's edges, which no honest plugin knows.
const (
	inputFD  = 4
	outputFD = 5
)

func main() {
	name := strings.TrimPrefix(filepath.Base(os.Args[0]), "sluice-")
	kind, typ, _ := strings.Cut(name, "-")
	if kind == "source" {
		fail(plugin.Serve(plugin.Definition{Kind: plugin.KindSource, Type: typ, Summary: "Makes events.", Config: func() any { return &ticker{} }}))
	}
	before(typ)
	fail(plugin.Serve(plugin.Definition{Kind: plugin.KindFilter, Type: typ, Summary: "Is hostile.", Config: func() any { return config(typ) }}))
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// before does what goes wrong before the first call.
func before(typ string) {
	switch typ {
	case "silent":
		fail(fmt.Errorf("the licence has expired"))
	case "ancient": // of a version that is no more
		fmt.Fprintln(os.Stderr, "made in the year of version 0")
		fmt.Println("1|0|unix|/nonexistent|grpc")
		time.Sleep(time.Minute)
	case "modern": // of one that is not yet
		fmt.Fprintln(os.Stderr, "made in the year of version 7")
		fmt.Println("1|7|unix|/nonexistent|grpc")
		time.Sleep(time.Minute)
	case "foreign":
		serveForeign()
	}
}

// foreign is a plugin that reads batches of another version.
type foreign struct {
	goplugin.NetRPCUnsupportedPlugin
	stagepb.UnimplementedStageServer
}

func (foreign) Describe(context.Context, *stagepb.DescribeRequest) (*stagepb.Description, error) {
	fmt.Fprintln(os.NewFile(2, "stderr"), "batches of version 9, as usual") // go-plugin has replaced os.Stderr
	return &stagepb.Description{Kind: "filter", Type: "foreign", Summary: "x", Schema: &stagepb.Schema{}, BatchVersion: 9}, nil
}

func (f foreign) GRPCServer(_ *goplugin.GRPCBroker, s *grpc.Server) error {
	stagepb.RegisterStageServer(s, f)
	return nil
}

func (foreign) GRPCClient(context.Context, *goplugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func serveForeign() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: plugin.Handshake, Plugins: goplugin.PluginSet{plugin.ServiceName: foreign{}}, GRPCServer: goplugin.DefaultGRPCServer,
		Logger: hclog.NewNullLogger(),
	})
}

// hostile is a filter.
type hostile struct {
	typ   string
	host  plugin.Host
	seen  int
	hoard [][]byte
}

// A honest configuration is described first; what is configured is another.
type promised struct {
	Level uint32 `hcl:"level,optional" doc:"A number that it will not take."`
	hostile
}

var configs int

var started = time.Now()

func config(typ string) any {
	configs++
	if typ == "lies" && configs == 1 {
		return &promised{hostile: hostile{typ: typ}}
	}
	return &hostile{typ: typ}
}

func (h *hostile) Open(_ context.Context, host plugin.Host) error {
	h.host = host
	switch h.typ {
	case "floods-log":
		go func() {
			for range 50_000 {
				fmt.Fprintln(os.Stderr, "look at me")
			}
		}()
	case "floods-data":
		go floodData()
	case "deaf": // it has a socket to read from, and it is not the one that it was given
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		return unix.Dup2(pair[0], inputFD)
	}
	return nil
}

// floodData sends a million events that nobody made.
func floodData() {
	var b flow.Builder
	for n := uint32(0); n < 1_000_000; {
		b.Reset(flow.Header{Generation: 1})
		for e := event(n); b.Append(&e); e = event(n) {
			n++
		}
		_ = unix.Send(outputFD, b.Bytes(), 0)
		time.Sleep(time.Millisecond)
	}
}

func (h *hostile) Filter(*flow.Event) plugin.Verdict {
	h.seen++
	switch {
	case h.typ == "hangs" && h.seen > 3:
		select {}
	case h.typ == "frozen" && time.Since(started) > time.Second/2: // its start has been answered
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	case h.typ == "crashes" && h.seen > 3:
		panic("no memory of what happened")
	case h.typ == "malformed":
		_ = unix.Send(outputFD, []byte("this is no batch"), 0)
	case h.typ == "hog": // all the memory that there is
		piece := make([]byte, 4<<20)
		for i := range piece {
			piece[i] = 1
		}
		h.hoard = append(h.hoard, piece)
	case h.typ == "threads": // a bomb of them
		for range 1000 {
			go func() { runtime.LockOSThread(); _ = unix.Nanosleep(&unix.Timespec{Sec: 3600}, nil) }()
		}
	case h.typ == "forks": // a bomb of processes
		fork()
	case h.typ == "greedy" && len(h.hoard) < 1<<16: // 256 MiB: enough to be seen, and no more
		piece := make([]byte, 4096)
		piece[0] = 1
		h.hoard = append(h.hoard, piece)
	}
	return plugin.Pass
}

// fork makes a process that ends at once, where it can.
func fork() {
	switch pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0); {
	case errno != 0:
		panic(fmt.Sprintf("no fork: %v", errno))
	case pid == 0:
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// ticker makes an event each millisecond.
type ticker struct{}

func event(n uint32) (e flow.Event) {
	e.Kind, e.Family, e.Protocol = flow.Update, flow.IPv4, flow.UDP
	binary.BigEndian.PutUint32(e.Original.Source[:], 10<<24|n&0xffff)
	e.Original.Destination = [16]byte{192, 0, 2, 1}
	e.Original.DestinationPort = 443
	return e
}

func (ticker) Run(ctx context.Context, out *plugin.Output) error {
	var b flow.Builder
	for n := uint32(0); ctx.Err() == nil; n++ {
		out.Beat()
		b.Reset(flow.Header{})
		e := event(n % 100)
		b.Append(&e)
		if err := out.Send(&b); err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return nil
}

func (ticker) Replay(ctx context.Context, r plugin.Replay, out *plugin.Output) error {
	var b flow.Builder
	b.Reset(flow.Header{Replay: r.ID, Edge: r.Edge})
	b.Append(&flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: r.Flags}})
	for n := range uint32(100) {
		e := event(n)
		b.Append(&e)
	}
	b.Append(&flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: r.Flags, Count: 100}})
	if err := out.AwaitRoom(ctx, r.Edge); err != nil {
		return err
	}
	return out.Send(&b)
}
