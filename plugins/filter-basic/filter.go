package filterbasic

import (
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
)

// A Filter judges events by up to three sets:
//
//  1. An event passes when every set that is present passes it.
//  2. A set passes what is in its accept list, or what is not in its ignore list.
//  3. protocol: the layer-4 protocol.
//  4. address: in the list if the original source or the reply source is. A flow
//     whose reply tuple is not known is taken to be not translated.
//  5. state: judges TCP alone. A flow without a state passes, and so does every
//     DESTROY: who was told of a flow must be told of its end.
//  6. An expectation is judged by its master, as far as it tells of it: by
//     protocol and addresses, not by state. So it passes where the flow passes
//     without which it is of no use.
type Filter struct {
	hasProtocol, hasAddress, hasState             bool
	protocolAccepts, addressAccepts, stateAccepts bool

	protocol  numbers
	addresses prefixes
	state     numbers
}

// Filter implements plugin.Filter.
func (f *Filter) Filter(e *flow.Event) plugin.Verdict {
	if f.hasState && f.judgesState(e) && f.state[e.State] != f.stateAccepts {
		return plugin.Drop
	}
	if e.IsExpectation() {
		if m, ok := e.Tail.Master(); ok {
			return f.judge(&flow.Flow{Family: m.Family, Protocol: m.Protocol, Original: m.Tuple})
		}
	}
	return f.judge(&e.Flow)
}

// judge is the verdict of protocol and addresses.
func (f *Filter) judge(e *flow.Flow) plugin.Verdict {
	if f.hasProtocol && f.protocol[e.Protocol] != f.protocolAccepts {
		return plugin.Drop
	}
	if f.hasAddress && f.hasEnd(e) != f.addressAccepts {
		return plugin.Drop
	}
	return plugin.Pass
}

// judgesState says whether rule 5 leaves e to the state set.
func (f *Filter) judgesState(e *flow.Event) bool {
	return e.Protocol == flow.TCP && e.Kind != flow.Destroy && !e.IsExpectation() && e.Has(flow.HasState)
}

// hasEnd says whether one of the flow's real ends is in the address list.
func (f *Filter) hasEnd(e *flow.Flow) bool {
	answers := &e.Reply.Source
	if !e.Has(flow.HasReply) {
		answers = &e.Original.Destination
	}
	return f.addresses.contain(e.Family, &e.Original.Source) || f.addresses.contain(e.Family, answers)
}

// numbers is a set of protocols or states.
type numbers [256]bool

// add returns a function that adds the number of a name.
func (n *numbers) add(parse func(string) (uint8, error)) func(string) error {
	return func(name string) error {
		v, err := parse(name)
		if err == nil {
			n[v] = true
		}
		return err
	}
}
