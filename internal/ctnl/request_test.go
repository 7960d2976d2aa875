package ctnl

import "testing"

// A request that goes round for ever is a failure with a reason, though the last
// answer was no error.
func TestRequestsEnd(t *testing.T) {
	w := &Writer{}
	for op, step := range map[operation]step{commit: stepGet, commitExpect: stepGetExpected} {
		r := &request{step: step}
		r.set(op, udp("10.0.0.1:1", "10.0.0.2:2"), 0)
		for r.rounds = maxRounds; !w.advance(r); {
			t.Fatal("one round more")
		}
	}
	c := w.Counts(true)
	if c.Failed() != 1 || c.FailedExpectations() != 1 {
		t.Fatalf("%+v", c)
	}
	for _, f := range c.Failures {
		if f.Errno == 0 || f.Reason() != "what is in its way changed with each attempt" {
			t.Errorf("%+v: %s", f, f.Reason())
		}
	}
}
