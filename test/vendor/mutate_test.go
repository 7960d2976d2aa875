package vendor

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/plugintest/kit"
)

// Each check finds a plugin that does what the check is for. The plugins are the
// example in Python with one line changed. (The checks of caches, sinks and sources
// have such a test beside the kit.)
func TestEachCheckFindsItsFault(t *testing.T) {
	t.Parallel()
	grpcio(t)
	for _, c := range []struct{ check, before, after, detail string }{
		{"handshake", `summary = "Lets flows pass by their destination port."`, `summary = ""`, "no summary"},
		{"schema", `doc="The destination ports that pass, of the original direction."`, `doc=""`, "has no doc"},
		{"refuse", `Diagnostic(["accept"], `, `Diagnostic([], `, "no diagnostic's path begins with"},
		{"refuse", `return found or self.filter.configure(block)`, `return self.filter.configure(block)`, "it accepts the attribute"},
		{"early", `if not self.started:`, `if False:`, "it answers"},
		{"data", `self.edges[0].socket.send(packet)`, `self.edges[0].socket.send(packet[:1] + b"\x01" + packet[2:])`, "a filter keeps the header"},
		{"order", `kept.append(record)`, `kept.insert(0, record)`, "came out behind"},
		{"destroy", "            return True", "            return False", "dropped its DESTROY"},
		{"attributes", `kept.append(record)`, `kept.append(struct.pack("<H", HEAD) + record[2:HEAD] if record[2] < SYNC_BEGIN else record)`, "it took the attribute"},
		{"numbers", `self.events_in += len(all)`, `self.events_in += 1`, "and counts"},
		{"marks", `record = self.lower(record, `, `(record, `, "stand between the marks"},
		{"marks", `self.dropped[replay, owner] = 0`, `self.dropped[replay, owner] = 0; continue`, "of the two marks of a replay 1 came out"},
		{"commands", `context.abort(grpc.StatusCode.UNIMPLEMENTED, "this stage has no commands")`, `return iter(())`, "no-such-command"},
		{"malformed", `self.signal("gap", "a batch was malformed")`, `pass`, `a signal "gap"`},
		{"malformed", `if len(found) != count:`, `if False:`, "is not counted as malformed"},
		{"backpressure", `self.sending = True`, `pass`, "do not say sending"},
		{"fan-out", `if len(self.edges) == 1:`, `if True:`, "one of two outputs"},
		{"fan-out", `edge=edge.number)`, `edge=0)`, `a signal "edge-full" of edge 1`},
		{"signals", `signal.signal(number, signal.SIG_IGN)`, `pass`, "are the runner's business"},
		{"crash", `self.generation, self.input = request.generation,`, `self.generation, self.input = 1,`, "its batches say generation 1"},
		{"lifeline", `os.read(int(fd), 1)`, `os.read(int(fd), 1) or threading.Event().wait()`, "it still runs"},
	} {
		t.Run(c.check, func(t *testing.T) {
			t.Parallel()
			r := report(t, mutant(t, c.before, c.after), "accept = [80, 443, 22]", "--only", c.check, "--patience", "5s")
			i := slices.IndexFunc(r.Results, func(one kit.Result) bool { return one.Name == c.check })
			if i < 0 || r.Results[i].Outcome != kit.Failed || !strings.Contains(r.Results[i].Detail, c.detail) {
				t.Errorf("%q instead of %q: %+v\nwant %s to fail with %q", c.after, c.before, r.Results, c.check, c.detail)
			}
		})
	}
}

// mutant returns the example in Python with one line changed.
func mutant(t *testing.T, before, after string) string {
	t.Helper()
	dir, changed := t.TempDir(), 0
	for _, name := range []string{"__main__.py", "sluice_stage.py", "stage_pb2.py"} {
		text, err := os.ReadFile(filepath.Join(root, "examples/filter-python/ports", name))
		if err != nil {
			t.Fatal(err)
		}
		changed += strings.Count(string(text), before)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(string(text), before, after)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if changed == 0 {
		t.Fatalf("the example has no %q any more", before)
	}
	built := zipapp(dir, filepath.Join(t.TempDir(), "sluice-filter-ports"))
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.path
}
