package trackfile

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestJudge(t *testing.T) {
	type state struct{ missing, primary bool }
	in, out, busy := state{}, state{missing: true}, state{missing: true, primary: true}
	for _, c := range []struct {
		name   string
		before string // "": there is no file
		states []state
		every  time.Duration
		want   string
	}{
		{"starts for the first time", "", nil, 0, outOfSync},
		{"what is no number of ours", "7", nil, 0, outOfSync},
		{"has begun", "", []state{out}, 0, outOfSync},
		{"is in sync", "", []state{out, in}, 0, inSync},
		{"was in sync before its restart", inSync, []state{out}, 0, inSync},
		{"was not", outOfSync, []state{out}, 0, outOfSync},
		{"a loss that is repaired", "", []state{in, out, in, out}, patience / 2, inSync},
		{"a loss that stays", "", []state{in, out, out, out}, patience / 2, outOfSync},
		{"of who carries the traffic", "", []state{in, busy, busy, busy}, patience / 2, inSync},
		{"is told to carry it", "", []state{out, busy}, patience, inSync},
	} {
		path := filepath.Join(t.TempDir(), "track")
		if c.before != "" {
			if err := os.WriteFile(path, []byte(c.before), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f, err := Open(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		for _, s := range c.states {
			var missing []string
			if s.missing {
				missing = []string{"peers.source.multicast replays (gap)"}
			}
			f.Judge(now, missing, s.primary)
			now = now.Add(c.every)
		}
		if got := read(t, path); got != c.want {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
}

// At the end of the runner the file says that it is gone, but for a primary.
func TestEnd(t *testing.T) {
	for primary, want := range map[bool]string{true: inSync, false: outOfSync} {
		path := filepath.Join(t.TempDir(), "track")
		f, err := Open(path, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		f.Judge(time.Now(), nil, primary)
		f.End(primary)
		if got := read(t, path); got != want {
			t.Errorf("primary %v: %q, not %q", primary, got, want)
		}
	}
}

func TestOpenFails(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "missing", "track"), slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a directory that is not there")
	}
}
