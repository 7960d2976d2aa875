package cachememory

import (
	"testing"

	"github.com/sluice-project/sluice/core/flow"
)

func withEveryFlow(r *rig) { r.host.start.EveryFlow = true }

// TestEveryFlow: where a sink below logs, nothing that ended within one batch goes
// unsaid, and nothing else changes.
func TestEveryFlow(t *testing.T) {
	cases := []struct {
		name    string
		options []option
		h       flow.Header
		events  []flow.Event
		sent    []string
		holds   []string
	}{
		{"came and went", nil, live, []flow.Event{added(9, 1), ended(9)}, []string{"new 9=1", "destroy 9=0"}, []string{"1=1"}},
		{"and changed", nil, live, []flow.Event{added(9, 1), updated(9, 2), ended(9)}, []string{"new 9=2", "destroy 9=0"}, []string{"1=1"}},
		{"twice", nil, live, []flow.Event{added(9, 1), ended(9), added(9, 2), silent(ended(9))},
			[]string{"new 9=1", "destroy 9=0", "new 9=2", "destroy 9=2"}, []string{"1=1"}},
		{"and came back", nil, live, []flow.Event{added(9, 1), ended(9), added(9, 2)}, []string{"new 9=1", "destroy 9=0", "new 9=2"}, []string{"1=1", "9=2"}},
		{"ended and came back", nil, live, []flow.Event{ended(1), added(1, 2)}, []string{"destroy 1=0", "new 1=2"}, []string{"1=2"}},
		{"ended", nil, live, []flow.Event{silent(ended(1))}, []string{"destroy 1=1"}, nil},
		{"changed and ended", nil, live, []flow.Event{updated(1, 2), silent(ended(1))}, []string{"destroy 1=2"}, nil},
		{"replaced and ended", nil, live, []flow.Event{added(1, 2), silent(ended(1))}, []string{"new 1=2", "destroy 1=2"}, nil},
		{"ended twice", nil, live, []flow.Event{ended(1), ended(1)}, []string{"destroy 1=0"}, nil},
		{"not known", nil, live, []flow.Event{ended(9)}, []string{"destroy 9=0"}, []string{"1=1"}},
		{"an expectation", nil, live, []flow.Event{awaited(21, 1), met(21)}, []string{"expect x21=1", "unexpect x21=0"}, []string{"1=1"}},
		{"by our own hand", nil, own, []flow.Event{added(9, 1), ended(9)}, nil, []string{"1=1"}},
		{"of a hold cache", []option{withHold}, live, []flow.Event{added(9, 1), ended(9), ended(1)}, nil, nil},
		{"two at once", nil, live, []flow.Event{added(8, 1), added(9, 1), ended(9)}, []string{"new 9=1", "destroy 9=0", "new 8=1"}, []string{"1=1", "8=1"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, append(c.options, withEveryFlow)...)
			r.feed(live, added(1, 1))
			r.out.sent = nil
			r.feed(c.h, c.events...)
			r.expect(c.sent...)
			r.holds(c.holds...)
		})
	}
}

// TestEveryFlowDuringReplay: a flow of which a tombstone stays is told of once.
func TestEveryFlowDuringReplay(t *testing.T) {
	r := newRig(t, withEveryFlow)
	r.feed(during(live, 5), begin(0))
	r.feed(live, added(9, 1), ended(9))
	r.expect("new 9=1", "destroy 9=0")
	r.feed(live, added(9, 2))
	r.feed(during(live, 5), updated(9, 1), end(0, 1))
	r.expect("new 9=2")
	r.holds("9=2")
}
