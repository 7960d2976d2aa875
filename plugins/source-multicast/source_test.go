package sourcemulticast

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
	"github.com/sluice-project/sluice/internal/testbed"
)

const patience = 20 * time.Second

var (
	nodeA4 = netip.MustParsePrefix("192.168.171.1/24") // the peer that sends
	alias4 = netip.MustParsePrefix("192.168.171.9/24") // another address of it
	nodeB4 = netip.MustParsePrefix("192.168.171.2/24") // the source
	nodeA6 = netip.MustParsePrefix("fd71:99::1/64")
	nodeB6 = netip.MustParsePrefix("fd71:99::2/64")
)

const (
	config4 = `{"group":"225.0.0.50","interface":"sync"}`
	config6 = `{"group":"ff15::50","interface":"sync"}`
)

// A host records what the stage tells the runner.
type host struct {
	mu      sync.Mutex
	signals []string
}

func (h *host) Start() plugin.Start {
	return plugin.Start{Node: "fw2", Stage: "peers.source.multicast"}
}
func (h *host) Logger() *slog.Logger { return slog.New(slog.DiscardHandler) }
func (h *host) Done(plugin.Report)   {}

func (h *host) Signal(s plugin.Signal, detail string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.signals = append(h.signals, fmt.Sprintf("%s: %s", s, detail))
}

func (h *host) has(signal string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.signals, func(s string) bool { return strings.HasPrefix(s, signal) })
}

func (h *host) signalled(s plugin.Signal) func() error {
	return func() error {
		if h.has(string(s)) {
			return nil
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		return fmt.Errorf("no %s among %q", s, h.signals)
	}
}

// A sent is a batch that the source sent, taken apart.
type sent struct {
	header flow.Header
	events []flow.Event
}

// A bench is a source on one end of a cable. It is the source's output too.
type bench struct {
	t      *testing.T
	a, b   *testbed.Namespace
	source *synclink.Receiver
	host   *host
	stop   func()

	mu      sync.Mutex
	batches []sent
	block   chan struct{} // if not nil, Send waits until it is closed
}

func (h *bench) Send(b *flow.Builder) error {
	h.mu.Lock()
	block := h.block
	h.mu.Unlock()
	if block != nil {
		<-block
	}
	batch, err := flow.DecodeBatch(slices.Clone(b.Bytes()))
	if err != nil {
		return err
	}
	s := sent{header: batch.Header}
	s.header.Time = 0
	var e flow.Event
	for c := batch.Cursor(); c.Next(&e); {
		s.events = append(s.events, e)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.batches = append(h.batches, s)
	return nil
}

func (h *bench) all() []sent {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.batches)
}

func (h *bench) flows() (n int) {
	for _, b := range h.all() {
		for i := range b.events {
			if !b.events[i].IsMark() {
				n++
			}
		}
	}
	return n
}

func (h *bench) awaitFlows(want int) {
	h.t.Helper()
	testbed.Eventually(h.t, patience, func() error {
		if n := h.flows(); n != want {
			return fmt.Errorf("%d flows, want %d: %v", n, want, h.source.Statistics())
		}
		return nil
	})
}

func (h *bench) statistic(name string) (sum uint64) {
	h.t.Helper()
	found := false
	for _, s := range h.source.Statistics() {
		if s.Name == name {
			sum += s.Value
			found = true
		}
	}
	if !found {
		h.t.Fatalf("no statistic %s", name)
	}
	return sum
}

func (h *bench) awaitStatistic(name string, want uint64) {
	h.t.Helper()
	testbed.Eventually(h.t, patience, func() error {
		if n := h.statistic(name); n != want {
			return fmt.Errorf("%s is %d, want %d", name, n, want)
		}
		return nil
	})
}

func newBench(t *testing.T, config string) *bench {
	t.Helper()
	h := &bench{t: t, host: &host{}, a: testbed.MustNamespace(t, "a"), b: testbed.MustNamespace(t, "b")}
	h.cable()
	built, err := configure(t, config).Build()
	if err != nil {
		t.Fatal(err)
	}
	h.source = built.(*synclink.Receiver)
	h.source.Inside = h.b.Do
	if err := h.b.Do(func() error { return h.source.Open(t.Context(), h.host) }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.source.RunInto(ctx, h) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		h.source.Close()
	})
	t.Cleanup(h.stop)
	return h
}

func (h *bench) cable() {
	h.t.Helper()
	err := testbed.Cable(h.a, testbed.SyncLink, h.b, testbed.SyncLink)
	if err == nil {
		err = errors.Join(h.a.AddAddr(testbed.SyncLink, nodeA4, alias4, nodeA6), h.b.AddAddr(testbed.SyncLink, nodeB4, nodeB6))
	}
	if err != nil {
		h.t.Fatal(err)
	}
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

// A node is a peer that sends what the test wants.
type node struct {
	t       *testing.T
	conn    *net.UDPConn
	to      *net.UDPAddr
	packer  *notrack.Packer
	encoder *notrack.Encoder
}

// node opens a socket in a namespace, bound to an address of it.
func (h *bench) node(n *testbed.Namespace, from netip.Addr, to string) *node {
	h.t.Helper()
	p := &node{
		t: h.t, to: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)),
		packer:  notrack.NewPacker(1472, notrack.NewSequencer(1000)),
		encoder: notrack.NewEncoder(notrack.Settings{}),
	}
	err := n.Do(func() (err error) {
		p.conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
		if err != nil {
			return err
		}
		device, err := net.InterfaceByName(testbed.SyncLink)
		if err != nil {
			return err
		}
		if from.Is4() {
			return ipv4.NewPacketConn(p.conn).SetMulticastInterface(device)
		}
		return ipv6.NewPacketConn(p.conn).SetMulticastInterface(device)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { p.conn.Close() })
	return p
}

const toGroup = "225.0.0.50:3780"

// send sends messages, in as many datagrams as they need.
func (p *node) send(messages ...[]byte) {
	p.t.Helper()
	for _, m := range messages {
		if !p.packer.Append(m) {
			p.t.Fatal("message too long")
		}
	}
	p.packer.Flush()
	for i := range p.packer.Len() {
		if _, err := p.conn.WriteTo(p.packer.Datagram(i), p.to); err != nil {
			p.t.Fatal(err)
		}
	}
	p.packer.Reset()
}

// skip takes numbers as if messages had been sent and lost.
func (p *node) skip(n int) {
	for range n {
		p.packer.Append(notrack.AppendAlive(nil))
	}
	p.packer.Flush()
	p.packer.Reset()
}

func (p *node) flow(i int) []byte {
	e := flowOf(i)
	m, err := p.encoder.AppendFlow(nil, &e)
	if err != nil {
		p.t.Fatal(err)
	}
	return m
}

func flowOf(i int) flow.Event {
	e := flow.Event{Kind: flow.Update, Flow: flow.Flow{
		Present: flow.HasReply | flow.HasStatus, Family: flow.IPv4, Protocol: flow.UDPLite, Status: flow.Confirmed,
	}}
	e.Original.Source, _ = flow.Bytes(netip.MustParseAddr("10.0.0.1"))
	e.Original.Destination, _ = flow.Bytes(netip.MustParseAddr("10.0.0.2"))
	e.Original.SourcePort, e.Original.DestinationPort = uint16(i), 443
	e.Reply = e.Original.Inverted(flow.UDPLite)
	return e
}

// TestFromConntrackd receives a bulk update of a real conntrackd.
func TestFromConntrackd(t *testing.T) {
	for _, tt := range []struct {
		config string
		peer   netip.Addr
	}{{config4, nodeA4.Addr()}, {config6, nodeA6.Addr()}} {
		t.Run(tt.peer.String(), func(t *testing.T) {
			testbed.Require(t, testbed.Conntrackd)
			h := newBench(t, tt.config)
			if err := h.a.Track(); err != nil {
				t.Fatal(err)
			}
			testbed.MustDaemon(t, h.a, testbed.ConntrackdConfig{Address: tt.peer, Protocols: []string{"TCP"}})
			h.a.MustInject(t, 300, testbed.Synthetic{Mark: 5, SNAT: netip.MustParseAddr("10.74.0.1")})
			h.awaitFlows(300)
			for _, b := range h.all() {
				if b.header != (flow.Header{Origin: flow.Peer, Owner: tt.peer}) {
					t.Errorf("header %+v", b.header)
				}
				for _, e := range b.events {
					nat, ok := e.SourceNAT()
					if e.Mark != 5 || e.State != 3 || !ok || flow.Address(flow.IPv4, nat.Address).String() != "10.74.0.1" {
						t.Fatalf("%+v", e)
					}
				}
			}
			if n := h.statistic("malformed") + h.statistic("messages_lost") + h.statistic("attributes_unknown"); n != 0 {
				t.Errorf("%v", h.source.Statistics())
			}
			testbed.Eventually(t, patience, h.host.signalled(plugin.SignalPeerUp))
		})
	}
}

// TestBatches checks that a batch is of one owner and one replay, in order.
func TestBatches(t *testing.T) {
	h := newBench(t, config4)
	one, two := h.node(h.a, nodeA4.Addr(), toGroup), h.node(h.a, alias4.Addr(), toGroup)
	one.send(one.flow(1), one.flow(2))
	h.awaitFlows(2)
	two.send(two.flow(3))
	h.awaitFlows(3)
	one.packer.SetReplay(7)
	one.send(
		notrack.AppendSync(nil, 7, flow.SyncBegin, flow.Sync{Flags: flow.SyncClaim | flow.SyncCommit | flow.SyncQuiet}),
		one.flow(4), notrack.AppendSync(nil, 7, flow.SyncEnd, flow.Sync{Count: 1}))
	one.packer.SetReplay(0)
	one.send(one.flow(5))
	h.awaitFlows(5)
	var got []string
	for _, b := range h.all() {
		for _, e := range b.events {
			if b.header.Origin != flow.Peer {
				t.Errorf("origin %d", b.header.Origin)
			}
			line := fmt.Sprintf("%v %d kind %d", b.header.Owner, b.header.Replay, e.Kind)
			if e.IsMark() {
				line += fmt.Sprintf(" flags %d count %d", e.Sync.Flags, e.Sync.Count)
			} else {
				line += fmt.Sprintf(" port %d", e.Original.SourcePort)
			}
			got = append(got, line)
		}
	}
	want := []string{
		"192.168.171.1 0 kind 2 port 1", "192.168.171.1 0 kind 2 port 2", "192.168.171.9 0 kind 2 port 3",
		"192.168.171.1 7 kind 4 flags 3 count 0", "192.168.171.1 7 kind 2 port 4", "192.168.171.1 7 kind 5 flags 0 count 1",
		"192.168.171.1 0 kind 2 port 5",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestSequence(t *testing.T) {
	h := newBench(t, config4)
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	p.send(p.flow(1))
	h.awaitFlows(1)
	if h.host.has("gap") {
		t.Error("the first message is no gap")
	}
	again := h.node(h.a, nodeA4.Addr(), toGroup) // the sink was restarted: another port
	again.send(again.flow(2))
	h.awaitFlows(2)
	if h.host.has("gap") || h.statistic("messages_before") != 0 {
		t.Error("a new port starts a new sequence")
	}
	again.skip(3)
	again.send(again.flow(3))
	h.awaitStatistic("messages_lost", 3)
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalGap))
	h.awaitFlows(3) // it counts all the same
	again.packer = notrack.NewPacker(1472, notrack.NewSequencer(1))
	again.send(again.flow(4))
	h.awaitStatistic("messages_before", 1)
	h.awaitFlows(4)
}

func TestIgnored(t *testing.T) {
	h := newBench(t, `{"group":"225.0.0.50","interface":"sync","accept_from":["192.168.171.0/29"]}`)
	if err := h.b.AddAddr("lo", netip.MustParsePrefix("192.168.180.1/24")); err != nil {
		t.Fatal(err)
	}
	good := h.node(h.a, nodeA4.Addr(), toGroup)
	for name, p := range map[string]*node{
		"datagrams_refused": h.node(h.a, alias4.Addr(), toGroup),
		"datagrams_own":     h.node(h.b, nodeB4.Addr(), toGroup), // with IP_MULTICAST_LOOP on
		"":                  h.node(h.a, nodeA4.Addr(), "192.168.171.2:3780"),
	} {
		p.send(p.flow(1))
		if name != "" {
			h.awaitStatistic(name, 1)
		}
	}
	broken := good.flow(1)
	broken[9] = 99 // length of the addresses
	good.send(broken, good.flow(2))
	h.awaitFlows(1)
	if n := h.statistic("malformed_payload"); n != 1 {
		t.Errorf("%d malformed", n)
	}
	if n := h.statistic("datagrams_received"); n != 3 { // not the one to the node's own address
		t.Errorf("%d datagrams", n)
	}
}

func TestResyncRequested(t *testing.T) {
	h := newBench(t, config4)
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	p.send(notrack.AppendResync(nil, notrack.Resync{Asks: nodeA4.Addr(), Asked: netip.MustParseAddr("192.168.171.77")}), p.flow(1))
	h.awaitFlows(1)
	if h.host.has(string(plugin.SignalResync)) {
		t.Error("answers what another node was asked")
	}
	p.send(notrack.AppendResync(nil, notrack.Resync{Asks: nodeA4.Addr(), Asked: nodeB4.Addr()}))
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalResync))
	p.send(notrack.AppendResync(nil, notrack.Resync{}))
	h.awaitStatistic("resyncs_requested", 2)
}

func TestPeerUpAndDown(t *testing.T) {
	h := newBench(t, config4)
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	p.send(notrack.AppendHello(nil, &notrack.Hello{Name: []byte("fw\x1b1\xff")}), notrack.AppendAlive(nil))
	testbed.Eventually(t, patience, h.host.signalled("peer-up: 192.168.171.1 sends"))
	testbed.Eventually(t, patience, h.host.signalled("peer-down: fw1 (192.168.171.1) is silent"))
	if h.statistic("peer_up") != 0 {
		t.Error("still up")
	}
	p.send(notrack.AppendAlive(nil))
	testbed.Eventually(t, patience, h.host.signalled("peer-up: fw1 (192.168.171.1) sends"))
	if h.statistic("peer_up") != 1 || h.flows() != 0 {
		t.Error("not up, or swept something")
	}
}

// TestBarrier sends many flows and asks for a barrier at once: all that had
// been received is before its marks.
func TestBarrier(t *testing.T) {
	h := newBench(t, `{"group":"225.0.0.50","interface":"sync","coalesce":"1s","receive_buffer":"4MiB"}`)
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	p.send(p.flow(0))
	h.awaitFlows(1) // and now it lets a second pass, unless it is woken
	const flows = 3000
	for i := range flows {
		p.packer.Append(p.flow(i))
	}
	p.send()
	replay := plugin.Replay{ID: 99, Flags: flow.SyncKeep, Edge: 2}
	if err := h.source.Barrier(t.Context(), replay); err != nil {
		t.Fatal(err)
	}
	if n := h.flows(); n != flows+1 {
		t.Errorf("%d flows before the barrier, want %d", n, flows+1)
	}
	batches := h.all()
	last := batches[len(batches)-1]
	want := flow.Header{Replay: 99, Edge: 2}
	if last.header != want || len(last.events) != 2 || last.events[0].Kind != flow.SyncBegin ||
		last.events[1].Kind != flow.SyncEnd || last.events[1].Sync != (flow.Sync{Flags: flow.SyncKeep}) {
		t.Errorf("%+v", last)
	}
	if err := h.source.Barrier(t.Context(), plugin.Replay{ID: 100}); err == nil {
		t.Error("replays flows that it does not have")
	}
}

// TestOverflow lets the next stage block while more comes than the buffer holds.
func TestOverflow(t *testing.T) {
	h := newBench(t, `{"group":"225.0.0.50","interface":"sync","receive_buffer":"64KiB","coalesce":"0s"}`)
	if got, _ := unix.GetsockoptInt(h.source.Links[0].Inlet.(*synclink.DatagramInlet).FD(), unix.SOL_SOCKET, unix.SO_RCVBUF); got != 64<<10 {
		t.Errorf("receive buffer of %d bytes", got)
	}
	block := make(chan struct{})
	h.mu.Lock()
	h.block = block
	h.mu.Unlock()
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	for i := range 2000 {
		p.send(p.flow(i))
	}
	if h.statistic("datagrams_received") == 0 { // answers although the loop waits
		t.Log("the loop had not begun")
	}
	close(block)
	// The next datagram that it takes tells how many it did not.
	testbed.Eventually(t, patience, func() error {
		p.send(p.flow(1))
		return h.host.signalled(plugin.SignalGap)()
	})
	testbed.Eventually(t, patience, func() error {
		// Two messages a flow, since UDP-Lite needs the extension.
		if lost, dropped := h.statistic("messages_lost"), h.statistic("datagrams_dropped"); lost == 0 || lost != 2*dropped {
			return fmt.Errorf("%d messages lost, %d datagrams dropped", lost, dropped)
		}
		return nil
	})
}

// TestRejoin makes the interface anew, with another index.
func TestRejoin(t *testing.T) {
	h := newBench(t, config4)
	if _, err := h.b.Run("ip", "link", "delete", testbed.SyncLink); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkDown))
	if err := testbed.Cable(h.a, "other", h.b, "other"); err != nil { // takes the next index
		t.Fatal(err)
	}
	h.cable()
	testbed.Eventually(t, patience, h.host.signalled(plugin.SignalLinkUp))
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	p.send(p.flow(1))
	h.awaitFlows(1)
}

// TestOtherInterface sends to the group on an interface where it is not joined.
func TestOtherInterface(t *testing.T) {
	h := newBench(t, config4)
	if err := testbed.Cable(h.a, "other", h.b, "other"); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(h.a.AddAddr("other", netip.MustParsePrefix("192.168.172.1/24")),
		h.b.AddAddr("other", netip.MustParsePrefix("192.168.172.2/24")))
	if err != nil {
		t.Fatal(err)
	}
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	err = h.a.Do(func() error {
		device, err := net.InterfaceByName("other")
		if err != nil {
			return err
		}
		return ipv4.NewPacketConn(p.conn).SetMulticastInterface(device)
	})
	if err != nil {
		t.Fatal(err)
	}
	// Another socket joins there, so that the kernel takes the datagram.
	err = h.b.Do(func() error {
		device, err := net.InterfaceByName("other")
		if err != nil {
			return err
		}
		c, err := net.ListenMulticastUDP("udp4", device, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(toGroup)))
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	p.send(p.flow(1))
	good := h.node(h.a, nodeA4.Addr(), toGroup)
	good.send(good.flow(2))
	h.awaitFlows(1)
	if e := h.all()[0].events[0]; e.Original.SourcePort != 2 {
		t.Errorf("took flow %d", e.Original.SourcePort)
	}
}

// TestDrain ends the source: what is in the socket still goes out.
func TestDrain(t *testing.T) {
	h := newBench(t, `{"group":"225.0.0.50","interface":"sync","coalesce":"1s"}`)
	p := h.node(h.a, nodeA4.Addr(), toGroup)
	p.send(p.flow(0))
	h.awaitFlows(1)
	p.send(p.flow(1), p.flow(2))
	h.stop()
	if n := h.flows(); n != 3 {
		t.Errorf("%d flows, want 3", n)
	}
}

func TestConfig(t *testing.T) {
	for config, path := range map[string]string{
		`{"group":"10.0.0.1","interface":"eth0"}`:                                                    "[group]",
		`{"group":"225.0.0.50","interface":""}`:                                                      "[interface]",
		`{"group":"225.0.0.50","interface":"eth0","port":0}`:                                         "[port]",
		`{"group":"ff12::50%eth1","interface":"eth0"}`:                                               "[group]",
		`{"group":"ff12::50%eth0","interface":"eth0"}`:                                               "",
		`{"group":"225.0.0.50","interface":"eth0","receive_buffer":"4GiB"}`:                          "[receive_buffer]",
		`{"group":"225.0.0.50","interface":"eth0","accept_from":["192.168.1.0/24","fd00::/8"]}`:      "[accept_from 1]",
		`{"group":"225.0.0.50","interface":"eth0","coalesce":"5s"}`:                                  "[coalesce]",
		`{"group":"ff15::50","interface":"eth0","accept_from":["fe80::/10"],"request_resync":false}`: "",
	} {
		d := plugin.Decode([]byte(config), Definition.Config())
		switch {
		case path == "" && len(d) > 0, path != "" && (len(d) != 1 || fmt.Sprint(d[0].Path) != path):
			t.Errorf("%s: %v, want %s", config, d, path)
		}
	}
	traits := configure(t, config4).Traits()
	if traits.Link != "225.0.0.50:3780@sync" || !traits.RequestResync {
		t.Errorf("%+v", traits)
	}
}
