package sourcereplay

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/confine"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugintest"
	"github.com/sluice-project/sluice/core/plugintest/kit"
	"github.com/sluice-project/sluice/core/recording"
)

func TestMain(m *testing.M) {
	confine.Main()
	plugintest.Main(m, Definition)
}

// A recorded batch.
type recorded struct {
	at     time.Duration
	header flow.Header
	events []flow.Event
}

// record writes a recording and returns its path.
func record(t *testing.T, batches ...recorded) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flows.rec")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := recording.NewWriter(file, recording.About{Started: time.Now()})
	for _, b := range batches {
		for _, p := range kit.Pack(b.header, 0, b.events...) {
			decoded, _ := flow.DecodeBatch(p)
			err = errors.Join(err, w.Write(b.at, p, decoded.Count))
		}
		err = errors.Join(err, w.Lost(b.at, 2))
	}
	if err = errors.Join(err, w.Close("made for a test", 0)); err != nil {
		t.Fatal(err)
	}
	return path
}

func start(t *testing.T, path, more string) *plugintest.Stage {
	t.Helper()
	return plugintest.Start(t, plugintest.Plugin{Definition: Definition, Block: fmt.Sprintf("file = %q\n%s", path, more)})
}

// await waits until so many events have come out.
func await(t *testing.T, s *plugintest.Stage, n uint64) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		numbers, err := s.Numbers()
		if err != nil {
			t.Fatal(err)
		}
		if numbers.EventsOut >= n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d events of %d", numbers.EventsOut, n)
		}
	}
}

func TestConforms(t *testing.T) {
	path := record(t, recorded{events: kit.Events(0, 500, flow.New)})
	plugintest.Run(t, plugintest.Plugin{Definition: Definition, Block: fmt.Sprintf("file = %q", path)})
}

// What comes out is what was recorded, with its owners and origins, and live; the
// end of a flow is the end of what a replay names.
func TestPlays(t *testing.T) {
	peer := flow.Header{Origin: flow.Peer, Owner: netip.MustParseAddr("192.168.100.2")}
	path := record(t,
		recorded{0, flow.Header{}, kit.Events(0, 10, flow.New)},
		recorded{time.Millisecond, peer, kit.Events(100, 5, flow.New)},
		recorded{2 * time.Millisecond, flow.Header{Replay: 7}, kit.Replayed(0, kit.Events(10, 3, flow.Update)...)},
		recorded{3 * time.Millisecond, flow.Header{}, kit.Events(0, 4, flow.Destroy)},
	)
	s := start(t, path, "")
	await(t, s, 22)
	replayed := s.Replayed(99)
	if keys := keysOf(replayed); len(keys) != 6+5+3 {
		t.Errorf("a replay names %d flows", len(keys))
	}
	packets, err := s.Stage.Drain()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range packets {
		if p.Header.Replay != 0 {
			if marks := p.Events; !p.Header.Owner.IsValid() && len(marks) != 1 && marks[len(marks)-1].Kind == flow.SyncEnd {
				lines = append(lines, fmt.Sprintf("end %d", marks[len(marks)-1].Sync.Count))
			}
			continue
		}
		lines = append(lines, fmt.Sprintf("%v %v %d %v", p.Header.Origin, p.Header.Owner, len(p.Events), p.Events[0].Kind))
	}
	want := []string{"kernel invalid IP 10 new", "peer 192.168.100.2 5 new", "kernel invalid IP 3 update", "kernel invalid IP 4 destroy", "end 9"}
	if !slices.Equal(lines, want) {
		t.Errorf("%q", lines)
	}
}

func keysOf(events []flow.Event) map[flow.Key]bool {
	keys := map[flow.Key]bool{}
	for _, e := range events {
		keys[e.Key()] = true
	}
	return keys
}

// An hour passes at once if it is asked for, and again and again.
func TestSpeedAndLoop(t *testing.T) {
	path := record(t,
		recorded{0, flow.Header{}, kit.Events(0, 10, flow.New)},
		recorded{time.Hour, flow.Header{}, kit.Events(0, 10, flow.Destroy)},
	)
	for _, block := range []string{"speed = 0\nloop = true", "speed = 1000000\nloop = true"} {
		s := start(t, path, block)
		await(t, s, 100)
		numbers, err := s.Numbers()
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range numbers.Own {
			if n.Name == "rounds" && n.Value < 4 || n.Name == "events_missing" && n.Value < 16 {
				t.Errorf("%s: %s is %d", block, n.Name, n.Value)
			}
		}
		s.Drain()
	}
	s := start(t, path, "speed = 1")
	await(t, s, 10)
	if events := s.Drain(); len(events) != 10 {
		t.Errorf("an hour early: %d events", len(events))
	}
}

// With more flows than it may remember it plays on and does not replay, since
// below they would be swept.
func TestForgets(t *testing.T) {
	path := record(t, recorded{0, flow.Header{}, kit.Events(0, 10, flow.New)})
	s := start(t, path, "limit = 9")
	await(t, s, 10)
	if _, err := s.Order(5, 0); err == nil || !strings.Contains(err.Error(), "raise limit") {
		t.Errorf("the replay: %v", err)
	}
}

// A file that was cut off is played as far as it goes.
func TestCutShort(t *testing.T) {
	path := record(t, recorded{0, flow.Header{}, kit.Events(0, 10, flow.New)}, recorded{2 * time.Second, flow.Header{}, kit.Events(10, 10, flow.New)})
	text, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, text[:len(text)*2/3], 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, path, "speed = 0\nloop = true")
	await(t, s, 10)
	if events := s.Drain(); len(events) < 10 || len(events) >= 20 {
		t.Errorf("%d events", len(events))
	}
}

// The rules of state, by number.
func TestState(t *testing.T) {
	none := netip.Addr{}
	s := newState(2)
	note := func(e flow.Event) bool { return s.note(&e, none) }
	get := func(n uint32) (e flow.Event, ok bool) {
		one := kit.Event(flow.New, n)
		r, ok := s.owners[none].flows[one.Key()]
		if ok {
			r.Event(&e)
		}
		return e, ok
	}
	update := kit.Event(flow.Update, 1)
	update.Present, update.Mark, update.Tail = flow.HasMark, 4711, nil
	note(kit.Event(flow.New, 1))
	note(update)
	if e, _ := get(1); e.Mark != 4711 || !e.Has(flow.HasReply) || len(e.Tail) == 0 || e.Kind != flow.Update { // 1
		t.Errorf("merged: %v", &e)
	}
	other := kit.Event(flow.Destroy, 1)
	other.ID++
	note(other)
	if _, ok := get(1); !ok {
		t.Error("the end of another flow ended this one")
	}
	fresh := kit.Event(flow.New, 1)
	note(fresh)
	if e, _ := get(1); e.Mark == 4711 {
		t.Error("NEW did not replace")
	}
	expect := kit.Event(flow.Expect, 50)
	if !note(expect) || s.size != 2 || note(kit.Event(flow.New, 2)) || !s.full { // 2, 3
		t.Errorf("%d entries, full: %v", s.size, s.full)
	}
	note(kit.Event(flow.Unexpect, 50))
	note(kit.Event(flow.Destroy, 1))
	note(kit.Event(flow.Destroy, 1))
	if s.size != 0 {
		t.Errorf("%d entries are left", s.size)
	}
}

func TestValidate(t *testing.T) {
	for json, want := range map[string]string{
		`{"file":"/a"}`:                     "",
		`{"file":"a"}`:                      "Relative path",
		`{"file":"/a","speed":-1}`:          "Number out of range",
		`{"file":"/a","speed":0.000000001}`: "Number out of range",
		`{"file":"/a","speed":0.5}`:         "",
	} {
		_, reply := plugin.Configure(Definition, []byte(json))
		got := ""
		if len(reply.Diagnostics) > 0 {
			got = reply.Diagnostics[0].Summary
		}
		if got != want {
			t.Errorf("%s: %q", json, got)
		}
	}
}
