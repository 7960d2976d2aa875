package sinkmulticast

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
	"github.com/sluice-project/sluice/internal/testbed"
)

const patience = 20 * time.Second

var (
	group4 = netip.MustParseAddr("225.0.0.50")
	nodeA4 = netip.MustParsePrefix("192.168.171.1/24")
	nodeB4 = netip.MustParsePrefix("192.168.171.2/24")
	nodeA6 = netip.MustParsePrefix("fd71:99::1/64")
	nodeB6 = netip.MustParsePrefix("fd71:99::2/64")
	local6 = netip.MustParsePrefix("fe80::a/64") // of node A, link-local
)

// A host records what the stage tells the runner.
type host struct {
	mu      sync.Mutex
	signals []plugin.Signal
	reports []plugin.Report
}

func (h *host) Start() plugin.Start  { return plugin.Start{Node: "fw1", Stage: "local.sink.multicast"} }
func (h *host) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (h *host) Signal(s plugin.Signal, _ string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signals = append(h.signals, s)
}

func (h *host) Done(r plugin.Report) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reports = append(h.reports, r)
}

func (h *host) signalled(s plugin.Signal) func() error {
	return testbed.Holds(func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return slices.Contains(h.signals, s)
	})
}

// A bench is a sink on one end of a cable and a receiver on the other.
type bench struct {
	t        *testing.T
	a, b     *testbed.Namespace
	sink     *synclink.Transmitter
	host     *host
	receiver *net.UDPConn // nil unless asked for
	decoder  notrack.Decoder
	tracker  notrack.Tracker
	pending  []notrack.Message
}

func newBench(t *testing.T, config string, listen bool) *bench {
	t.Helper()
	h := &bench{t: t, host: &host{}, a: testbed.MustNamespace(t, "a"), b: testbed.MustNamespace(t, "b")}
	if err := testbed.Cable(h.a, testbed.SyncLink, h.b, testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(h.a.AddAddr(testbed.SyncLink, nodeA4, nodeA6, local6), h.b.AddAddr(testbed.SyncLink, nodeB4, nodeB6))
	if err != nil {
		t.Fatal(err)
	}
	c := configure(t, config)
	if listen {
		h.listen(c.Group)
	}
	built, err := c.Build()
	if err != nil {
		t.Fatal(err)
	}
	h.sink = built.(*synclink.Transmitter)
	h.sink.Inside = h.a.Do
	if err := h.a.Do(func() error { return h.sink.Open(t.Context(), h.host) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.sink.Close() })
	return h
}

// configure decodes a block as the runner hands it over.
func configure(t *testing.T, config string) *Config {
	t.Helper()
	c := Definition.Config().(*Config)
	if d := plugin.Decode([]byte(config), c); len(d) > 0 {
		t.Fatal(d)
	}
	return c
}

func (h *bench) listen(group netip.Addr) {
	network := "udp4"
	if group.Is6() {
		network = "udp6"
	}
	err := h.b.Do(func() error {
		device, err := net.InterfaceByName(testbed.SyncLink)
		if err == nil {
			h.receiver, err = net.ListenMulticastUDP(network, device, &net.UDPAddr{IP: group.AsSlice(), Port: notrack.DefaultPort})
		}
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { h.receiver.Close() })
}

// datagram returns the next datagram.
func (h *bench) datagram() ([]byte, netip.AddrPort) {
	h.t.Helper()
	p := make([]byte, 1<<16)
	h.receiver.SetReadDeadline(time.Now().Add(patience))
	n, from, err := h.receiver.ReadFromUDPAddrPort(p)
	if err != nil {
		h.t.Fatal(err)
	}
	return p[:n], from
}

// next returns the next message that is of one of the kinds. None may be
// missing before it.
func (h *bench) next(kinds ...notrack.Kind) notrack.Message {
	h.t.Helper()
	for {
		for len(h.pending) > 0 {
			m := h.pending[0]
			h.pending = h.pending[1:]
			if slices.Contains(kinds, m.Kind) {
				return m
			}
		}
		p, _ := h.datagram()
		h.decoder.Reset(p, &h.tracker)
		for m := (notrack.Message{}); h.decoder.Next(&m); {
			m.Event.Tail = slices.Clone(m.Event.Tail)
			h.pending = append(h.pending, m)
		}
		if h.tracker.Lost+h.tracker.Before+h.decoder.Counters.Malformed > 0 {
			h.t.Fatalf("%+v, %+v", h.tracker, h.decoder.Counters)
		}
	}
}

// flowOf returns the flow i of a series.
func flowOf(i int) flow.Event {
	e := flow.Event{Kind: flow.Update, Flow: flow.Flow{
		Present: flow.HasReply | flow.HasStatus | flow.HasState | flow.HasTimeout,
		Family:  flow.IPv4, Protocol: flow.TCP, State: 3, Timeout: 600,
		Status: flow.Confirmed | flow.SeenReply | flow.Assured,
	}}
	e.Original.Source, _ = flow.Bytes(netip.MustParseAddr("10.0.0.1"))
	e.Original.Destination, _ = flow.Bytes(netip.MustParseAddr("10.0.0.2"))
	e.Original.SourcePort, e.Original.DestinationPort = uint16(1024+i), 443
	e.Reply = e.Original.Inverted(flow.TCP)
	return e
}

// batch makes a batch of flows and marks.
func batch(t *testing.T, h flow.Header, events ...flow.Event) *flow.Batch {
	t.Helper()
	var b flow.Builder
	b.Reset(h)
	for i := range events {
		if !b.Append(&events[i]) {
			t.Fatal("batch is full")
		}
	}
	decoded, err := flow.DecodeBatch(slices.Clone(b.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	return &decoded
}

func flowsFrom(from, to int) (events []flow.Event) {
	for i := from; i < to; i++ {
		events = append(events, flowOf(i))
	}
	return events
}

func (h *bench) write(b *flow.Batch) {
	h.t.Helper()
	if err := h.sink.Write(b); err != nil {
		h.t.Fatal(err)
	}
}

func (h *bench) statistic(name string) uint64 {
	for _, s := range h.sink.Statistics() {
		if s.Name == name {
			return s.Value
		}
	}
	h.t.Fatalf("no statistic %s", name)
	return 0
}

const (
	config4 = `{"group":"225.0.0.50","interface":"sync","address":"192.168.171.1"}`
	config6 = `{"group":"ff15::50","interface":"sync"}`
)

// TestConntrackdReceives sends to a real conntrackd and reads its cache.
func TestConntrackdReceives(t *testing.T) {
	for _, tt := range []struct {
		config string
		peer   netip.Addr
	}{{config4, nodeB4.Addr()}, {config6, nodeB6.Addr()}} {
		t.Run(tt.peer.String(), func(t *testing.T) {
			testbed.Require(t, testbed.Conntrackd)
			h := newBench(t, tt.config, false)
			if err := h.b.Track(); err != nil {
				t.Fatal(err)
			}
			d := testbed.MustDaemon(t, h.b, testbed.ConntrackdConfig{Address: tt.peer, CommitTimeout: 180})
			gre := flowOf(2000)
			gre.Protocol, gre.State, gre.Present = flow.GRE, 0, flow.HasReply|flow.HasStatus
			gre.Original.DestinationPort = 99
			gre.Reply = gre.Original.Inverted(flow.GRE)
			begin := flow.Event{Kind: flow.SyncBegin}
			end := flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Count: 501}}
			h.write(batch(t, flow.Header{Replay: 7}, append(append([]flow.Event{begin}, flowsFrom(0, 500)...), gre, end)...))
			testbed.Eventually(t, patience, func() error {
				table, err := d.External()
				if err == nil && len(table) != 501 {
					err = fmt.Errorf("%d flows", len(table))
				}
				return err
			})
			destroy := flowOf(3)
			destroy.Kind = flow.Destroy
			h.write(batch(t, flow.Header{}, destroy))
			testbed.Eventually(t, patience, func() error {
				table, err := d.External()
				if err == nil && len(table) != 500 {
					err = fmt.Errorf("%d flows", len(table))
				}
				return err
			})
			for _, words := range []string{"Malformed messages", "Packets lost", "Wrong protocol version"} {
				if n, err := d.Counter("network", words); err != nil || n != 0 {
					t.Errorf("%s: %d, %v", words, n, err)
				}
			}
		})
	}
}

func TestDatagrams(t *testing.T) {
	for _, tt := range []struct {
		config string
		from   netip.Addr
		room   int
	}{{config4, nodeA4.Addr(), 1472}, {config6, nodeA6.Addr(), 1452}} {
		t.Run(tt.from.String(), func(t *testing.T) {
			h := newBench(t, tt.config, true)
			h.next(notrack.Greeting)
			h.write(batch(t, flow.Header{}, flowsFrom(0, 100)...))
			flows := 0
			for flows < 100 {
				p, from := h.datagram()
				if from.Addr() != tt.from {
					t.Errorf("from %v, want %v", from, tt.from)
				}
				h.decoder.Reset(p, &h.tracker)
				n := 0
				for m := (notrack.Message{}); h.decoder.Next(&m); {
					if m.Kind == notrack.Flow {
						n++
					}
				}
				flows += n
				if full := (tt.room - 1) / 60; n > full || n < full && n > 0 && flows < 100 {
					t.Errorf("%d flows in a datagram, want %d", n, full)
				}
			}
		})
	}
}

// TestAlive waits for signs of life; the node's name came first.
func TestAlive(t *testing.T) {
	h := newBench(t, config4, true)
	if m := h.next(notrack.Greeting); string(m.Hello.Name) != "fw1" {
		t.Errorf("name %q", m.Hello.Name)
	}
	begin := time.Now()
	h.next(notrack.Alive)
	h.next(notrack.Alive)
	if took := time.Since(begin); took < time.Second {
		t.Errorf("two signs of life within %v", took)
	}
}

func TestReplay(t *testing.T) {
	begin := flow.Event{Kind: flow.SyncBegin, Sync: flow.Sync{Flags: flow.SyncQuiet}}
	end := func(n uint64) flow.Event {
		return flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Flags: flow.SyncQuiet, Count: n}}
	}
	zoned := flowOf(1)
	zoned.Zone = 3
	for _, tt := range []struct {
		name   string
		config string
		events []flow.Event
		sent   uint64
		failed bool
	}{
		{"whole", config4, []flow.Event{begin, flowOf(1), flowOf(2), end(2)}, 2, false},
		{"empty", config4, []flow.Event{begin, end(0)}, 0, false},
		{"a flow that the peers can't know", `{"group":"225.0.0.50","interface":"sync","peer_version":"1.4.6"}`,
			[]flow.Event{begin, zoned, flowOf(2), end(2)}, 1, false},
		{"records were lost", config4, []flow.Event{begin, flowOf(1), end(2)}, 0, true},
		{"begin was lost", config4, []flow.Event{flowOf(1), end(1)}, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newBench(t, tt.config, true)
			h.write(batch(t, flow.Header{Replay: 42}, tt.events...))
			h.write(batch(t, flow.Header{}, flowOf(9))) // live, behind it
			var marks []flow.Event
			replayed := uint64(0)
			for m := h.next(notrack.Flow, notrack.Mark); m.Kind == notrack.Mark || m.Replay != 0; m = h.next(notrack.Flow, notrack.Mark) {
				if m.Replay != 42 {
					t.Errorf("replay %d, want 42", m.Replay)
				}
				if m.Kind == notrack.Mark {
					marks = append(marks, m.Event)
				} else {
					replayed++
				}
			}
			r := h.host.reports[0]
			if len(h.host.reports) != 1 || r.Replay != 42 || (r.Failed != "") != tt.failed {
				t.Errorf("reports %+v", h.host.reports)
			}
			last := marks[max(0, len(marks)-1):]
			ended := len(last) == 1 && last[0].Kind == flow.SyncEnd
			if ended == tt.failed {
				t.Errorf("marks %+v", marks)
			}
			if !tt.failed && (last[0].Sync != flow.Sync{Flags: flow.SyncQuiet, Count: tt.sent} || replayed != tt.sent || r.Counts[0].Value != tt.sent) {
				t.Errorf("end %+v, %d replayed, %+v", last[0].Sync, replayed, r.Counts)
			}
		})
	}
}

func TestRequestResync(t *testing.T) {
	h := newBench(t, config4, true)
	var out bytes.Buffer
	if err := h.sink.Command(t.Context(), plugin.Command{Name: "request-resync"}, &out); err != nil || out.Len() == 0 {
		t.Fatal(err, out.String())
	}
	if m := h.next(notrack.Asks); m.Resync.Asks != nodeA4.Addr() || m.Resync.Asked.IsValid() {
		t.Errorf("%+v", m.Resync)
	}
	if err := h.sink.Command(t.Context(), plugin.Command{Name: "dance"}, &out); err == nil {
		t.Error("an unknown command is no error")
	}
}

// TestLinkDown takes the interface down and up again.
func TestLinkDown(t *testing.T) {
	h := newBench(t, config4, true)
	h.next(notrack.Greeting)
	if err := h.a.SetLink(testbed.SyncLink, false); err != nil {
		t.Fatal(err)
	}
	h.write(batch(t, flow.Header{}, flowOf(1)))
	if h.statistic("datagrams_lost") == 0 || h.statistic("send_unreachable") == 0 {
		t.Error("nothing lost")
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkDown))
	begin, end := flow.Event{Kind: flow.SyncBegin}, flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Count: 1}}
	h.write(batch(t, flow.Header{Replay: 1}, begin, flowOf(1), end))
	if r := h.host.reports[0]; r.Unreached == "" {
		t.Errorf("%+v", r)
	}
	if err := h.sink.Command(t.Context(), plugin.Command{Name: synclink.RequestResync}, &bytes.Buffer{}); !errors.Is(err, plugin.ErrUnreached) {
		t.Errorf("asked nobody: %v", err)
	}
	if err := h.a.SetLink(testbed.SyncLink, true); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkUp))
}

// TestCarrierLost takes down the far end: the kernel goes on taking datagrams.
func TestCarrierLost(t *testing.T) {
	h := newBench(t, config4, true)
	if err := h.b.SetLink(testbed.SyncLink, false); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkDown))
	if err := h.b.SetLink(testbed.SyncLink, true); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkUp))
}

// TestLinkMadeAnew gives the interface another index.
func TestLinkMadeAnew(t *testing.T) {
	h := newBench(t, config4, false)
	if _, err := h.a.Run("ip", "link", "delete", testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkDown))
	if err := testbed.Cable(h.a, "other", h.b, "other"); err != nil { // takes the next index
		t.Fatal(err)
	}
	if err := testbed.Cable(h.a, testbed.SyncLink, h.b, testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.a.AddAddr(testbed.SyncLink, nodeA4), h.b.AddAddr(testbed.SyncLink, nodeB4)); err != nil {
		t.Fatal(err)
	}
	h.listen(group4)
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkUp))
	h.next(notrack.Alive)
}

// TestSmallerMTU shrinks the link below what the sink knows of: nothing is lost.
func TestSmallerMTU(t *testing.T) {
	h := newBench(t, config4, true)
	h.next(notrack.Greeting)
	for _, n := range []*testbed.Namespace{h.a, h.b} {
		if _, err := n.Run("ip", "link", "set", testbed.SyncLink, "mtu", "1000"); err != nil {
			t.Fatal(err)
		}
	}
	h.write(batch(t, flow.Header{}, flowsFrom(0, 200)...))
	for range 200 {
		h.next(notrack.Flow)
	}
	h.write(batch(t, flow.Header{}, flowsFrom(0, 200)...))
	for flows := 0; flows < 200; {
		p, _ := h.datagram()
		if len(p) >= 1000-28 {
			t.Errorf("a datagram of %d bytes", len(p))
		}
		h.decoder.Reset(p, &h.tracker)
		for m := (notrack.Message{}); h.decoder.Next(&m); {
			if m.Kind == notrack.Flow {
				flows++
			}
		}
	}
	if n := h.statistic("datagrams_lost"); n != 0 {
		t.Errorf("%d datagrams lost", n)
	}
	if n := h.statistic("datagrams_fragmented"); n > 1 {
		t.Errorf("%d datagrams in fragments", n)
	}
}

func TestSocketOptions(t *testing.T) {
	h := newBench(t, `{"group":"225.0.0.50","interface":"sync","checksum":false,"send_buffer":"1MiB","ttl":4}`, false)
	fd := h.sink.Links[0].Outlet.(*synclink.DatagramOutlet).Sockets[0].FD()
	for _, tt := range []struct {
		name          string
		level, option int
		want          int
	}{
		{"no checksum", unix.SOL_SOCKET, unix.SO_NO_CHECK, 1},
		{"send buffer", unix.SOL_SOCKET, unix.SO_SNDBUF, 1 << 20},
		{"ttl", unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 4},
		{"loop", unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0},
	} {
		got, err := unix.GetsockoptInt(fd, tt.level, tt.option)
		if err != nil || got != tt.want {
			t.Errorf("%s: %d, want %d, %v", tt.name, got, tt.want, err)
		}
	}
	name, err := unix.Getsockname(fd)
	if own, ok := name.(*unix.SockaddrInet4); !ok || netip.AddrFrom4(own.Addr) != nodeA4.Addr() { // the interface's first
		t.Errorf("address %v, %v", name, err)
	}
}

func TestConfig(t *testing.T) {
	for config, path := range map[string]string{
		`{"group":"10.0.0.1","interface":"eth0"}`:                           "[group]",
		`{"group":"225.0.0.50","interface":""}`:                             "[interface]",
		`{"group":"225.0.0.50","interface":"a-very-long-name"}`:             "[interface]",
		`{"group":"225.0.0.50","interface":"eth0","port":0}`:                "[port]",
		`{"group":"225.0.0.50","interface":"eth0","address":"fd00::1"}`:     "[address]",
		`{"group":"225.0.0.50","interface":"eth0","send_buffer":"4GiB"}`:    "[send_buffer]",
		`{"group":"225.0.0.50","interface":"eth0","peer_version":"1.4.10"}`: "[peer_version]",
		`{"group":"225.0.0.50","interface":"eth0","peer_version":"1.4.6"}`:  "",
		`{"group":"ff15::50","interface":"eth0","address":"fe80::1"}`:       "",
		`{"group":"ff15::50","interface":"eth0","address":"fe80::1%eth0"}`:  "",
		`{"group":"ff15::50","interface":"eth0","address":"fe80::1%eth1"}`:  "[address]",
		`{"group":"ff12::50%eth1","interface":"eth0"}`:                      "[group]",
	} {
		d := plugin.Decode([]byte(config), Definition.Config())
		switch {
		case path == "" && len(d) > 0, path != "" && (len(d) != 1 || fmt.Sprint(d[0].Path) != path):
			t.Errorf("%s: %v, want %s", config, d, path)
		}
	}
	if zoned := configure(t, `{"group":"ff12::50%eth0","interface":"eth0"}`).Traits(); zoned.Link != "[ff12::50]:3780@eth0" {
		t.Errorf("%+v", zoned)
	}
	traits := configure(t, config4).Traits()
	if traits.Link != "225.0.0.50:3780@sync" || !slices.Contains(traits.Commands, "request-resync") {
		t.Errorf("%+v", traits)
	}
}
