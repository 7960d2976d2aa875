package notrack

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/flow"
)

// A probe is a row of hand-made datagrams that a conntrackd was sent, and what
// it showed after them.
type probe struct {
	Probe        string
	Datagrams    []string
	Counters     map[string]uint64
	Cache        []string
	Expectations []string
}

// A model is what a peer keeps: NEW replaces, UPDATE merges, DESTROY removes.
type model struct {
	flows        map[flow.Key]flow.Flow
	expectations map[flow.ExpectationKey]flow.Flow
	tracker      Tracker
	decoder      Decoder
}

func newModel(strict bool) *model {
	return &model{
		flows: map[flow.Key]flow.Flow{}, expectations: map[flow.ExpectationKey]flow.Flow{},
		decoder: Decoder{Strict: strict},
	}
}

func (c *model) receive(p []byte) {
	c.decoder.Reset(p, &c.tracker)
	for m := (Message{}); c.decoder.Next(&m); {
		if m.Kind == Flow {
			c.event(&m.Event)
		}
	}
}

func (c *model) event(e *flow.Event) {
	f, key := e.Flow, e.Key()
	f.Tail = slices.Clone(f.Tail)
	switch e.Kind {
	case flow.Expect:
		c.expectations[e.ExpectationKey()] = f
		return
	case flow.Unexpect:
		delete(c.expectations, e.ExpectationKey())
		return
	case flow.Destroy:
		delete(c.flows, key)
		return
	}
	if old, known := c.flows[key]; known && e.Kind == flow.Update {
		old.Merge(&f, nil)
		f = old
	}
	c.flows[key] = f
}

// counters returns what conntrackd -s network would show. It counts two lost
// packets too many for every gap.
func (c *model) counters() map[string]uint64 {
	d, all := &c.decoder.Counters, map[string]uint64{}
	for name, n := range map[string]uint64{
		"Malformed messages": d.Malformed, "Truncated message": d.Truncated, "Bad message size": d.BadSize,
		"Wrong protocol version": d.WrongVersion, "Malformed header": d.MalformedHeader,
		"Malformed payload": d.MalformedPayload,
		"Packets lost":      c.tracker.Lost + 2*c.tracker.Gaps, "Packets before": c.tracker.Before,
	} {
		if n != 0 {
			all[name] = n
		}
	}
	return all
}

// dump returns the flows as conntrackd -e shows them.
func (c *model) dump() []string {
	lines := []string{}
	for _, f := range c.flows {
		if f.Family == 0 && f.Protocol == 0 {
			continue
		}
		lines = append(lines, dumpFlow(&f))
	}
	slices.Sort(lines)
	return lines
}

var tcpStates = []string{
	"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
}

func dumpFlow(f *flow.Flow) string {
	name := map[uint8]string{flow.TCP: "tcp", flow.UDP: "udp", flow.DCCP: "dccp"}[f.Protocol]
	if name == "" {
		name = "unknown"
	}
	line := fmt.Sprintf("%-8s %d", name, f.Protocol)
	if f.Has(flow.HasState) {
		state := "NONE"
		if int(f.State) < len(tcpStates) {
			state = tcpStates[f.State]
		}
		line += " " + state
	}
	if dccp, ok := f.Tail.Get(flow.AttrDCCP); ok && dccp[0] == 3 {
		line += " PARTOPEN"
	}
	if f.Family != 0 {
		line += fmt.Sprintf(" src=%v dst=%v", flow.Address(f.Family, f.Original.Source), flow.Address(f.Family, f.Original.Destination))
	}
	if f.Protocol != 0 {
		line += fmt.Sprintf(" sport=%d dport=%d", f.Original.SourcePort, f.Original.DestinationPort)
	}
	switch {
	case f.Status&(1<<15) != 0, f.Status&(1<<14) != 0:
		line += " [HW_OFFLOAD]"
	case f.Status&flow.Assured != 0:
		line += " [ASSURED]"
	}
	if f.Mark != 0 {
		line += fmt.Sprintf(" mark=%d", f.Mark)
	}
	if f.Zone != 0 {
		line += fmt.Sprintf(" zone=%d", f.Zone)
	}
	if helper, ok := f.Tail.Get(flow.AttrHelper); ok {
		line += fmt.Sprintf(" helper=%s", helper)
	}
	return line
}

func (c *model) dumpExpectations() []string {
	lines := []string{}
	for _, f := range c.expectations {
		tuple := func(prefix string, t *flow.Tuple) string {
			return fmt.Sprintf("%ssrc=%v %sdst=%v sport=%d dport=%d", prefix, flow.Address(flow.IPv4, t.Source),
				prefix, flow.Address(flow.IPv4, t.Destination), t.SourcePort, t.DestinationPort)
		}
		line := fmt.Sprintf("proto=%d %s", f.Protocol, tuple("", &f.Original))
		if f.Has(flow.HasReply) {
			line += " " + tuple("mask-", &f.Reply)
		}
		if m, ok := f.Tail.Master(); ok {
			line += " " + tuple("master-", &m.Tuple)
		}
		if x, _ := f.Tail.Expectation(); x.HasClass {
			line += fmt.Sprintf(" class=%d", x.Class)
		}
		if helper, ok := f.Tail.Get(flow.AttrHelper); ok {
			line += fmt.Sprintf(" helper=%s", helper)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
}

// wanted is what conntrackd showed, less what differs on purpose in every mode:
// zone 0 is no zone; an empty helper name is no helper; and a name ends with
// its attribute, where conntrackd without a NUL reads on into the padding.
func (p *probe) wanted() []string {
	lines := []string{}
	for _, line := range p.Cache {
		line = strings.TrimSuffix(line, " zone=0")
		line = strings.TrimSuffix(line, " helper=")
		lines = append(lines, strings.Replace(line, "helper=ftpX", "helper=ftp", 1))
	}
	slices.Sort(lines)
	return lines
}

// send gives the model the alive message that came before each probe, and then
// the probe.
func (c *model) send(t *testing.T, i int, p *probe) {
	t.Helper()
	var datagrams [][]byte
	for _, d := range p.Datagrams {
		b, err := hex.DecodeString(d)
		if err != nil {
			t.Fatal(err)
		}
		datagrams = append(datagrams, b)
	}
	if i >= 5 {
		for _, d := range datagrams {
			if len(d) >= headerSize {
				alive := AppendAlive(nil)
				binary.BigEndian.PutUint32(alive[4:], binary.BigEndian.Uint32(d[4:])-1)
				c.tracker = Tracker{}
				c.receive(alive)
				break
			}
		}
	}
	c.tracker.Gaps, c.tracker.Lost, c.tracker.Before = 0, 0, 0
	for _, d := range datagrams {
		c.receive(d)
	}
}

// TestProbesStrict gives the same datagrams to a strict Decoder: the counters
// and the cache are conntrackd's.
func TestProbesStrict(t *testing.T) {
	var first Tracker
	for i, p := range readIndex(t).Probes {
		t.Run(p.Probe, func(t *testing.T) {
			c := newModel(true)
			if i < 5 {
				c.tracker = first
			}
			c.send(t, i, &p)
			if i < 5 {
				first = c.tracker
			}
			if diff := cmp.Diff(p.Counters, c.counters()); diff != "" {
				t.Errorf("counters (-conntrackd +ours):\n%s", diff)
			}
			if diff := cmp.Diff(p.wanted(), c.dump()); diff != "" {
				t.Errorf("cache (-conntrackd +ours):\n%s", diff)
			}
			if p.Expectations != nil {
				if diff := cmp.Diff(p.Expectations, c.dumpExpectations()); diff != "" {
					t.Errorf("expectations (-conntrackd +ours):\n%s", diff)
				}
			}
		})
	}
}

// TestProbes does the same with a Decoder as it is used: what it does
// otherwise than conntrackd is named here, and nothing else differs.
func TestProbes(t *testing.T) {
	const gap = 3 // conntrackd's count for one missing message
	for i, p := range readIndex(t).Probes {
		t.Run(p.Probe, func(t *testing.T) {
			c := newModel(false)
			want, lines := maps.Clone(p.Counters), p.wanted()
			expectations := slices.Clone(p.Expectations)
			var unknown, incomplete uint64
			switch {
			case i < 5:
				return // they go with each other
			case strings.HasPrefix(p.Probe, "attribute 33"), strings.HasPrefix(p.Probe, "attribute 34"),
				strings.HasPrefix(p.Probe, "attribute 100"), strings.HasPrefix(p.Probe, "attribute 65535"):
				want, unknown = map[string]uint64{}, 1
				lines = append(lines, "tcp      6 ESTABLISHED src=10.99.0.1 dst=10.99.0.2 sport=21 dport=80 [ASSURED]")
			case strings.HasPrefix(p.Probe, "EXP attribute 21"), strings.Contains(p.Probe, "(attribute 21"):
				want, unknown = map[string]uint64{}, 1
				if expectations != nil {
					expectations = []string{"proto=6 src=10.99.0.2 dst=10.99.0.1 sport=0 dport=4000" +
						" mask-src=255.255.255.255 mask-dst=255.255.255.255 sport=0 dport=65535" +
						" master-src=10.99.0.1 master-dst=10.99.0.2 sport=72 dport=21"}
				}
			case p.Probe == "EXP without mask":
				expectations, incomplete = []string{}, 1
			case p.Probe == "no addresses", p.Probe == "no L4PROTO", p.Probe == "no PORT":
				lines, incomplete = []string{}, 1
			case p.Probe == "header alone (no attributes)", p.Probe == "NEW then DEL without PORT":
				incomplete = 1
			case want["Malformed header"] != 0 && want["Packets lost"] == gap:
				delete(want, "Packets lost") // seen, if not understood
			}
			c.send(t, i, &p)
			slices.Sort(lines)
			if diff := cmp.Diff(want, c.counters()); diff != "" {
				t.Errorf("counters (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(lines, c.dump()); diff != "" {
				t.Errorf("cache (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(expectations, c.dumpExpectations()); expectations != nil && diff != "" {
				t.Errorf("expectations (-want +got):\n%s", diff)
			}
			d := &c.decoder.Counters
			if d.UnknownAttributes != unknown || d.Incomplete != incomplete {
				t.Errorf("%d unknown attributes, %d incomplete; want %d, %d", d.UnknownAttributes, d.Incomplete, unknown, incomplete)
			}
		})
	}
}
