package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/testbed"
	"github.com/sluice-project/sluice/test/node"
)

// forged is an address on the sync link that no node has.
var forged = netip.MustParsePrefix("10.71.3.99/24")

// A forger sends datagrams to the group that no node would send.
type forger struct {
	conn net.PacketConn
	node *node.Node // who is to receive them
	pid  int        // of its source
	sent uint64
	base uint64 // what it had received before
}

// forge opens a forger on the firewall at the other end of the sync link.
func forge(t *testing.T, fw *testbed.Firewall, from netip.Addr, to *node.Node) *forger {
	t.Helper()
	f := &forger{
		conn: must[net.PacketConn](t)(fw.ListenPacket("udp4", netip.AddrPortFrom(from, 0).String())),
		node: to, pid: must[map[string]int](t)(to.PIDs())["peers.source.multicast"],
	}
	t.Cleanup(func() { f.conn.Close() })
	err := fw.Do(func() error {
		device, err := net.InterfaceByName(testbed.SyncLink)
		if err == nil {
			err = ipv4.NewPacketConn(f.conn).SetMulticastInterface(device)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := ipv4.NewPacketConn(f.conn).SetMulticastLoopback(false); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, patience, func() (err error) {
		f.base, err = f.received()
		return err
	})
	return f
}

// received is how many datagrams the node has read or lost.
func (f *forger) received() (uint64, error) {
	read, err := statistic(f.node, "peers.source.multicast", "datagrams_received")
	if err != nil {
		return 0, err
	}
	dropped, err := statistic(f.node, "peers.source.multicast", "datagrams_dropped")
	return read + dropped, err
}

// send sends a datagram, when the node has read those before: a receive buffer
// that overflows would keep some from doing what harm they can.
func (f *forger) send(t *testing.T, datagram []byte) {
	t.Helper()
	if _, err := f.conn.WriteTo(datagram, net.UDPAddrFromAddrPort(group)); err != nil {
		t.Fatal(err)
	}
	if f.sent++; f.sent%32 == 0 {
		testbed.Eventually(t, patience, f.read)
	}
}

// read is a condition: nothing waits in the node's socket.
func (f *forger) read() error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", f.pid))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line) // number, local and remote address, state, queues
		if len(fields) > 4 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", group.Port())) && !strings.HasSuffix(fields[4], ":00000000") {
			return fmt.Errorf("datagrams wait in the socket: %s", line)
		}
	}
	return nil
}

// wait waits until the node has used all that was sent.
func (f *forger) wait(t *testing.T) {
	t.Helper()
	testbed.Eventually(t, patience, func() error {
		got, err := f.received()
		if err == nil && got < f.base+f.sent {
			err = fmt.Errorf("the node has read %d of %d datagrams", got-f.base, f.sent)
		}
		if err == nil {
			err = queuesEmpty(f.node)
		}
		return err
	})
}

// queuesEmpty is an error unless all stages have taken what is for them. Others
// than Node.Quiet it lets replays run: forged gaps cause them all the time.
func queuesEmpty(n *node.Node) error {
	status, err := n.Status()
	if err != nil {
		return err
	}
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			if s.QueueBytes > 0 {
				return fmt.Errorf("%d bytes wait for %s", s.QueueBytes, s.Address)
			}
		}
	}
	return nil
}

// captures are the datagrams of all captures of conntrackd.
func captures(t *testing.T) (payloads [][]byte) {
	t.Helper()
	files := must[[]string](t)(filepath.Glob("../../internal/notrack/testdata/captures/*.pcap"))
	for _, file := range files {
		for p := must[[]byte](t)(os.ReadFile(file))[24:]; len(p) > 16; {
			length := int(p[8]) | int(p[9])<<8
			frame := p[16 : 16+length]
			p = p[16+length:]
			switch headers := 14 + 20 + 8; {
			case frame[12] == 0x08: // IPv4
				payloads = append(payloads, frame[headers:])
			case frame[14+6] == 17: // IPv6, no fragment
				payloads = append(payloads, frame[headers+20:])
			}
		}
	}
	if len(payloads) < 250 {
		t.Fatalf("only %d datagrams are in %d captures", len(payloads), len(files))
	}
	return payloads
}

// ours are datagrams of Sluice's own: greetings, and marks of replays that end
// at once. A replay of this owner that names nothing sweeps what it owns.
func ours() (payloads [][]byte) {
	packer := notrack.NewPacker(1472, notrack.NewSequencer(1))
	encoder := notrack.NewEncoder(notrack.Settings{Timeout: true, Room: 1472})
	add := func(group []byte) { packer.Append(group) }
	add(notrack.AppendHello(nil, &notrack.Hello{Name: []byte("sluice\x1b[31m")}))
	packer.Flush()
	for id := uint64(1); id <= 20; id++ {
		packer.SetReplay(id)
		add(notrack.AppendSync(nil, id, flow.SyncBegin, flow.Sync{Flags: flow.SyncFlags(id)}))
		event := flow.Event{Kind: flow.Update}
		event.Family, event.Protocol = flow.IPv4, flow.GRE
		event.Original.Source, event.Original.Destination = [16]byte{10, 1, 1, byte(id)}, [16]byte{10, 1, 1, 2}
		event.Original.SourcePort = uint16(id)
		event.Present = flow.HasStatus
		expectation := event
		expectation.Kind, expectation.Zone = flow.Expect, uint16(id%2)
		expectation.Present |= flow.HasReply
		expectation.Tail = expectation.Tail.AppendMaster(&flow.Master{Family: flow.IPv4, Protocol: flow.TCP, Tuple: event.Original}).
			AppendExpectation(&flow.Expectation{HasNAT: true}).Append(flow.AttrFunction, []byte("nat-follow-master"))
		for _, e := range []*flow.Event{&event, &expectation} {
			if group, err := encoder.AppendFlow(nil, e); err == nil {
				add(group)
			}
		}
		add(notrack.AppendSync(nil, id, flow.SyncEnd, flow.Sync{Count: id % 3}))
		packer.Flush()
	}
	add(notrack.AppendResync(nil, notrack.Resync{Asks: forged.Addr()}))
	packer.Flush()
	for i := range packer.Len() {
		payloads = append(payloads, packer.Datagram(i))
	}
	return payloads
}

// owned is what the node's cache knows from a peer, whole: the lines of the
// dump but for the time since the last event.
func owned(t *testing.T, n *node.Node, owner netip.Addr) map[string]bool {
	t.Helper()
	var out bytes.Buffer
	request := control.DumpRequest{Target: "peers", Args: []string{"owner=" + owner.String()}, JSON: true}
	if err := n.Client().Dump(t.Context(), request, &out); err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	for line := range bytes.Lines(out.Bytes()) {
		var v map[string]any
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatal(err)
		}
		delete(v, "age")
		delete(v, "active")
		lines[string(must[[]byte](t)(json.Marshal(v)))] = true
	}
	return lines
}

// Bytes that no node sends are counted, and change nothing that a peer said.
// Those that are messages by chance belong to the address they came from, which
// is none of a peer's: its flows must stay as they are. Sources are chosen so
// that no forged flow has the addresses of a real one.
func TestForgedDatagramsChangeNothingOfAPeer(t *testing.T) {
	s := newSite(t)
	d := s.conntrackd(t, s.FW1, testbed.ConntrackdConfig{})
	n := s.sluice(t, s.FW2, nil)
	if err := s.FW1.AddAddr(testbed.SyncLink, forged); err != nil {
		t.Fatal(err)
	}
	peer := s.FW1.Sync.V4.Addr()
	s.distant(t)
	testbed.Eventually(t, patience, same(testbed.Comparison{}, s.FW1.Table, peers(n)))
	pids, before := must[map[string]int](t)(n.PIDs()), owned(t, n, peer)
	random := rand.New(rand.NewPCG(1, 2))
	check := func(t *testing.T, f *forger) {
		t.Helper()
		f.wait(t)
		if after := owned(t, n, peer); !maps.Equal(before, after) {
			t.Errorf("the peer's flows before:\n%v\nafter:\n%v", before, after)
		}
		samePIDs(t, n, pids)
	}
	test, stranger := t, forge(t, s.FW1, forged.Addr(), n)
	for name, datagrams := range map[string]func(func([]byte)){
		"random":    func(send func([]byte)) { randomBytes(random, send) },
		"headers":   func(send func([]byte)) { randomMessages(random, send) },
		"truncated": func(send func([]byte)) { truncated(random, append(captures(t), ours()...), send) },
		"flipped":   func(send func([]byte)) { flipped(random, append(captures(t), ours()...), send) },
		"flipped extensions": func(send func([]byte)) {
			for range 10 {
				flipped(random, ours(), send)
			}
		},
		"valid": func(send func([]byte)) { // of other versions, with other sequences, out of order
			all := append(captures(t), ours()...)
			random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
			for _, p := range all {
				send(p)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			if test.Failed() {
				t.SkipNow() // a stage that is gone would be waited for
			}
			datagrams(func(p []byte) { stranger.send(t, p) })
			check(t, stranger)
		})
	}
	if t.Failed() {
		return
	}
	t.Run("under the peer's address", func(t *testing.T) { // what is no message has no owner
		f := forge(t, s.FW1, peer, n)
		randomBytes(random, func(p []byte) { f.send(t, p) })
		check(t, f)
	})
	t.Run("of many addresses", func(t *testing.T) {
		const many = 100 // more than are remembered
		p := captures(t)
		for i := range many {
			address := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 71, 3, byte(100 + i)}), 24)
			if err := s.FW1.AddAddr(testbed.SyncLink, address); err != nil {
				t.Fatal(err)
			}
			f := forge(t, s.FW1, address.Addr(), n)
			for range 5 {
				f.send(t, p[random.IntN(len(p))])
			}
			stranger.sent += 5
		}
		check(t, stranger)
	})
	for _, name := range []string{
		"malformed_truncated", "malformed_size", "malformed_version", "malformed_header", "malformed_payload",
		"flows_incomplete", "elements_unknown", "extensions_stray", "datagrams_of_too_many",
	} {
		err := testbed.Await(shortly, func() error {
			count, err := statistic(n, "peers.source.multicast", name)
			if err == nil && count == 0 {
				err = fmt.Errorf("nothing was counted as %s: the test tests less than it says", name)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}

	// And then all goes on.
	s.distant(t)
	fromPeer := func() (testbed.Table, error) {
		all, err := n.Table("peers")
		return all.Where(func(f testbed.Flow) bool { return slices.Contains(distantSources, f.Orig.Src) }), err
	}
	testbed.Eventually(t, patience, same(testbed.Comparison{}, s.FW1.Table, fromPeer))
	samePIDs(t, n, pids)
	if !d.Running() {
		t.Error("conntrackd ended")
	}

	// What the kernel refuses of it does not keep the rest from being committed.
	out, err := n.Sluice("role", "primary")
	t.Logf("%s%v", out, err)
	table := s.FW2.MustTable(t)
	got := table.Where(func(f testbed.Flow) bool { return slices.Contains(distantSources, f.Orig.Src) })
	if diff := committed.Diff(s.FW1.MustTable(t), got); diff != "" {
		t.Error(diff)
	}
	samePIDs(t, n, pids)
}

// distantSources are clients that no capture has.
var distantSources = append(testbed.ClientSources(false), testbed.ClientSources(true)...)

// distant makes flows from them.
func (s *site) distant(t *testing.T) {
	t.Helper()
	for i, f := range families {
		sources := distantSources[i*testbed.SourceCount:][:testbed.SourceCount]
		to := netip.AddrPortFrom(f.server, testbed.ServerPort)
		s.Client.MustChurn(t, testbed.Churn{To: to, Sources: sources, Count: 30, Endings: endings})
		s.Client.MustUDP(t, testbed.UDP{To: to, Sources: sources, Count: 10})
		if err := s.Client.Ping(testbed.Echo{From: sources[0], To: f.server}); err != nil {
			t.Fatal(err)
		}
	}
}

func randomBytes(random *rand.Rand, send func([]byte)) {
	for i := range 1500 {
		length := random.IntN(1473)
		switch {
		case i%100 == 0:
			length = 60_000
		case i%2 == 0:
			length = random.IntN(40)
		}
		send(bytesOf(random, length))
	}
}

func bytesOf(random *rand.Rand, length int) []byte {
	p := make([]byte, length)
	for i := range p {
		p[i] = byte(random.Uint32())
	}
	return p
}

// randomMessages have headers that are right, most of them, and bodies of
// attributes with random numbers, lengths and values.
func randomMessages(random *rand.Rand, send func([]byte)) {
	for range 1500 {
		var p []byte
		for range 1 + random.IntN(4) {
			at := len(p)
			p = append(p, byte(0x10|random.IntN(16)), 0, 0, 0)
			p = append(p, bytesOf(random, 4)...)
			if random.IntN(4) == 0 {
				p[at+1] = byte(1 << random.IntN(8))
			}
			for range random.IntN(8) {
				length := random.IntN(40)
				p = append(p, 0, byte(4+length), 0, byte(random.IntN(36)))
				p = append(p, bytesOf(random, (length+3)&^3)...)
			}
			p[at+2], p[at+3] = byte((len(p)-at)>>8), byte(len(p)-at)
		}
		send(p)
	}
}

func truncated(random *rand.Rand, payloads [][]byte, send func([]byte)) {
	for _, p := range payloads {
		for range 3 {
			send(p[:random.IntN(len(p))])
			send(p[random.IntN(len(p)):])
		}
	}
}

func flipped(random *rand.Rand, payloads [][]byte, send func([]byte)) {
	for _, p := range payloads {
		for range 6 {
			q := bytes.Clone(p)
			for range 1 + random.IntN(4) {
				q[random.IntN(len(q))] ^= 1 << random.IntN(8)
			}
			send(q)
		}
	}
}
