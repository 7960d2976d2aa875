package console

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluice-project/sluice/core/control"
)

func TestUnits(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Count(0), "0"}, {Count(99_999), "99999"}, {Count(100_000), "100k"}, {Count(999_499), "999k"},
		{Count(999_500), "1.00M"}, {Count(1_234_567), "1.23M"}, {Count(12_345_678), "12.3M"}, {Count(9_996_000), "10.0M"},
		{Count(99_960_000), "100M"}, {Count(1<<64 - 1), "18.4E"},
		{Bytes(0), "0"}, {Bytes(1), "1B"}, {Bytes(999), "999B"}, {Bytes(1000), "0.98KiB"}, {Bytes(1024), "1.00KiB"},
		{Bytes(18 << 20), "18.0MiB"}, {Bytes(1<<64 - 1), "16.0EiB"},
		{Age(-time.Second), "0s"}, {Age(59999 * time.Millisecond), "59s"}, {Age(time.Minute), "1m00s"},
		{Age(time.Hour - 1), "59m59s"}, {Age(time.Hour), "1h00m"}, {Age(24*time.Hour - 1), "23h59m"},
		{Age(400*24*time.Hour + time.Hour), "400d01h"},
		{Elapsed(0), "0µs"}, {Elapsed(999_999), "999µs"}, {Elapsed(time.Millisecond), "1ms"},
		{Elapsed(1234 * time.Millisecond), "1.23s"}, {Elapsed(time.Minute), "1m00s"},
		{seconds(0), "0.0s"}, {seconds(12.34), "12.3s"}, {seconds(60), "1m00s"},
		{Counts(nil), ""}, {Counts([]control.Count{{Name: "without_master", Value: 1}}), "1 without master"},
	} {
		if c.got != c.want {
			t.Errorf("got %s, want %s", c.got, c.want)
		}
	}
}

// No number is wider than seven columns or loses its unit.
func FuzzUnits(f *testing.F) {
	f.Add(uint64(0))
	f.Add(uint64(999_499_999))
	f.Fuzz(func(t *testing.T, n uint64) {
		for _, s := range []string{Count(n), Bytes(n)} {
			if len(s) > 7 || len(s) == 0 || s[0] < '0' || s[0] > '9' {
				t.Errorf("%d: %q", n, s)
			}
		}
	})
}

// What peers and plugins say moves no cursor and rings no bell, and is cut by
// characters.
func TestCut(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"flows", 5, "flows"}, {"flows", 4, "flo…"}, {"", 1, ""}, {"grüße", 5, "grüße"}, {"grüße!", 5, "grüß…"},
		{"a\x1b[2J\r\nb\u009b", 20, "a [2J  b "}, {"ab", 1, "…"},
	} {
		if got := cut(c.text, c.width); got != c.want {
			t.Errorf("cut(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

// Whatever a runner answers, no line is wider than the screen.
func FuzzStatusWidth(f *testing.F) {
	f.Add("local.source.netlink", "detail", uint64(1)<<63)
	f.Fuzz(func(t *testing.T, name, text string, n uint64) {
		st := &control.Status{Node: name, Version: text, Role: "primary",
			Pipelines: []control.PipelineStatus{{Name: name, Stages: []control.StageStatus{{
				Address: name, State: "starting", Kind: "cache", LastError: text, EventsIn: n, EventsOut: n, Lost: n, Restarts: n,
				QueueBytes: n, MemoryBytes: n, PID: 4194304, Statistics: []control.Statistic{{Name: name, Help: text, Value: n, Peer: name}},
			}}}},
			Signals: []control.SignalStatus{{Stage: name, Name: "resync-requested", Times: n, Detail: text}},
			Replays: []control.ReplayStatus{{Stage: name, Reason: text, State: "running", Error: text}},
		}
		var out bytes.Buffer
		if err := Status(&out, st, Options{Now: time.Unix(0, 0), Verbose: true}); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(out.String(), "\n") {
			if n := utf8.RuneCountInString(line); n > Width {
				t.Errorf("%d columns: %q", n, line)
			}
		}
	})
}

func TestColors(t *testing.T) {
	st := &control.Status{Node: "fw1", Pipelines: []control.PipelineStatus{{Name: "local", Stages: []control.StageStatus{
		{Address: "local.cache.memory", Kind: "cache", State: "failed", Lost: 7},
	}}}}
	var painted, bare bytes.Buffer
	if err := errors.Join(Status(&painted, st, Options{Color: true}), Status(&bare, st, Options{})); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{string(red) + "failed" + reset, string(red) + "7" + reset} {
		if !strings.Contains(painted.String(), want) {
			t.Errorf("no %q in %q", want, painted.String())
		}
	}
	if strings.Contains(bare.String(), "\x1b") {
		t.Errorf("colour: %q", bare.String())
	}
	// Colours take no room.
	text := painted.String()
	for _, s := range []style{bold, faint, red, yellow, green, reset} {
		text = strings.ReplaceAll(text, string(s), "")
	}
	if text != bare.String() {
		t.Errorf("got\n%s\nwant\n%s", text, bare.String())
	}
}

// A stage whose turn to start has not come has been in no state for any time.
func TestNotYetStarted(t *testing.T) {
	row := stageRow(control.StageStatus{Address: "local.cache.memory", State: "starting"}, "local", time.Now())
	if row[2].text != "-" || row[3].text != "-" {
		t.Errorf("got %v", row)
	}
}

// A step that failed is red, and not cut short.
func TestStepFailed(t *testing.T) {
	var out bytes.Buffer
	s := TextSteps(&out, true, time.Now)
	long := strings.Repeat("long ", 40)
	s.Step(control.Step{Name: "commit", Stage: "peers.sink.kernel", Error: long + "\x1b[2J\n"})
	want := string(red) + "failed: " + long + " [2J " + reset + "\n"
	if !strings.HasSuffix(out.String(), want) {
		t.Errorf("got %q", out.String())
	}
	failed := errors.New("failed")
	if err := s.End(failed); err != failed {
		t.Errorf("got %v", err)
	}
}
