package runner

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func TestLinesOfAPluginsLog(t *testing.T) {
	for line, want := range map[string]string{
		`{"level":"ERROR","msg":"no","n":3}`:                             "level=ERROR msg=no n=3",
		`{"@level":"debug","@message":"address","@timestamp":"x"}`:       "level=DEBUG msg=address",
		`{"@level":"loud","@message":"address"}`:                         `level=WARN msg="stage wrote: {`,
		`{"@message":42,"@level":[],"@timestamp":{}}`:                    `level=WARN msg="stage wrote: {`,
		"text with \x1b[31m":                                             `level=WARN msg="stage wrote: text with ?[31m"`,
		`{"level":"INFO","msg":"its own","time":"then","stage":"other"}`: `level=INFO msg="its own"` + "\n",
	} {
		var out bytes.Buffer
		l := newStderrLog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
		l.read(strings.NewReader(line + "\n"))
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nis logged as %s\nwant %s", line, out.String(), want)
		}
	}
}

// Of a program in Go that crashed the last lines are of no use alone.
func TestTailSaysWhyAProgramCrashed(t *testing.T) {
	var text strings.Builder
	fmt.Fprintln(&text, "before")
	fmt.Fprintln(&text, "panic: out of luck")
	for i := range 10 {
		fmt.Fprintln(&text, "frame", i)
	}
	l := newStderrLog(slog.New(slog.DiscardHandler))
	l.read(strings.NewReader(text.String()))
	if got, want := l.tail(), "panic: out of luck | … | frame 5 | frame 6 | frame 7 | frame 8 | frame 9"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"größer\tals": "größer\tals", "\x1b[2J\r\n\x7f": "?[2J???", "\u009b2J": "?2J", "\xff": "?",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
