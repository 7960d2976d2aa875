package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/bundled"
)

// TestTranscripts compares what commands print with golden files, each a
// transcript of several command lines.
func TestTranscripts(t *testing.T) {
	socket := serve(t, fake{})
	for file, lines := range map[string][]string{
		"status.txt":  {"status", "status -v"},
		"status.json": {"status -o json"},
		"dump.txt": {
			"dump local", "dump local -o json", "dump peers.cache.memory -- --proto", "dump nosuch", "dump",
			"dump --expectations local", "stats local", "stats local -o json", "stats",
			"tap --count 2 local.cache.memory", "tap", "tap --rate=-1 x",
			"record", "record x", "record --to x", "record --to x a.b --size=few", "record --to x --from y z", "record --print x --to y", "record --to x a.b c=d",
			"record --print testdata/no.rec",
		},
		"steps.txt": {
			"flush local peers", "flush --all", "flush --expectations local", "flush kernel", "commit", "bulk", "resync local", "request-resync", "purge",
			"role primary", "reload", "reopen", "stop",
		},
		"plan.txt":   {"plan", "plan -o json", "plan -f testdata/pipelines/good.hcl", "plan --var a=b", "plan x"},
		"steps.json": {"flush --all -o json", "commit -o json", "role backup -o json"},
		"graph.txt": {
			"graph -f testdata/pipelines/good.hcl", "graph -f testdata/pipelines/good.hcl --format dot", "graph -f testdata/pipelines/bad.hcl",
			"graph --live --interval 1ms --format dot", "graph", "graph --live -f x", "graph --live --format png", "graph --live --interval 0s", "top", "top -o json",
		},
		"usage.txt": {
			"", "stat", "nonsense", "status now", "status --nonsense", "status -o yaml", "flush", "flush --all local",
			"flush kernel local", "flush --expectations kernel", "role", "role king", "role primary backup", "dump", "stop it", "run", "run -f", "validate",
			"validate -f a b", "version 1", "plugin-exec", "plugin-exec filter-basic", "fmt --check=maybe",
		},
		"help.txt": {
			"help", "help run", "help validate", "help fmt", "help import", "help status", "help dump", "help flush", "help commit",
			"help bulk", "help resync", "help request-resync", "help purge", "help role", "help stop", "help version",
			"help reopen", "help stats", "help graph", "help tap", "help record", "help test", "help top", "help reload", "help plan",
		},
		"complete.txt": {
			"__complete dump ", "__complete flush ", "__complete flush local ", "__complete dump local ", "__complete tap ", "__complete record ", "__complete resync ",
			"__complete purge ", "__complete role ", "__complete status -o ", "__complete st", "__complete run -f ",
		},
	} {
		t.Run(file, func(t *testing.T) {
			var text strings.Builder
			for _, line := range lines {
				args := strings.Split(line, " ")
				if line == "" {
					args = []string{}
				}
				text.WriteString(execute(t, "", socket, args...) + "\n")
			}
			golden(t, file, text.String())
			checkWidth(t, text.String())
		})
	}
}

// checkWidth keeps what is for people within the width of a console. JSON and
// errors of steps may be longer.
func checkWidth(t *testing.T, text string) {
	for _, line := range strings.Split(text, "\n") {
		if utf8.RuneCountInString(line) > 120 && !strings.Contains(line, `"`) {
			t.Errorf("wider than 120 columns: %s", line)
		}
	}
}

// Programs read back what was sent, whatever the text looks like.
func TestStatusJSON(t *testing.T) {
	text := execute(t, "", serve(t, fake{}), "status", "-o", "json")
	_, text, _ = strings.Cut(text, "\n")
	var got control.Status
	if err := json.Unmarshal([]byte(text), &got); err != nil {
		t.Fatal(err)
	}
	if n := len(got.Pipelines); n != 2 || got.Pipelines[0].Stages[0].EventsOut != 123_456_789 {
		t.Errorf("%d pipelines, %+v", n, got.Pipelines)
	}
}

func TestNoRunner(t *testing.T) {
	missing := filepath.Join(shortDir(t), "s")
	var text strings.Builder
	for _, args := range [][]string{{"status"}, {"commit"}, {"commit", "-o", "json"}, {"dump", "local"}, {"__complete", "dump", ""}} {
		text.WriteString(execute(t, "", missing, args...) + "\n")
	}
	golden(t, "norunner.txt", text.String())
}

// --socket wins over the environment.
func TestSocketFlag(t *testing.T) {
	socket := serve(t, fake{})
	text := execute(t, "", "/nonexistent", "dump", "local", "--socket", socket)
	if !strings.Contains(text, "ESTABLISHED") {
		t.Error(text)
	}
}

// hanging is a backend that never answers.
type hanging struct {
	fake
	entered chan struct{}
}

func (h hanging) Do(ctx context.Context, _ control.Request, _ func(control.Step)) error {
	close(h.entered)
	<-ctx.Done()
	return ctx.Err()
}

func TestInterrupted(t *testing.T) {
	h := hanging{entered: make(chan struct{})}
	socket := serve(t, h)
	var stderr bytes.Buffer
	a := newApp(nil, &bytes.Buffer{}, &stderr)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-h.entered
		cancel()
	}()
	if status := a.execute(ctx, []string{"bulk", "--socket", socket}); status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	if got := stderr.String(); got != "sluice: interrupted\n" {
		t.Errorf("got %q", got)
	}
}

// What went to a full disk has not been printed.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	socket := serve(t, fake{})
	for _, line := range []string{"status", "status -o json", "dump local", "bulk", "bulk -o json", "version", "version -o json"} {
		var stderr bytes.Buffer
		a := newApp(nil, full, &stderr)
		status := a.execute(t.Context(), append(strings.Fields(line), "--socket", socket))
		if status != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%s: exit status %d, %q", line, status, stderr.String())
		}
	}
}

func TestVersion(t *testing.T) {
	if got := execute(t, "", "", "version"); !strings.HasPrefix(got, "$ sluice version\nsluice ") || strings.Count(got, "\n") != 2 {
		t.Error(got)
	}
	_, text, _ := strings.Cut(execute(t, "", "", "version", "-o", "json"), "\n")
	var b build
	if err := json.Unmarshal([]byte(text), &b); err != nil || b.Version == "" || b.Go == "" || b.Platform == "" {
		t.Errorf("%v: %s", err, text)
	}
}

// Every bundled plugin has a name of its own and can describe itself.
func TestBundled(t *testing.T) {
	seen := map[string]bool{}
	for i, name := range bundledNames() {
		if seen[name] {
			t.Errorf("%s is listed twice", name)
		}
		seen[name] = true
		if d := plugin.Describe(bundled.Definitions[i]); d.Summary == "" || d.Schema == nil {
			t.Errorf("%s: %v", name, d)
		}
	}
}

// Shells load what completion writes.
func TestCompletionScripts(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if got := execute(t, "", "", "completion", shell); len(got) < 1000 || strings.Contains(got, "--- stderr") {
			t.Errorf("%s: %.200s", shell, got)
		}
	}
}

func TestTwoDashes(t *testing.T) {
	got := twoDashes([]string{"run", "-f", "x", "-var", "a=b", "-var-file=c", "-check", "-variable", "--", "-var"})
	want := []string{"run", "-f", "x", "--var", "a=b", "--var-file=c", "--check", "-variable", "--", "-var"}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got %q", got)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine(errors.Join(errors.New("a"), errors.New("b"))); got != "a; b" {
		t.Errorf("got %q", got)
	}
}

// await waits until f says that what is waited for has come.
func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func TestErrorsAreOneLine(t *testing.T) {
	err := errors.Join(errors.New("the plugin said \x1b[2Jall is well\u009b0m"), errors.New("a\tb"))
	if got, want := oneLine(err), "the plugin said ?[2Jall is well?0m; a\tb"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestVersionsThatAreShown(t *testing.T) {
	for version, want := range map[string]bool{"v1.2.3-0.20260101+dirty": true, "v1\x1b[2J": false, "v1 v2": false, strings.Repeat("1", 129): false} {
		if isWord(version) != want {
			t.Errorf("%q: %v", version, !want)
		}
	}
}
