package sinktcp

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/internal/notrack"
	"github.com/sluice-project/sluice/internal/synclink"
)

// A choked connection takes some bytes of what it is given, or all. A real one
// does so as it pleases, and mostly at the ends of what is written.
type choked struct {
	net.Conn
	random *rand.Rand
	open   bool
	taken  []byte
}

func (c *choked) SetWriteDeadline(time.Time) error { return nil }

func (c *choked) Write(p []byte) (int, error) {
	n := len(p)
	if !c.open {
		n = c.random.IntN(n + 1)
	}
	c.taken = append(c.taken, p[:n]...)
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

// A tally counts.
type tally struct {
	sent, behind, absent, restored int
}

func (y *tally) Sent(n int, _ uint64) { y.sent += n }
func (y *tally) Fragmented()          {}
func (y *tally) Restored(string)      { y.restored++ }
func (y *tally) Lost(err error) {
	switch {
	case err == nil:
		y.absent++
	case errors.Is(err, synclink.ErrBehind):
		y.behind++
	}
}

func pack(t *testing.T, p *notrack.Packer) {
	t.Helper()
	p.Reset()
	enc := notrack.NewEncoder(notrack.Settings{})
	for i := range 200 {
		e := flow.Event{Kind: flow.Update, Flow: flow.Flow{Present: flow.HasStatus, Family: flow.IPv4, Protocol: flow.GRE}}
		e.Original.SourcePort = uint16(i + 1)
		m, err := enc.AppendFlow(nil, &e)
		if err != nil || !p.Append(m) {
			t.Fatal(err)
		}
	}
	p.Flush()
}

// Wherever a connection stops taking bytes, what goes over it is whole datagrams,
// and each is either sent or counted as lost.
func TestStreamStaysWhole(t *testing.T) {
	for seed := range uint64(50) {
		packer := notrack.NewPacker(1000, notrack.NewSequencer(1))
		packer.SetFramed()
		conn := &choked{random: rand.New(rand.NewPCG(seed, 0))}
		p := &peer{to: netip.MustParseAddrPort("192.0.2.1:3780"), conn: conn}
		var y tally
		datagrams := 0
		for range 20 {
			pack(t, packer)
			datagrams += packer.Len()
			p.send(packer, time.Now(), &y)
		}
		if y.restored != 1 || y.behind == 0 {
			t.Fatalf("seed %d: %+v", seed, y)
		}
		conn.open = true
		p.tend(&y)
		pack(t, packer)
		datagrams += packer.Len()
		p.send(packer, time.Now(), &y)
		if y.restored != 2 || p.behind || p.missed {
			t.Errorf("seed %d: %+v, behind %v", seed, y, p.behind)
		}
		got, flows := received(t, conn.taken)
		if got+y.behind != datagrams {
			t.Errorf("seed %d: %d datagrams arrived and %d were lost, of %d", seed, got, y.behind, datagrams)
		}
		if flows < 200 {
			t.Errorf("seed %d: %d flows", seed, flows)
		}
	}
}

// received takes a stream apart, of which everything must be good.
func received(t *testing.T, taken []byte) (datagrams, flows int) {
	t.Helper()
	var s notrack.Stream
	var d notrack.Decoder
	for len(taken) > 0 {
		n := copy(s.Space(), taken)
		taken = taken[n:]
		s.Filled(n)
		for {
			p, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if p == nil {
				break
			}
			datagrams++
			d.Reset(slices.Clone(p), nil)
			for m := (notrack.Message{}); d.Next(&m); {
				if m.Kind == notrack.Flow {
					flows++
				}
			}
		}
	}
	if d.Counters != (notrack.Counters{}) {
		t.Errorf("%+v", d.Counters)
	}
	return datagrams, flows
}

// Without a connection everything is lost, and with another nothing is left over.
func TestConnections(t *testing.T) {
	packer := notrack.NewPacker(1000, notrack.NewSequencer(1))
	packer.SetFramed()
	pack(t, packer)
	p := &peer{to: netip.MustParseAddrPort("192.0.2.1:3780")}
	var y tally
	if p.send(packer, time.Now(), &y); y.absent != packer.Len() {
		t.Errorf("%+v", y)
	}
	first := &choked{random: rand.New(rand.NewPCG(3, 0))}
	p.conn = first
	for range 100 {
		if p.send(packer, time.Now(), &y); len(p.rest) > 0 {
			break
		}
	}
	second := &choked{open: true}
	p.conn = second
	p.send(packer, time.Now(), &y)
	if n, _ := received(t, second.taken); n != packer.Len() || len(p.rest) > 0 {
		t.Errorf("%d datagrams over the next connection, want %d", n, packer.Len())
	}
}

// A stuck connection takes nothing until the deadline, which it notes.
type stuck struct {
	net.Conn
	deadline time.Time
}

func (c *stuck) SetWriteDeadline(t time.Time) error { c.deadline = t; return nil }

func (c *stuck) Write([]byte) (int, error) {
	time.Sleep(time.Until(c.deadline))
	return 0, os.ErrDeadlineExceeded
}

// However many peers take nothing, they hold up the pipeline once.
func TestStuckPeersShareTheWait(t *testing.T) {
	packer := notrack.NewPacker(1000, notrack.NewSequencer(1))
	packer.SetFramed()
	pack(t, packer)
	o := &outlet{}
	var conns [4]*stuck
	for i := range conns {
		conns[i] = &stuck{}
		o.peers = append(o.peers, &peer{to: netip.MustParseAddrPort("192.0.2.1:3780"), conn: conns[i]})
	}
	var y tally
	o.Send(packer, &y)
	if later := conns[3].deadline.Sub(conns[0].deadline); later >= patience {
		t.Errorf("the last peer had %v more than the first", later)
	}
	if y.behind != 4*packer.Len() {
		t.Errorf("%+v", y)
	}
}
