package pipeline

import (
	"strings"
	"testing"
)

func TestScheduler(t *testing.T) {
	for _, c := range []struct {
		scheduler Scheduler
		want      string
	}{
		{Scheduler{Type: "rr", Priority: 1}, ""},
		{Scheduler{Type: "fifo", Priority: 99}, ""},
		{Scheduler{Type: "other", Nice: -20}, ""},
		{Scheduler{Type: "other"}, ""},
		{Scheduler{Type: "rr"}, "[scheduler priority]: Priority out of range"},
		{Scheduler{Type: "fifo", Priority: 100}, "[scheduler priority]: Priority out of range"},
		{Scheduler{Type: "rr", Priority: 1, Nice: 1}, "[scheduler nice]: Nice without effect"},
		{Scheduler{Type: "other", Priority: 1}, "[scheduler priority]: Priority without effect"},
		{Scheduler{Type: "other", Nice: 20}, "[scheduler nice]: Number out of range"},
		{Scheduler{Type: "RR", Priority: 100}, "[scheduler type]: Unknown type of scheduler"},
	} {
		r := DefaultRunner()
		r.Name, r.Scheduler = "node", &c.scheduler
		d := r.Validate()
		if c.want == "" && len(d) > 0 || c.want != "" && (len(d) != 1 || !strings.HasPrefix(d.Error(), c.want)) {
			t.Errorf("%+v: %v, not %s", c.scheduler, d, c.want)
		}
	}
}
