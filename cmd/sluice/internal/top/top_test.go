package top

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-project/sluice/core/control"
)

var update = flag.Bool("update", false, "write the golden files")

var begin = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// node is a node n seconds after the begin.
func node(n uint64) *control.Status {
	stage := func(address, kind string, perSecond uint64, cpu float64, memory uint64) control.StageStatus {
		return control.StageStatus{Address: address, Kind: kind, State: "running", PID: 7, EventsIn: n * perSecond, EventsOut: n * perSecond / 2,
			CPUSeconds: cpu * float64(n), MemoryBytes: memory << 20}
	}
	s := &control.Status{Node: "fw1", Version: "1.0.0", Started: begin.Add(-time.Hour), Role: "primary", Pipelines: []control.PipelineStatus{
		{Name: "local", Stages: []control.StageStatus{
			stage("local.source.netlink", "source", 57000, 0.21, 19),
			stage("local.filter.basic", "filter", 57000, 0.04, 18),
			stage("local.cache.memory", "cache", 30000, 0.11, 512),
			stage("local.sink.multicast", "sink", 12345678, 0.05, 20),
		}},
		{Name: "peers", Stages: []control.StageStatus{
			stage("peers.source.multicast", "source", 0, 0, 20),
			stage("peers.cache.a-name-longer-than-there-is-room-for", "cache", 0, 0, 18),
			stage("peers.sink.kernel", "sink", 0, 0, 18),
		}},
	}, Signals: []control.SignalStatus{
		{Stage: "peers.source.multicast", Name: "gap", Times: 3, Last: begin.Add(-time.Minute), Detail: "10.0.0.2: 17 messages\x1b[2J after 1203 never came, and more of that"},
		{Stage: "local.source.netlink", Name: "overrun", Times: 1, Last: begin},
	}}
	s.Pipelines[0].Stages[2].Lost, s.Pipelines[0].Stages[2].QueueBytes = 12, 100000
	s.Pipelines[1].Stages[2].State = "waiting"
	s.Unready = []string{"peers.sink.kernel does not run"}
	return s
}

// watch is a screen that was told of a node twice.
func watch() *Model {
	m := New(Options{Interval: time.Hour})
	m.Update(answered{node(10), nil, begin.Add(10 * time.Second)})
	m.Update(answered{node(12), nil, begin.Add(12 * time.Second)})
	return m
}

func press(m *Model, keys ...string) (cmd tea.Cmd) {
	for _, k := range keys {
		msg := tea.KeyPressMsg{Code: []rune(k)[0], Text: k}
		switch k {
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		case "up":
			msg = tea.KeyPressMsg{Code: tea.KeyUp}
		case "space":
			msg = tea.KeyPressMsg{Code: tea.KeySpace, Text: " "}
		case "ctrl+c":
			msg = tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl}
		}
		_, cmd = m.Update(msg)
	}
	return cmd
}

// TestScreens compares whole screens with a golden file.
func TestScreens(t *testing.T) {
	var all strings.Builder
	show := func(name string, m *Model) { fmt.Fprintf(&all, "== %s\n%s\n", name, m.View().Content) }
	show("nothing yet", New(Options{}))
	refused := New(Options{Interval: time.Hour})
	refused.Update(answered{nil, errors.New("no runner: nothing is at /run/sluice/control.sock"), begin})
	show("no runner", refused)
	once := New(Options{Interval: time.Hour})
	once.Update(answered{node(10), nil, begin})
	show("asked once: no rates", once)
	show("asked twice", watch())
	m := watch()
	press(m, "c")
	show("by CPU", m)
	press(m, "m", "r")
	show("by memory, the least first", m)
	m = watch()
	press(m, "p")
	show("paused", m)
	m = watch()
	m.Update(answered{nil, errors.New("the runner went away"), begin.Add(14 * time.Second)})
	show("the runner went away", m)
	m = watch()
	m.Update(tea.WindowSizeMsg{Width: 60, Height: 8})
	press(m, "down")
	show("a small screen, scrolled", m)
	m = watch()
	m.Update(tea.WindowSizeMsg{Width: 130, Height: 14})
	show("a wide one", m)

	const file = "testdata/screens.golden"
	if *update {
		if err := os.WriteFile(file, []byte(all.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), all.String()); d != "" {
		t.Errorf("-want +got (go test -update writes it):\n%s", d)
	}
}

// Whatever the screen's size, nothing is wider or longer, and no key breaks it.
func TestFits(t *testing.T) {
	for _, width := range []int{1, 20, 54, 80, 81, 200} {
		for _, height := range []int{1, 3, 5, 16, 24} {
			m := watch()
			m.Update(tea.WindowSizeMsg{Width: width, Height: height})
			for _, k := range []string{"o", "i", "u", "l", "w", "c", "m", "r", "down", "down", "down", "down", "down", "down", "down", "down", "up", "p", "x"} {
				press(m, k)
				lines := strings.Split(m.View().Content, "\n")
				if len(lines) > height {
					t.Errorf("%d lines on %d × %d", len(lines), width, height)
				}
				for _, l := range lines {
					if n := utf8.RuneCountInString(l); n > width || strings.ContainsRune(l, '\x1b') {
						t.Errorf("%d columns on %d × %d: %q", n, width, height, l)
					}
				}
			}
		}
	}
}

func TestKeys(t *testing.T) {
	for _, k := range []string{"q", "ctrl+c"} {
		cmd := press(watch(), k)
		if cmd == nil || reflect.TypeOf(cmd()) != reflect.TypeFor[tea.QuitMsg]() {
			t.Errorf("%s does not quit", k)
		}
	}
	m := watch()
	press(m, "space")
	m.Update(answered{node(100), nil, begin.Add(100 * time.Second)})
	if got := m.status.Pipelines[0].Stages[0].EventsIn; got != 12*57000 {
		t.Errorf("paused, it shows what came after: %d", got)
	}
	press(m, "space")
	m.Update(answered{node(100), nil, begin.Add(100 * time.Second)})
	if got := m.rates["local.filter.basic"].In; got != 57000 {
		t.Errorf("after a pause the rate is %v", got)
	}
	if _, cmd := m.Update(due{}); cmd == nil {
		t.Error("it asks no more")
	}
}

// Colours take no room.
func TestColor(t *testing.T) {
	bare, painted := watch(), watch()
	painted.Color = true
	text := painted.View().Content
	if !strings.Contains(text, red) {
		t.Error("no red for a stage that waits")
	}
	for _, s := range []string{bold, faint, red, yellow, green, reset} {
		text = strings.ReplaceAll(text, s, "")
	}
	if d := cmp.Diff(bare.View().Content, text); d != "" {
		t.Error(d)
	}
}
