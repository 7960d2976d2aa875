package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fake is a backend made of functions.
type fake struct {
	status func(context.Context) (*Status, error)
	dump   func(context.Context, DumpRequest, io.Writer) error
	do     func(context.Context, Request, func(Step)) error
	plan   func([]byte) (*Plan, error)
}

func (f *fake) Status(ctx context.Context) (*Status, error) { return f.status(ctx) }

func (f *fake) Dump(ctx context.Context, r DumpRequest, out io.Writer) error {
	return f.dump(ctx, r, out)
}

func (f *fake) Plan(_ context.Context, configuration []byte) (*Plan, error) {
	return f.plan(configuration)
}

func (f *fake) Do(ctx context.Context, r Request, report func(Step)) error {
	return f.do(ctx, r, report)
}

// syncBuffer is a log that several goroutines write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// shortDir is a directory whose name leaves room for a socket's, and that
// others may enter.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// serve puts b behind a socket and returns its path and the server's log.
func serve(t *testing.T, b Backend) (socket string, log *syncBuffer) {
	t.Helper()
	socket = filepath.Join(shortDir(t), "control.sock")
	l, err := Listen(Socket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	log = &syncBuffer{}
	s := NewServer(b, slog.New(slog.NewTextHandler(log, nil)))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Shutdown(t.Context()); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return socket, log
}

var sampleStatus = &Status{
	Node: "fw1", Version: "1", PID: 7, Started: time.Unix(1700000000, 0).UTC(), Role: "primary",
	Pipelines: []PipelineStatus{{Name: "local", Stages: []StageStatus{{
		Address: "local.cache.memory", Kind: "cache", Type: "memory", State: "running", PID: 9, EventsIn: 1 << 63,
		Statistics: []Statistic{{Name: "flows", Type: "gauge", Value: 3}},
	}}}},
	Replays: []ReplayStatus{{Stage: "local.source.netlink", Reason: "start", Elapsed: time.Second, State: "done"}},
}

func TestStatus(t *testing.T) {
	fail := errors.New("the runner is starting")
	b := &fake{status: func(context.Context) (*Status, error) { return sampleStatus, nil }}
	socket, _ := serve(t, b)
	got, err := NewClient(socket).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleStatus, got); diff != "" {
		t.Error(diff)
	}

	socket, _ = serve(t, &fake{status: func(context.Context) (*Status, error) { return nil, fail }})
	if _, err := NewClient(socket).Status(t.Context()); err == nil || err.Error() != fail.Error() {
		t.Errorf("got %v", err)
	}
}

func TestDump(t *testing.T) {
	long := strings.Repeat("tcp 6 src=192.0.2.1 dst=192.0.2.2\n", 100_000)
	cases := map[string]struct {
		text string
		err  error
	}{
		"nothing":             {"", nil},
		"a line":              {"tcp 6\n", nil},
		"long":                {long, nil},
		"fails at once":       {"", errors.New(`no cache in "x"; the choices are a, b`)},
		"fails after a line":  {"tcp 6\n", errors.New("the stage ended")},
		"fails after many":    {long, errors.New("the stage ended:\n\tgrüße")},
		"fails with a header": {"tcp 6\n", errors.New("x\r\nSluice-Error: y")},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var got DumpRequest
			socket, _ := serve(t, &fake{dump: func(_ context.Context, r DumpRequest, out io.Writer) error {
				got = r
				if _, err := io.WriteString(out, c.text); err != nil {
					return err
				}
				return c.err
			}})
			want := DumpRequest{Target: "a.cache.b&c", What: DumpExpectations, Args: []string{"--proto", "t=p ü"}, JSON: true}
			var out strings.Builder
			err := NewClient(socket).Dump(t.Context(), want, &out)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if out.String() != c.text {
				t.Errorf("got %d bytes, want %d", out.Len(), len(c.text))
			}
			if got, want := oneLine(err), oneLine(c.err); got != want {
				t.Errorf("got error %q, want %q", got, want)
			}
		})
	}
}

// A dump that is cut off must not look like a short one.
func TestDumpCut(t *testing.T) {
	socket, _ := serve(t, &fake{dump: func(_ context.Context, _ DumpRequest, out io.Writer) error {
		_, _ = out.Write(bytes.Repeat([]byte("x\n"), 1<<20))
		panic(http.ErrAbortHandler)
	}})
	err := NewClient(socket).Dump(t.Context(), DumpRequest{Target: "a"}, io.Discard)
	if !errors.Is(err, ErrCut) {
		t.Errorf("got %v", err)
	}
}

// Neither must one whose end says nothing, since an error may have been there.
func TestDumpWithoutTrailer(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	l, err := Listen(Socket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	other := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "x\n")
	})}
	go func() { _ = other.Serve(l) }()
	defer other.Close()
	if err := NewClient(socket).Dump(t.Context(), DumpRequest{Target: "a"}, io.Discard); !errors.Is(err, ErrCut) {
		t.Errorf("got %v", err)
	}
}

// The writer's error is the caller's own, not the connection's.
func TestDumpToFullDisk(t *testing.T) {
	socket, _ := serve(t, &fake{dump: func(_ context.Context, _ DumpRequest, out io.Writer) error {
		_, err := out.Write(bytes.Repeat([]byte("x\n"), 1<<20))
		return err
	}})
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	err = NewClient(socket).Dump(t.Context(), DumpRequest{Target: "a"}, full)
	if err == nil || !strings.Contains(err.Error(), "no space left") {
		t.Errorf("got %v", err)
	}
}

func TestDo(t *testing.T) {
	steps := []Step{
		{Name: "commit", Stage: "peers.cache.memory", Counts: []Count{{"flows", 12}}, Elapsed: time.Second},
		{Name: "dump", Stage: "local.source.netlink", Error: "it failed", Note: "try again"},
	}
	for name, fail := range map[string]error{"done": nil, "fails": errors.New("commit: it\nfailed")} {
		t.Run(name, func(t *testing.T) {
			var got Request
			socket, log := serve(t, &fake{do: func(_ context.Context, r Request, report func(Step)) error {
				got = r
				for _, s := range steps {
					report(s)
				}
				return fail
			}})
			want := Request{Command: "flush", Targets: []string{"local", "kernel"}, All: true}
			var seen []Step
			err := NewClient(socket).Do(t.Context(), want, func(s Step) { seen = append(seen, s) })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(steps, seen); diff != "" {
				t.Error(diff)
			}
			if (err == nil) != (fail == nil) || err != nil && err.Error() != fail.Error() {
				t.Errorf("got error %v, want %v", err, fail)
			}
			if l := log.String(); !strings.Contains(l, "caller.uid=") || !strings.Contains(l, "caller.process=control.test") {
				t.Errorf("the log does not name the caller:\n%s", l)
			}
		})
	}
}

// Each step arrives when it ends, not when the command does.
func TestDoStreams(t *testing.T) {
	seen := make(chan struct{})
	socket, _ := serve(t, &fake{do: func(ctx context.Context, _ Request, report func(Step)) error {
		report(Step{Name: "commit"})
		select {
		case <-seen:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}})
	err := NewClient(socket).Do(t.Context(), Request{Command: "commit"}, func(Step) { close(seen) })
	if err != nil {
		t.Error(err)
	}
}

// A backend's goroutine may be late, and several may report at once.
func TestDoReportsFromAnywhere(t *testing.T) {
	var late sync.WaitGroup
	ended := make(chan struct{})
	socket, _ := serve(t, &fake{do: func(_ context.Context, _ Request, report func(Step)) error {
		var together sync.WaitGroup
		for range 50 {
			together.Go(func() { report(Step{Name: "purge"}) })
		}
		late.Go(func() {
			<-ended
			report(Step{Name: "late"})
		})
		together.Wait()
		return nil
	}})
	n := 0
	err := NewClient(socket).Do(t.Context(), Request{Command: "purge"}, func(Step) { n++ })
	close(ended)
	late.Wait()
	if err != nil || n != 50 {
		t.Errorf("%d steps, error %v", n, err)
	}
}

// The backend learns that its caller has gone, in every kind of request.
func TestClientGoesAway(t *testing.T) {
	entered, left := make(chan struct{}, 1), make(chan error, 1)
	wait := func(ctx context.Context) error {
		entered <- struct{}{}
		<-ctx.Done()
		left <- ctx.Err()
		return ctx.Err()
	}
	socket, _ := serve(t, &fake{
		status: func(ctx context.Context) (*Status, error) { return nil, wait(ctx) },
		dump:   func(ctx context.Context, _ DumpRequest, _ io.Writer) error { return wait(ctx) },
		do:     func(ctx context.Context, _ Request, _ func(Step)) error { return wait(ctx) },
	})
	c := NewClient(socket)
	for name, call := range map[string]func(context.Context) error{
		"status": func(ctx context.Context) error { _, err := c.Status(ctx); return err },
		"dump":   func(ctx context.Context) error { return c.Dump(ctx, DumpRequest{Target: "a"}, io.Discard) },
		"do":     func(ctx context.Context) error { return c.Do(ctx, Request{Command: "bulk"}, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-entered
				cancel()
			}()
			if err := call(ctx); !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "interrupted") {
				t.Errorf("got %v", err)
			}
			if err := <-left; !errors.Is(err, context.Canceled) {
				t.Errorf("the backend's context: %v", err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	socket, _ := serve(t, &fake{
		dump: func(_ context.Context, r DumpRequest, _ io.Writer) error {
			return errors.Join(errors.New("no pipeline "+r.Target), ErrUnknown)
		},
	})
	c := NewClient(socket)
	for _, one := range []struct {
		method, path, body string
		code               int
		text               string
	}{
		{"POST", pathDo, `{"command":"destroy"}`, 400, `there is no command \"destroy\"; there are flush, commit`},
		{"POST", pathDo, `{"command":"flush","dry":true}`, 400, "unknown field"},
		{"POST", pathDo, `{"command":"flush"}{}`, 400, "more than one"},
		{"POST", pathDo, `{`, 400, "unexpected EOF"},
		{"POST", pathDo, ``, 400, "EOF"},
		{"POST", pathDo, `{"command":"` + strings.Repeat("x", maxBody) + `"}`, 400, "too large"},
		{"GET", pathDo, ``, 405, ""},
		{"GET", pathDump, ``, 400, "no target"},
		{"GET", pathDump + "?target=a&what=weather", ``, 400, `what=\"weather\" is nothing`},
		{"GET", pathDump + "?target=nosuch", ``, 404, "no pipeline nosuch"},
		{"GET", "/v2/status", ``, 404, ""},
		{"GET", "/v1/status?" + strings.Repeat("x", 2*maxHeader), ``, 431, ""},
	} {
		r, err := http.NewRequestWithContext(t.Context(), one.method, "http://sluice"+one.path, strings.NewReader(one.body))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := c.http.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != one.code || !strings.Contains(string(text), one.text) {
			t.Errorf("%s %.40s %.40s: %d %s", one.method, one.path, one.body, answer.StatusCode, text)
		}
	}
	if err := c.Dump(t.Context(), DumpRequest{Target: "x"}, io.Discard); err == nil || !strings.HasPrefix(err.Error(), "no pipeline x") {
		t.Errorf("got %v", err)
	}
}

// However many dumps run, a takeover is let in; and too many are refused
// rather than queued.
func TestLimits(t *testing.T) {
	release, entered := make(chan struct{}), make(chan struct{})
	socket, _ := serve(t, &fake{
		dump: func(context.Context, DumpRequest, io.Writer) error {
			entered <- struct{}{}
			<-release
			return nil
		},
		do: func(context.Context, Request, func(Step)) error { return nil },
	})
	c := NewClient(socket)
	var running sync.WaitGroup
	for range maxReaders {
		running.Go(func() {
			if err := c.Dump(t.Context(), DumpRequest{Target: "a"}, io.Discard); err != nil {
				t.Error(err)
			}
		})
		<-entered
	}
	if err := c.Dump(t.Context(), DumpRequest{Target: "a"}, io.Discard); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	if err := c.Do(t.Context(), Request{Command: "role", Targets: []string{"primary"}}, nil); err != nil {
		t.Error(err)
	}
	close(release)
	running.Wait()
}

// A command that runs when the server is shut down is let end, and its answer
// arrives; one that outlives the grace is cancelled.
func TestShutdown(t *testing.T) {
	for name, patient := range map[string]bool{"patient": true, "impatient": false} {
		t.Run(name, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			socket := filepath.Join(shortDir(t), "s")
			l, err := Listen(Socket{Path: socket})
			if err != nil {
				t.Fatal(err)
			}
			s := NewServer(&fake{do: func(ctx context.Context, _ Request, _ func(Step)) error {
				close(entered)
				select {
				case <-release:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}}, slog.New(slog.DiscardHandler))
			served, done := make(chan error, 1), make(chan error, 1)
			go func() { served <- s.Serve(l) }()
			go func() { done <- NewClient(socket).Do(t.Context(), Request{Command: "stop"}, nil) }()
			<-entered
			grace, cancel := context.WithCancel(t.Context())
			shut := make(chan error, 1)
			go func() { shut <- s.Shutdown(grace) }()
			if err := <-served; err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(socket); err == nil {
				t.Error("the socket is still there")
			}
			if patient {
				close(release)
			} else {
				cancel()
			}
			if err := <-shut; (err == nil) != patient {
				t.Errorf("shutdown: %v", err)
			}
			if err := <-done; (err == nil) != patient {
				t.Errorf("command: %v", err)
			}
			cancel()
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	socket, _ := serve(t, &fake{
		status: func(context.Context) (*Status, error) { return sampleStatus, nil },
		do: func(_ context.Context, r Request, report func(Step)) error {
			report(Step{Name: r.Targets[0]})
			return nil
		},
	})
	c := NewClient(socket)
	var all sync.WaitGroup
	for i := range 8 {
		name := string(rune('a' + i))
		all.Go(func() {
			for range 20 {
				if _, err := c.Status(t.Context()); err != nil {
					t.Error(err)
				}
				err := c.Do(t.Context(), Request{Command: "bulk", Targets: []string{name}}, func(s Step) {
					if s.Name != name {
						t.Errorf("%s got the answer of %s", name, s.Name)
					}
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
}

// What a tap sees comes at once, and a tap does not hold up the server's end.
func TestTap(t *testing.T) {
	socket := filepath.Join(shortDir(t), "s")
	l, err := Listen(Socket{Path: socket})
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(&fake{dump: func(ctx context.Context, r DumpRequest, out io.Writer) error {
		if r.What != DumpTap || len(r.Args) != 1 {
			return errors.New("asked for something else")
		}
		if _, err := io.WriteString(out, "one\n"); err != nil {
			return err
		}
		<-ctx.Done() // until its caller goes away
		return nil
	}}, slog.New(slog.DiscardHandler))
	served, ended := make(chan error, 1), make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	read, write := io.Pipe()
	go func() {
		ended <- NewClient(socket).Dump(t.Context(), DumpRequest{Target: "p.cache.set", What: DumpTap, Args: []string{"rate=1"}}, write)
	}()
	line := make([]byte, 4)
	if _, err := io.ReadFull(read, line); err != nil || string(line) != "one\n" {
		t.Errorf("%q, %v", line, err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for _, c := range []chan error{served, ended} {
		if err := <-c; err != nil {
			t.Error(err)
		}
	}
}

func TestPlan(t *testing.T) {
	want := &Plan{Stages: []StagePlan{{Address: "p.filter.basic", Pipeline: "p", Action: Replace, Reasons: []ReasonPlan{{Attribute: "limit", Old: "1", New: "2"}}}}}
	b := &fake{plan: func(configuration []byte) (*Plan, error) {
		if len(configuration) == 0 {
			return nil, errors.New("nothing to compare")
		}
		return want, nil
	}}
	socket, _ := serve(t, b)
	got, err := NewClient(socket).Plan(t.Context(), []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if !got.Changes() || got.Refused() != nil {
		t.Error("it has a change, and nothing that is refused")
	}
	if _, err := NewClient(socket).Plan(t.Context(), nil); err == nil || err.Error() != "nothing to compare" {
		t.Errorf("got %v", err)
	}
}
