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

// Each service has its own directory.
func TestRuntimeDirectory(t *testing.T) {
	for given, want := range map[string]string{
		"": "/run/sluice", "/run/sluice": "/run/sluice", "/run/sluice-branch": "/run/sluice-branch", "/run/sluice-a:/run/b": "/run/sluice-a",
		"/run/other": "/run/sluice",
	} {
		t.Setenv("RUNTIME_DIRECTORY", given)
		r := DefaultRunner()
		if r.Control.Path != want+"/control.sock" || r.LockFile != want+"/sluice.lock" {
			t.Errorf("%q: %s and %s, not in %s", given, r.Control.Path, r.LockFile, want)
		}
	}
}

func TestTrackFile(t *testing.T) {
	for path, want := range map[string]int{"": 0, "/run/sluice/track": 0, "track": 1} {
		r := DefaultRunner()
		r.Name, r.TrackFile = "node", path
		if d := r.Validate(); len(d) != want {
			t.Errorf("%q: %v", path, d)
		}
	}
}
