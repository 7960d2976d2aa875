package runner

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// The test binary is also every plugin of these tests, as real processes.
var testPlugins = []plugin.Definition{
	{Kind: plugin.KindSource, Type: "numbers", Config: func() any { return &numbers{Flows: 10} }},
	{Kind: plugin.KindFilter, Type: "even", Config: func() any { return &even{} }},
	{Kind: plugin.KindFilter, Type: "nasty", Config: func() any { return &nasty{} }},
	{Kind: plugin.KindCache, Type: "set", Config: func() any { return &set{} }},
	{Kind: plugin.KindSink, Type: "lines", Config: func() any { return &lines{} }},
	{Kind: plugin.KindSink, Type: "only", Config: func() any { return &only{} }},
}

func bundledNames() (names []string) {
	for _, d := range testPlugins {
		names = append(names, string(d.Kind)+"-"+d.Type)
	}
	return names
}

func TestMain(m *testing.M) {
	confine.Main()
	if filepath.Base(os.Args[0]) == "sluice-filter-hostile" {
		fmt.Fprintln(os.Stderr, plugin.Serve(hostileDefinition))
		os.Exit(1)
	}
	if len(os.Args) > 2 && os.Args[1] == "plugin-exec" {
		for _, d := range testPlugins {
			if string(d.Kind)+"-"+d.Type == os.Args[2] {
				fmt.Fprintln(os.Stderr, plugin.Serve(d))
			}
		}
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "run-until-killed" {
		runUntilKilled()
		os.Exit(1)
	}
	if len(os.Args) > 1 && os.Args[1] == "run-scheduled" {
		runScheduled()
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// numbered is a flow whose key holds a number.
func numbered(n uint32) (e flow.Event) {
	e.Kind, e.Family, e.Protocol = flow.Update, flow.IPv4, flow.UDP
	binary.BigEndian.PutUint32(e.Original.Source[:], n)
	return e
}

func numberOf(f *flow.Flow) uint32 { return binary.BigEndian.Uint32(f.Original.Source[:]) }

// numbers is a source that has the flows 0 to Flows-1, all the time.
type numbers struct {
	Flows uint32 `hcl:"flows,optional"`
	// Busy sends a live event about each flow in turn, all the time.
	Busy bool `hcl:"busy,optional"`
	// Stall names a file: whoever makes it begins a replay and never ends it.
	Stall string `hcl:"stall,optional"`
	// Beat names a file: until it is there the loop beats, and then it hangs;
	// once.
	Beat string `hcl:"beat,optional"`
	// Once sends a live event about each number below it, once.
	Once uint32 `hcl:"once,optional"`
	// Mark names nothing: it makes a configuration another one.
	Mark string `hcl:"mark,optional"`
	// Told names the file that commands are written to, and claims.
	Told string `hcl:"told,optional"`
}

func (s *numbers) Command(_ context.Context, cmd plugin.Command, _ io.Writer) error {
	return s.tell(cmd.Name)
}

func (s *numbers) tell(what string) error {
	f, err := os.OpenFile(s.Told, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, what)
		f.Close()
	}
	return err
}

func (s *numbers) Run(ctx context.Context, out *plugin.Output) error {
	if s.Beat != "" {
		for ctx.Err() == nil {
			out.Beat()
			time.Sleep(time.Millisecond)
			if os.Remove(s.Beat) == nil {
				select {} // whatever happens
			}
		}
		return nil
	}
	var b flow.Builder
	for n := range s.Once {
		b.Reset(flow.Header{})
		e := numbered(n)
		b.Append(&e)
		if err := out.Send(&b); err != nil {
			return err
		}
	}
	if !s.Busy {
		<-ctx.Done()
		return nil
	}
	for n := uint32(0); ctx.Err() == nil; n++ {
		b.Reset(flow.Header{})
		e := numbered(n % s.Flows)
		b.Append(&e)
		if _, err := out.TrySend(&b); err != nil {
			return err
		}
		time.Sleep(100 * time.Microsecond)
	}
	return nil
}

func (s *numbers) Replay(ctx context.Context, r plugin.Replay, out *plugin.Output) error {
	if s.Stall != "" {
		if f, err := os.OpenFile(s.Stall, os.O_CREATE|os.O_EXCL, 0o600); err == nil {
			f.Close()
			<-ctx.Done()
			return nil // in silence
		}
	}
	if s.Told != "" && r.Flags&flow.SyncClaim != 0 {
		if err := s.tell("claim"); err != nil {
			return err
		}
	}
	all := map[uint32]bool{}
	for n := range s.Flows {
		all[n] = true
	}
	return replayNumbers(ctx, r, out, all)
}

func replayNumbers(ctx context.Context, r plugin.Replay, out *plugin.Output, all map[uint32]bool) error {
	var b flow.Builder
	b.Reset(flow.Header{Replay: r.ID, Edge: r.Edge})
	b.Append(&flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: r.Flags}})
	count := uint64(0)
	for n := range all {
		if r.Flags&flow.SyncKeep != 0 {
			break
		}
		e := numbered(n)
		b.Append(&e)
		count++
	}
	b.Append(&flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: r.Flags, Count: count}})
	if err := out.AwaitRoom(ctx, r.Edge); err != nil {
		return err
	}
	return out.Send(&b)
}

// even lets even numbers pass, or odd ones, or all.
type even struct {
	Odd  bool   `hcl:"odd,optional"`
	All  bool   `hcl:"all,optional"`
	Slow bool   `hcl:"slow,optional"`
	Mark string `hcl:"mark,optional"`
}

func (f *even) Filter(e *flow.Event) plugin.Verdict {
	for begin := time.Now(); f.Slow && time.Since(begin) < 20*time.Microsecond; { // so that its input is never empty
	}
	if !f.All && (numberOf(&e.Flow)%2 == 1) != f.Odd {
		return plugin.Drop
	}
	return plugin.Pass
}

// nasty passes everything and does what plugins should not.
type nasty struct {
	Does string `hcl:"does,optional"`
	Path string `hcl:"path,optional"`
}

func (n *nasty) Open(_ context.Context, host plugin.Host) error {
	switch n.Does {
	case "fail":
		return fmt.Errorf("the moon is in the wrong phase")
	case "panic-log": // makes go-plugin's log parser panic
		fmt.Fprintln(os.NewFile(2, "stderr"), `{"@message":42,"@level":[],"@timestamp":{}}`)
		fmt.Fprintln(os.NewFile(2, "stderr"), "\x1b[31mred\x1b[0m")
	case "flood":
		stderr := os.NewFile(2, "stderr")
		go func() {
			for {
				fmt.Fprintln(stderr, strings.Repeat("x", 100_000))
			}
		}()
	case "grandchild": // it holds our standard error open when we are gone
		child := exec.Command("sleep", "1000")
		child.Stdout, child.Stderr = os.NewFile(1, "stdout"), os.NewFile(2, "stderr")
		return errors.Join(child.Start(), os.WriteFile(n.Path, []byte(strconv.Itoa(child.Process.Pid)), 0o600))
	case "big-signal":
		host.Signal(plugin.SignalPeerUp, strings.Repeat("z", 8<<20))
	case "stdout":
		fmt.Println(strings.Repeat("y", 1<<20))
		fmt.Fprintln(os.NewFile(1, "stdout"), strings.Repeat("y", 1<<20))
	}
	return nil
}

func (n *nasty) Filter(*flow.Event) plugin.Verdict { return plugin.Pass }

// set is a cache that holds numbers and sweeps what a replay does not name.
type set struct {
	Hold bool `hcl:"hold,optional"`
	// Endless: the answer to flush has no end.
	Endless bool   `hcl:"endless,optional"`
	Mark    string `hcl:"mark,optional"`

	mu    sync.Mutex
	host  plugin.Host
	have  map[uint32]bool
	named map[uint32]bool
}

func (c *set) Traits() plugin.Traits {
	return plugin.Traits{Hold: c.Hold, Commands: []string{"dump", "flush"}}
}

func (c *set) Open(_ context.Context, host plugin.Host) error {
	c.host, c.have = host, map[uint32]bool{}
	return nil
}

func (c *set) Apply(b *flow.Batch, out *plugin.Output) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var e flow.Event
	for cur := b.Cursor(); cur.Next(&e); {
		switch e.Kind {
		case flow.SyncBegin:
			c.named = map[uint32]bool{}
		case flow.SyncEnd:
			if e.Sync.Flags&flow.SyncKeep == 0 && uint64(len(c.named)) == e.Sync.Count {
				c.have = c.named
			}
			c.host.Done(plugin.Report{Replay: b.Replay, Counts: []plugin.Count{{Name: "flows", Value: e.Sync.Count}}})
		default:
			c.have[numberOf(&e.Flow)] = true
			if b.Replay != 0 {
				c.named[numberOf(&e.Flow)] = true
			}
		}
	}
	return nil
}

func (c *set) Replay(ctx context.Context, r plugin.Replay, out *plugin.Output) error {
	c.mu.Lock()
	all := map[uint32]bool{}
	for n := range c.have {
		all[n] = true
	}
	c.mu.Unlock()
	return replayNumbers(ctx, r, out, all)
}

func (c *set) Command(_ context.Context, cmd plugin.Command, out io.Writer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch cmd.Name {
	case "dump":
		if c.host.Start().EveryFlow {
			fmt.Fprintln(out, "every flow")
		}
		for n := range c.have {
			fmt.Fprintln(out, n)
		}
	case "flush":
		for c.Endless {
			if _, err := fmt.Fprintln(out, "still flushing"); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, `{"flushed":%d}`, len(c.have))
		clear(c.have)
	}
	return nil
}

// lines is a sink that writes a line an event into a file.
type lines struct {
	Path string `hcl:"path"`
	Mark string `hcl:"mark,optional"`
	file *os.File
}

// only is lines, and listens at a path, which one process can do at a time.
type only struct {
	lines
	Path string `hcl:"path"`
	At   string `hcl:"at"`
}

func (s *only) Traits() plugin.Traits { return plugin.Traits{Exclusive: true} }

func (s *only) Open(ctx context.Context, host plugin.Host) error {
	if _, err := net.Listen("unix", "@"+s.At); err != nil { // it ends with the process
		return err
	}
	s.lines.Path = s.Path
	return s.lines.Open(ctx, host)
}

func (s *lines) Open(context.Context, plugin.Host) (err error) {
	s.file, err = os.OpenFile(s.Path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	return err
}

func (s *lines) Write(b *flow.Batch) error {
	var e flow.Event
	for c := b.Cursor(); c.Next(&e); {
		name := map[flow.Kind]string{flow.SyncBegin: "begin", flow.SyncEnd: "end"}[e.Kind]
		if e.Kind == flow.SyncBegin && e.Sync.Flags&flow.SyncClaim != 0 {
			name = "begin-claim"
		}
		if name == "" {
			name = fmt.Sprint(numberOf(&e.Flow))
		}
		fmt.Fprintln(s.file, name)
	}
	return nil
}
