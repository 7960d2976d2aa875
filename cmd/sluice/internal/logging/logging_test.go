package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/pipeline"
)

func TestFormats(t *testing.T) {
	var text, object bytes.Buffer
	for format, out := range map[string]*bytes.Buffer{"text": &text, "json": &object} {
		l, err := Open(pipeline.Log{Level: "warn", Format: format}, out)
		if err != nil {
			t.Fatal(err)
		}
		l.Info("not written")
		l.With("stage", "a.b.c").Warn("written", "error", errors.New("a\nb"))
		l.Close()
		if l.Level.Level() != slog.LevelWarn {
			t.Errorf("level %v", l.Level.Level())
		}
	}
	if got := text.String(); !strings.HasSuffix(got, `level=WARN msg=written stage=a.b.c error="a\nb"`+"\n") || strings.Count(got, "\n") != 1 {
		t.Errorf("got %q", got)
	}
	var line struct{ Level, Msg, Stage, Error string }
	if err := json.Unmarshal(object.Bytes(), &line); err != nil || line.Stage != "a.b.c" || line.Error != "a\nb" {
		t.Errorf("%v: %s", err, object.String())
	}
}

func TestOpenErrors(t *testing.T) {
	for want, c := range map[string]pipeline.Log{
		"log: level: ":                          {Level: "loud"},
		"log: open /nonexistent/log: ":          {File: "/nonexistent/log"},
		`log: syslog: no facility "nonsense"; `: {Syslog: "nonsense"},
	} {
		if _, err := Open(c, nil); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	l, err := Open(pipeline.Log{File: path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stage := l.With("stage", "a.b.c") // made before, and writes to the new file all the same
	stage.Info("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	stage.Info("two")
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	stage.Info("three")
	// A failure loses nothing.
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir + ".moved")
	if err := l.Reopen(); err == nil {
		t.Error("opened in a directory that is gone")
	}
	stage.Info("four")
	for name, want := range map[string][]string{"log.1": {"one", "two"}, "log": {"three", "four"}} {
		text, err := os.ReadFile(filepath.Join(dir+".moved", name))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			_, rest, _ := strings.Cut(line, "msg=")
			msg, _, _ := strings.Cut(rest, " ")
			got = append(got, msg)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestReopenWithoutFile(t *testing.T) {
	l, err := Open(pipeline.Log{}, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Error(err)
	}
}

// daemon stands for syslog's.
type daemon []string

func (d *daemon) line(severity, text string) error {
	*d = append(*d, severity+": "+text)
	return nil
}

func (d *daemon) Debug(s string) error   { return d.line("debug", s) }
func (d *daemon) Info(s string) error    { return d.line("info", s) }
func (d *daemon) Warning(s string) error { return d.line("warning", s) }
func (d *daemon) Err(s string) error     { return d.line("err", s) }

// syslog has the time and the severity itself; a line never ends before its
// end, which text and JSON both quote.
func TestSyslog(t *testing.T) {
	var d daemon
	text := slog.New(newSyslogHandler(&d, "text", slog.LevelDebug)).With("stage", "a.b.c")
	text.Debug("one", "level", 3)
	text.Info("two\nlines")
	text.WithGroup("caller").Warn("three", "uid", 7, "time", "noon")
	slog.New(newSyslogHandler(&d, "json", slog.LevelInfo)).Error("four", "error", errors.New("x"))
	slog.New(newSyslogHandler(&d, "text", slog.LevelInfo)).Debug("not sent")
	want := daemon{
		`debug: msg=one stage=a.b.c level=3`,
		`info: msg="two\nlines" stage=a.b.c`,
		`warning: msg=three stage=a.b.c caller.uid=7 caller.time=noon`,
		`err: {"msg":"four","error":"x"}`,
	}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}
