package sinklog

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/internal/testbed"
)

const wait = 20 * time.Second

// A fakeHost keeps what was logged.
type fakeHost struct {
	plugin.Host
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *fakeHost) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(h, nil)) }

func (h *fakeHost) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *fakeHost) count(text string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.Count(h.text.String(), text)
}

// A rig is a sink at work.
type rig struct {
	*sink
	t    testing.TB
	host *fakeHost
	sent uint64
}

func newRig(t testing.TB, config string, prepare ...func(*sink)) *rig {
	t.Helper()
	c := Definition.Config().(*Config)
	if d := plugin.Decode([]byte(config), c); len(d) > 0 {
		t.Fatal(d)
	}
	r := &rig{sink: newSink(c), t: t, host: &fakeHost{}}
	for _, p := range prepare {
		p(r.sink)
	}
	if err := r.Open(context.Background(), r.host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.end() })
	return r
}

// end drains the sink, once.
func (r *rig) end() {
	select {
	case <-r.stop:
	default:
		if err := r.Close(); err != nil {
			r.t.Error(err)
		}
	}
}

// send writes a batch.
func (r *rig) send(h flow.Header, events ...flow.Event) {
	r.t.Helper()
	var b flow.Builder
	b.Reset(h)
	for i := range events {
		if !b.Append(&events[i]) {
			r.t.Fatal("the batch is full")
		}
	}
	batch, err := flow.DecodeBatch(b.Bytes())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.Write(&batch); err != nil {
		r.t.Fatal(err)
	}
}

// destroy sends the ends of n flows, numbered on, in one batch.
func (r *rig) destroy(n int) {
	r.t.Helper()
	var events []flow.Event
	for range n {
		events = append(events, ended(r.sent))
		r.sent++
	}
	r.send(flow.Header{}, events...)
}

// settled is a condition: every line sent was written or lost.
func (r *rig) settled() error {
	if w, l := r.written.Load(), r.lost.Load(); w+l != r.sent {
		return fmt.Errorf("%d lines written and %d lost of %d", w, l, r.sent)
	}
	return nil
}

func (r *rig) settle() {
	r.t.Helper()
	testbed.Eventually(r.t, wait, r.settled)
}

// ended is the end of the i-th of many flows, with counters and times.
func ended(i uint64) flow.Event {
	e := flow.Event{Kind: flow.Destroy}
	e.Family, e.Protocol, e.Present = flow.IPv4, flow.UDP, flow.HasReply|flow.HasStatus
	e.Status = flow.SeenReply | flow.Confirmed
	e.Original.Source, e.Original.Destination = [16]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}, [16]byte{192, 0, 2, 1}
	e.Original.SourcePort, e.Original.DestinationPort = 1000, 53
	e.Reply = e.Original.Inverted(flow.UDP)
	e.Tail = e.Tail.Append(flow.AttrCounters, numbers(1, 60, 2, 180))
	e.Tail = e.Tail.Append(flow.AttrTimestamps, numbers(1e18, 1e18+1_234_567_890))
	return e
}

func numbers(all ...uint64) (v []byte) {
	for _, n := range all {
		v = binary.LittleEndian.AppendUint64(v, n)
	}
	return v
}

func read(t testing.TB, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		t.Fatalf("%s ends in the middle of a line: %q", path, text[max(0, len(text)-100):])
	}
	return slices.Collect(strings.Lines(string(text)))
}

const endedText = "[DESTROY] udp      17 src=10.0.0.0 dst=192.0.2.1 sport=1000 dport=53 packets=1 bytes=60 " +
	"src=192.0.2.1 dst=10.0.0.0 sport=53 dport=1000 packets=2 bytes=180"

func TestLines(t *testing.T) {
	at := time.Date(2026, 2, 3, 4, 5, 6, 7000, time.UTC)
	whole, untimed, alive := ended(0), ended(0), ended(0)
	untimed.Tail = untimed.Tail.Without(flow.AttrTimestamps, nil)
	alive.Tail = untimed.Tail.Append(flow.AttrTimestamps, numbers(1e18, 0))
	hostile := untimed
	hostile.Tail = hostile.Tail.Append(flow.AttrHelper, []byte("a\n\x1b[2J"))
	for _, c := range []struct {
		name   string
		format format
		event  flow.Event
		want   string
	}{
		{"text", appendText, whole, "2026-02-03T04:05:06.000007Z " + endedText + " duration=1.234\n"},
		{"without time", appendText, untimed, "2026-02-03T04:05:06.000007Z " + endedText + "\n"},
		{"not ended", appendText, alive, "2026-02-03T04:05:06.000007Z " + endedText + "\n"},
		{"syslog", appendPlain, whole, endedText + " duration=1.234\n"},
		{"hostile", appendPlain, hostile, endedText + " helper=0x610a1b5b324a\n"},
		{"json", appendJSON, whole, `{"time":"2026-02-03T04:05:06.000007Z","duration":1.234,"kind":"destroy","family":"ipv4","protocol":"udp",` +
			`"protocol_number":17,"original":{"source":"10.0.0.0","destination":"192.0.2.1","source_port":1000,"destination_port":53},` +
			`"reply":{"source":"192.0.2.1","destination":"10.0.0.0","source_port":53,"destination_port":1000},"zone":0,` +
			`"status":["SEEN_REPLY","CONFIRMED"],"counters":[{"packets":1,"bytes":60},{"packets":2,"bytes":180}],` +
			`"timestamps":{"start":1000000000000000000,"stop":1000000001234567890}}` + "\n"},
	} {
		if got := string(c.format(nil, at, &c.event)); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// Whatever a batch holds, a line is one line of printable characters.
func FuzzLine(f *testing.F) {
	f.Add(uint8(3), uint8(6), uint16(2), []byte("ftp\n\x1b[31m"))
	f.Add(uint8(1), uint8(58), uint16(77), []byte{0x9b, 0x7f, 0})
	f.Add(uint8(2), uint8(132), uint16(8), numbers(5, 4))
	f.Fuzz(func(t *testing.T, kind, protocol uint8, attribute uint16, value []byte) {
		e := ended(1)
		e.Kind, e.Protocol, e.State, e.Present = []flow.Kind{flow.New, flow.Update, flow.Destroy, flow.Expect, flow.Unexpect}[kind%5], protocol, kind, ^flow.Field(0)
		e.Tail = flow.Attributes(nil).Append(flow.Attr(attribute), value[:min(len(value), 1000)])
		for i, format := range []format{appendText, appendPlain, appendJSON} {
			line := format(nil, time.Unix(0, 0), &e)
			for _, c := range line[:len(line)-1] {
				if c < ' ' || c > '~' {
					t.Fatalf("format %d: %q", i, line)
				}
			}
			if i == 2 && !json.Valid(line) || line[len(line)-1] != '\n' {
				t.Fatalf("format %d: %q", i, line)
			}
		}
	})
}

func TestConfig(t *testing.T) {
	for config, want := range map[string]string{
		`{"path":"/x"}`:     "",
		`{"syslog":"cron"}`: "",
		`{"path":"/x","format":"json","events":["new","update","destroy"],"mode":"0600"}`: "",
		`{}`:                                   "Nowhere to log to",
		`{"path":"/x","syslog":"daemon"}`:      "Both path and syslog",
		`{"path":"x"}`:                         "Relative path",
		`{"syslog":"DAEMON"}`:                  "Unknown facility",
		`{"path":"/x","format":"xml"}`:         "Unknown format",
		`{"path":"/x","events":[]}`:            "Empty list",
		`{"path":"/x","events":["new","end"]}`: "Unknown event",
		`{"path":"/x","mode":"0689"}`:          "write octal digits",
		`{"path":"/x","mode":"4640"}`:          "write octal digits",
	} {
		d := plugin.Decode([]byte(config), Definition.Config())
		if want == "" && len(d) > 0 || want != "" && !strings.Contains(fmt.Sprint(d), want) {
			t.Errorf("%s: %v", config, d)
		}
	}
}

// What is asked for is logged; replays and their marks are not.
func TestEvents(t *testing.T) {
	for _, c := range []struct{ events, want string }{
		{`["destroy"]`, "destroy"}, {`["new"]`, "new"}, {`["destroy","new","update"]`, "new update destroy"},
		{`["expect"]`, "expect"}, {`["unexpect","destroy"]`, "destroy unexpect"},
	} {
		path := filepath.Join(t.TempDir(), "log")
		r := newRig(t, fmt.Sprintf(`{"path":%q,"format":"json","events":%s,"mode":"0600"}`, path, c.events))
		var all []flow.Event
		for _, kind := range []flow.Kind{flow.New, flow.Update, flow.Destroy, flow.Expect, flow.Unexpect} {
			e := ended(0)
			e.Kind = kind
			all = append(all, e)
		}
		r.send(flow.Header{}, all...)
		all = append([]flow.Event{{Kind: flow.SyncBegin}}, append(all, flow.Event{Kind: flow.SyncEnd, Sync: flow.Sync{Count: 5}})...)
		r.send(flow.Header{Replay: 7}, all...)
		r.end()
		var got []string
		for _, line := range read(t, path) {
			var v flow.View
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Fatal(err)
			}
			got = append(got, v.Kind)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: logged %v", c.events, got)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Error(info.Mode(), err)
		}
	}
}

// A file that was moved away, or removed, is left for a new one, without the
// loss of a line.
func TestRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	r := newRig(t, fmt.Sprintf(`{"path":%q}`, path))
	exists := func() error {
		r.destroy(1)
		_, err := os.Stat(path)
		return err
	}
	r.destroy(3)
	r.settle()
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, wait, exists)
	r.settle()
	if n, old := len(read(t, path)), len(read(t, path+".1")); n == 0 || uint64(n+old) != r.sent || r.lost.Load() > 0 {
		t.Errorf("%d and %d lines of %d", old, n, r.sent)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, wait, exists)

	if err := os.Rename(path, path+".2"); err != nil { // and a new one is there at once
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, wait, func() error {
		r.destroy(1)
		return testbed.Holds(func() bool { return len(read(t, path)) > 0 })()
	})
}

// The command opens the file at once; if it can't, lines go on to the old one
// while it has a name, and are lost, and counted, when it has none.
func TestReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	path, moved := filepath.Join(dir, "log"), dir+".moved"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, fmt.Sprintf(`{"path":%q}`, path))
	command := func() error { return r.Command(context.Background(), plugin.Command{Name: reopen}, io.Discard) }
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := command(); err != nil {
		t.Fatal(err)
	}
	r.destroy(1)
	r.settle()
	if n := len(read(t, path)); n != 1 {
		t.Errorf("%d lines in the new file", n)
	}
	if err := os.Rename(dir, moved); err != nil {
		t.Fatal(err)
	}
	if err := command(); err == nil {
		t.Error("opened in no directory")
	}
	r.destroy(1)
	r.settle()
	if n := len(read(t, filepath.Join(moved, "log"))); n != 2 || r.lost.Load() > 0 {
		t.Errorf("%d lines in the old file, %d lost", n, r.lost.Load())
	}
	if err := os.RemoveAll(moved); err != nil {
		t.Fatal(err)
	}
	testbed.Eventually(t, wait, func() error { // until it looks
		r.destroy(1)
		r.settle()
		return testbed.Holds(func() bool { return r.lost.Load() > 0 })()
	})
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r.destroy(1)
	r.settle()
	if n := len(read(t, path)); n != 1 || r.host.count("WARN") != 1 || r.host.count("written again") != 1 {
		t.Errorf("%d lines, logged:\n%s", n, r.host.text.String())
	}
	if err := r.Command(context.Background(), plugin.Command{Name: "dump"}, io.Discard); err == nil {
		t.Error("another command worked")
	}
}

// tinyDisk is a directory on a file system with room for so many bytes, mounted
// nowhere.
func tinyDisk(t *testing.T, size int) string {
	t.Helper()
	testbed.Require(t)
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "size", fmt.Sprint(size)); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		t.Fatal(err)
	}
	mount, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mount) })
	return fmt.Sprintf("/proc/self/fd/%d", mount)
}

// A full disk costs lines, whole ones, which are counted, and nothing else.
func TestDiskFull(t *testing.T) {
	dir := tinyDisk(t, 64<<10)
	ballast, path := filepath.Join(dir, "ballast"), filepath.Join(dir, "log")
	if err := os.WriteFile(ballast, make([]byte, 32<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, fmt.Sprintf(`{"path":%q}`, path))
	for r.lost.Load() == 0 && r.sent < 10_000 {
		r.destroy(30)
		r.settle()
	}
	r.destroy(30)
	r.settle()
	whole := func() {
		t.Helper()
		got := read(t, path)
		for _, line := range got {
			if !strings.HasSuffix(line, " duration=1.234\n") || strings.Count(line, "DESTROY") != 1 {
				t.Fatalf("line %q", line)
			}
		}
		if uint64(len(got)) != r.written.Load() || r.lost.Load() == 0 {
			t.Errorf("%d lines of %d, %d lost", len(got), r.written.Load(), r.lost.Load())
		}
	}
	whole()
	lost := r.lost.Load()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	r.destroy(30)
	r.settle()
	whole()
	if r.lost.Load() != lost || r.host.count("WARN") != 1 || r.host.count("written again") != 1 {
		t.Errorf("%d lost, logged:\n%s", r.lost.Load()-lost, r.host.text.String())
	}
}

// Where nothing can ever be written the log of the runner stays quiet.
func TestDeviceFull(t *testing.T) {
	r := newRig(t, `{"path":"/dev/full"}`)
	for range 100 {
		r.destroy(10)
		r.settle()
	}
	if r.lost.Load() != r.sent || r.host.count("\n") != 1 {
		t.Errorf("%d lost of %d, logged:\n%s", r.lost.Load(), r.sent, r.host.text.String())
	}
}

func TestNoSuchDirectory(t *testing.T) {
	s := newSink(&Config{Path: filepath.Join(t.TempDir(), "no", "log")})
	if err := s.Open(context.Background(), &fakeHost{}); err == nil || !strings.HasPrefix(err.Error(), "sink log: open ") {
		t.Error(err)
	}
}

// A daemon is a syslog daemon as far as the sink sees.
func daemon(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func at(path string) func(*sink) {
	return func(s *sink) { s.to.(*system).network, s.to.(*system).address = "unixgram", path }
}

func TestSyslog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	r := newRig(t, `{"syslog":"local3","events":["new","destroy"]}`, at(path))
	r.destroy(1) // there is no daemon yet
	r.settle()
	if r.lost.Load() != 1 || r.host.count("WARN") != 1 {
		t.Fatalf("%d lost, logged:\n%s", r.lost.Load(), r.host.text.String())
	}
	d := daemon(t, path)
	begun := ended(0)
	begun.Kind = flow.New
	r.sent += 2
	r.send(flow.Header{}, begun, ended(0))
	buf := make([]byte, 4096)
	for _, kind := range []string{": [NEW] ", ": [DESTROY] "} {
		n, err := d.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got, _ := strings.CutSuffix(string(buf[:n]), "\n")
		if !strings.HasPrefix(got, "<158>") || !strings.Contains(got, kind+endedText[len("[DESTROY] "):]+" duration=") || strings.Contains(got, "\n") {
			t.Errorf("%q", got)
		}
	}
	r.settle()

	d.Close()
	os.Remove(path)
	d = daemon(t, path) // it was restarted
	r.destroy(1)
	r.settle()
	if _, err := d.Read(buf); err != nil || r.lost.Load() != 1 {
		t.Errorf("%d lost: %v", r.lost.Load(), err)
	}
}

// A daemon that hangs holds nothing up and costs a bounded memory.
func TestSyslogHangs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	d := daemon(t, path)
	r := newRig(t, `{"syslog":"daemon"}`, at(path))
	for r.lost.Load() == 0 && r.sent < 1e6 {
		r.destroy(200)
	}
	r.mu.Lock()
	pending := len(r.pending)
	r.mu.Unlock()
	if pending > pendingLimit+1000 || r.lost.Load() == 0 {
		t.Errorf("%d bytes wait, %d lost", pending, r.lost.Load())
	}
	var received atomic.Uint64
	go func() {
		buf := make([]byte, 4096)
		for _, err := d.Read(buf); err == nil; _, err = d.Read(buf) {
			received.Add(1)
		}
	}()
	r.settle()
	r.end()
	testbed.Eventually(t, wait, testbed.Holds(func() bool { return received.Load() == r.written.Load() }))
}
