package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
)

// A record is what a tap wrote; its reader can be held up.
type record struct {
	mu     sync.Mutex
	held   sync.Mutex // held: no write returns
	text   bytes.Buffer
	writes chan struct{}
}

func (r *record) Write(p []byte) (int, error) {
	r.held.Lock()
	defer r.held.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	defer func() {
		select {
		case r.writes <- struct{}{}:
		default:
		}
	}()
	return r.text.Write(p)
}

// await waits until what was written meets a condition.
func (r *record) await(t *testing.T, what string, ok func(text string) bool) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		text := r.text.String()
		r.mu.Unlock()
		if ok(text) {
			return
		}
		select {
		case <-r.writes:
		case <-deadline:
			t.Fatalf("%s: there is\n%s", what, text)
		}
	}
}

// evenStage is a filter's stage at work, with the ends of its edges.
func evenStage(t *testing.T) (s *stage, feed, sent int) {
	feed, input := pair(t)
	output, sent := pair(t)
	host := testHost()
	in, err := newInput(input)
	if err != nil {
		t.Fatal(err)
	}
	s = &stage{plugin: evenFilter{}, host: host, in: in, out: newOutput([]uint32{uint32(output)}, 1, host)}
	ended := make(chan error, 1)
	go func() { ended <- s.run(t.Context()) }()
	t.Cleanup(func() {
		unix.Shutdown(feed, unix.SHUT_WR)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return s, feed, sent
}

// watch runs a tap on a stage and returns what it writes, and its end.
func watch(t *testing.T, s *stage, c Command) (*record, func() error) {
	r, ended := &record{writes: make(chan struct{}, 1)}, make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- s.tap(ctx, c, r) }()
	r.await(t, "the tap begins", func(text string) bool { return strings.Contains(text, "tapping") })
	return r, sync.OnceValue(func() error { cancel(); return <-ended })
}

func feedEvents(t *testing.T, fd int, h flow.Header, events ...*flow.Event) {
	t.Helper()
	if err := sendPacket(fd, builder(h, events...).Bytes(), 0); err != nil {
		t.Fatal(err)
	}
}

// What leaves a stage and what enters it are seen, by the conditions.
func TestTap(t *testing.T) {
	s, feed, _ := evenStage(t)
	out, endOut := watch(t, s, Command{})
	in, endIn := watch(t, s, Command{Args: []string{"edge=input", "source=0.0.0.3"}, JSON: true})
	feedEvents(t, feed, flow.Header{Replay: 9}, event(1), event(2), event(3), event(4))
	out.await(t, "the filter's output", func(text string) bool {
		return strings.Contains(text, "src=0.0.0.2") && strings.Contains(text, "src=0.0.0.4") && strings.Contains(text, "replay=9") &&
			!strings.Contains(text, "src=0.0.0.1") && !strings.Contains(text, "src=0.0.0.3")
	})
	in.await(t, "its input", func(text string) bool { return strings.Count(text, "\n") == 2 })
	var e struct {
		Kind   string
		Replay int
	}
	if err := json.Unmarshal([]byte(strings.Split(in.text.String(), "\n")[1]), &e); err != nil || e.Replay != 9 || e.Kind == "" {
		t.Errorf("%+v, %v: %s", e, err, in.text.String())
	}
	for _, end := range []func() error{endOut, endIn} {
		if err := end(); err != nil {
			t.Error(err)
		}
	}
	if s.out.taps.list.Load() != nil || s.taps.list.Load() != nil {
		t.Error("a tap that ended is still there")
	}
}

// A count ends it; a rate leaves out, and says so.
func TestTapCountAndRate(t *testing.T) {
	s, feed, _ := evenStage(t)
	out, end := watch(t, s, Command{Args: []string{"count=3"}})
	feedEvents(t, feed, flow.Header{}, event(2), event(4), event(6), event(8))
	out.await(t, "three events", func(text string) bool { return strings.Count(text, "src=") == 3 })
	if err := end(); err != nil {
		t.Error(err)
	}
	out, _ = watch(t, s, Command{Args: []string{"rate=1"}, JSON: true})
	feedEvents(t, feed, flow.Header{}, event(2), event(4), event(6), event(8))
	out.await(t, "the account", func(text string) bool { return strings.Contains(text, `{"unshown":3}`) })
}

// A reader that stands still holds nobody up, and learns what it missed.
func TestTapNeverHoldsUp(t *testing.T) {
	s, feed, sent := evenStage(t)
	out, end := watch(t, s, Command{Args: []string{"rate=0"}})
	out.held.Lock()
	const batches, each = 500, 100
	var events []*flow.Event
	for i := range uint32(each) {
		events = append(events, event(2*i))
	}
	go func() {
		for range batches {
			if sendPacket(feed, builder(flow.Header{}, events...).Bytes(), 0) != nil {
				return
			}
		}
	}()
	buf := make([]byte, flow.MaxBatch)
	for range batches { // while the reader stands still
		if _, err := unix.Read(sent, buf); err != nil {
			t.Fatal(err)
		}
	}
	out.held.Unlock()
	out.await(t, "all events shown or accounted for", func(text string) bool {
		total := strings.Count(text, "src=")
		missed := 0
		for line := range strings.Lines(text) {
			var unseen, unshown int
			if n, _ := fmt.Sscanf(line, "# left out: %d events not looked at, %d chosen", &unseen, &unshown); n == 2 {
				total += unseen + unshown
				missed += unseen
			}
		}
		return total == batches*each && missed > 0
	})
	if err := end(); err != nil {
		t.Error(err)
	}
}

func TestTapRefuses(t *testing.T) {
	s, _, _ := evenStage(t)
	for _, arg := range []string{"edge=middle", "rate=-1", "rate=x", "count=-3", "colour=red", "source=x", "nonsense"} {
		if err := s.tap(t.Context(), Command{Args: []string{arg}}, &bytes.Buffer{}); err == nil {
			t.Errorf("%s is taken", arg)
		}
	}
}

// Without a tap a packet costs no allocation, and hardly any time.
func TestNoTapNoCost(t *testing.T) {
	var place taps
	packet := builder(flow.Header{}, event(1)).Bytes()
	if n := testing.AllocsPerRun(100, func() { place.pass(packet, 1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkTap has what the thread that moves data pays a batch of 120 events.
func BenchmarkTap(b *testing.B) {
	var events []*flow.Event
	for i := range uint32(120) {
		events = append(events, event(i))
	}
	packet := builder(flow.Header{}, events...).Bytes()
	for _, watched := range []bool{false, true} {
		b.Run(map[bool]string{false: "nobody", true: "watched"}[watched], func(b *testing.B) {
			var place taps
			if watched {
				t := &tap{queue: make(chan tapped, tapQueue)}
				t.refill()
				place.add(t)
			}
			b.ReportAllocs()
			for b.Loop() {
				place.pass(packet, 120)
			}
		})
	}
}
