package ctnl

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/testbed"
)

// in calls fn in a namespace and fails the test on its error.
func in(t testing.TB, n *testbed.Namespace, fn func() error) {
	t.Helper()
	if err := n.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func mustEvents(t testing.TB, n *testbed.Namespace, c EventsConfig) *Events {
	t.Helper()
	var e *Events
	in(t, n, func() (err error) { e, err = OpenEvents(c); return err })
	t.Cleanup(func() { e.Close() })
	return e
}

func mustWriter(t testing.TB, n *testbed.Namespace, c WriterConfig) *Writer {
	t.Helper()
	var w *Writer
	in(t, n, func() (err error) { w, err = OpenWriter(c); return err })
	t.Cleanup(func() { w.Close() })
	return w
}

// clone copies an event out of a decoder's memory.
func clone(e *flow.Event) flow.Event {
	c := *e
	c.Tail = append(flow.Attributes(nil), e.Tail...)
	return c
}

// dump reads a namespace's table.
func dump(t testing.TB, n *testbed.Namespace, f Filter) []flow.Event {
	t.Helper()
	return readDump(t, n, func() (*Dump, error) { return OpenDump(f) })
}

func readDump(t testing.TB, n *testbed.Namespace, open func() (*Dump, error)) []flow.Event {
	t.Helper()
	var events []flow.Event
	in(t, n, func() error {
		d, err := open()
		if err != nil {
			return err
		}
		defer d.Close()
		for more := true; more; {
			more, err = d.Next(func(e *flow.Event) error {
				events = append(events, clone(e))
				return nil
			})
			if err != nil {
				return err
			}
		}
		if d.Malformed() > 0 {
			return fmt.Errorf("%d entries did not decode", d.Malformed())
		}
		return nil
	})
	return events
}

// drain reads all queued events as messages of their own memory.
func drain(t testing.TB, s *Events) (messages [][]byte) {
	t.Helper()
	for {
		n, err := s.Read()
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return messages
		}
		for i := range n {
			messages = append(messages, append([]byte(nil), s.Message(i)...))
		}
	}
}

func decodeAll(t testing.TB, messages [][]byte) (events []flow.Event) {
	t.Helper()
	for _, m := range messages {
		var e flow.Event
		if _, err := Decode(m, &e, nil); err != nil {
			t.Fatal(err)
		}
		events = append(events, e)
	}
	return events
}

// tcp, udp and icmp make flows without translation, as a peer would send them.

func newFlow(protocol uint8, from, to netip.AddrPort) *flow.Flow {
	f := &flow.Flow{Protocol: protocol, Present: flow.HasReply | flow.HasStatus | flow.HasTimeout,
		Status: flow.SeenReply | flow.Assured | flow.Confirmed, Timeout: 100}
	f.Original.Source, f.Family = flow.Bytes(from.Addr())
	f.Original.Destination, _ = flow.Bytes(to.Addr())
	f.Original.SourcePort, f.Original.DestinationPort = from.Port(), to.Port()
	f.Reply = f.Original.Inverted(protocol)
	return f
}

func tcp(from, to string) *flow.Flow {
	f := newFlow(flow.TCP, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to))
	f.Present |= flow.HasState
	f.State = 3
	return f
}

func udp(from, to string) *flow.Flow {
	return newFlow(flow.UDP, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to))
}

// snat makes the flow translated to another source.
func snat(f *flow.Flow, to string) *flow.Flow {
	a := netip.MustParseAddrPort(to)
	f.Reply.Destination, _ = flow.Bytes(a.Addr())
	f.Reply.DestinationPort = a.Port()
	return f
}

// find returns the entry with f's key.
func find(t testing.TB, n *testbed.Namespace, f *flow.Flow) (e flow.Event, ok bool) {
	t.Helper()
	for _, e := range dump(t, n, Filter{}) {
		if e.Key() == f.Key() {
			return e, true
		}
	}
	return e, false
}

func mustFind(t testing.TB, n *testbed.Namespace, f *flow.Flow) flow.Event {
	t.Helper()
	e, ok := find(t, n, f)
	if !ok {
		t.Fatalf("no entry for %s", f.String())
	}
	return e
}

// finish carries out what the writer holds and returns the counts.
func finish(t testing.TB, w *Writer) Counts {
	t.Helper()
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	return w.Counts(true)
}

func mustCount(t testing.TB, name string, got, want uint64) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: %d, want %d", name, got, want)
	}
}

const patience = 20 * time.Second

// errnoOf returns the errors of a writer's failures and how often each came.
func errnoOf(c Counts) map[unix.Errno]uint64 {
	m := map[unix.Errno]uint64{}
	for _, f := range c.Failures {
		m[f.Errno] = f.Count
	}
	return m
}

// v4 is an address of the test network with a port.
func v4(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 1000)
}
