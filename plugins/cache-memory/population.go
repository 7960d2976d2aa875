package cachememory

import (
	"encoding/binary"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// A population counts the living flows by protocol and state, as they come,
// change and go, so that nobody has to walk through the table for it.
type population struct {
	held [256][stateless + 1]uint32 // by protocol and state
	seen [256]uint16                // of each protocol, the states that there ever were, a bit each
}

// stateless stands for no state, and for states that have no number below it:
// the kernel's have.
const stateless = 15

// of returns where a flow is counted, by its record's head.
func (p *population) of(head []byte) (protocol, state uint8) {
	protocol, state = head[9], stateless
	if protocol == flow.TCP || protocol == flow.SCTP {
		if flow.Field(binary.LittleEndian.Uint32(head[4:]))&flow.HasState != 0 {
			state = min(head[10], stateless)
		}
	}
	return protocol, state
}

func (p *population) add(head []byte) {
	protocol, state := p.of(head)
	p.held[protocol][state]++
	p.seen[protocol] |= 1 << state
}

func (p *population) drop(head []byte) {
	protocol, state := p.of(head)
	p.held[protocol][state]--
}

// statistics lists what there is, and what there was.
func (p *population) statistics() (all []plugin.Statistic) {
	for protocol := range p.held {
		for state := range p.held[protocol] {
			if p.seen[protocol]&(1<<state) == 0 {
				continue
			}
			f := flow.Flow{Protocol: uint8(protocol), State: uint8(state), Present: flow.HasState}
			if state == stateless {
				f.Present = 0
			}
			all = append(all, plugin.Statistic{
				Name: "flows_by_state", Help: "flows of a protocol in a state, as far as it has states", Type: plugin.Gauge,
				Value:  uint64(p.held[protocol][state]),
				Labels: map[string]string{"protocol": flow.ProtocolName(f.Protocol), "state": f.StateName()},
			})
		}
	}
	return all
}
