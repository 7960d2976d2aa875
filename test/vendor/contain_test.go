package vendor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-project/sluice/core/control"
)

// Each hostile plugin has a pipeline of its own, in one runner with an honest one:
// each is named in status with what it does, and the honest pipeline goes on, as do
// the other stages of theirs. (Of the old filter's pipeline nothing is asked but that it
// runs: it drops UDP.)
func TestHostilePluginsAreContained(t *testing.T) {
	t.Parallel()
	named := map[string]string{ // in the stage's last error or note
		"hangs":       "killed: data waits in its input and it does not read it",
		"deaf":        "killed: data waits in its input and it does not read it",
		"frozen":      "killed: no answer on the control connection",
		"crashes":     "no memory of what happened",
		"floods-log":  "floods its log",
		"floods-data": "sends more than it is given",
		"malformed":   "sends what is no batch",
		"hog":         "out of memory",
		"forks":       "no fork: operation not permitted",
	}
	if os.Getuid() == 0 { // only a user of its own has a limit
		named["threads"] = "fatal error: newosproc"
	}
	client := runHostile(t, named)
	var before uint64
	seen := map[string]bool{} // once is enough: a stage that is started again has other errors
	await(t, func() error {
		stages, err := stagesOf(client)
		if err != nil {
			return err
		}
		for name, want := range named {
			s := stages["p-"+name+".filter."+name]
			if seen[name] = seen[name] || strings.Contains(s.LastError+s.Note, want); !seen[name] {
				return fmt.Errorf("%s: last error %q, note %q: want %q", s.Address, s.LastError, s.Note, want)
			}
		}
		before = stages["honest.sink.log"].EventsIn
		if s, runs := stages["python.sink.log"]; runs && s.EventsIn == 0 {
			return errors.New("nothing passes the filter in Python")
		}
		return nil
	})
	await(t, func() error {
		stages, err := stagesOf(client)
		if err != nil {
			return err
		}
		for address, s := range stages {
			hostile := strings.Contains(address, ".filter.") && strings.HasPrefix(address, "p-")
			if !hostile && (s.Restarts > 0 || s.State != "running") {
				t.Errorf("%s: %s, %d restarts: %s", address, s.State, s.Restarts, s.LastError)
			}
		}
		if now := stages["honest.sink.log"].EventsIn; now < before+100 {
			return fmt.Errorf("the honest pipeline: %d events, then %d", before, now)
		}
		return nil
	})
}

// runHostile runs a pipeline for each hostile plugin and some honest ones.
func runHostile(t *testing.T, named map[string]string) *control.Client {
	t.Helper()
	dir := t.TempDir()
	hostile(t, "source-ticker")
	socket := filepath.Join(dir, "s")
	config := fmt.Sprintf("runner {\n  plugin_path = [%q]\n  lock_file = %q\n  control {\n    path = %q\n  }\n}\n",
		plugins, filepath.Join(dir, "lock"), socket)
	pipeline := func(name, filter string) {
		config += fmt.Sprintf("pipeline %q {\n  source \"ticker\" {}\n  filter %s\n  sink \"log\" {\n    path = \"/dev/null\"\n  }\n}\n", name, filter)
	}
	pipeline("honest", `"basic" {}`)
	if built := buildProtocol1(); built.err != nil {
		t.Fatal(built.err)
	}
	pipeline("old", `"protocol1" {}`)
	if hasGRPC() == nil {
		pythonFilter(t)
		pipeline("python", "\"ports\" {\n    accept = [443]\n  }")
	}
	for name := range named {
		hostile(t, "filter-"+name)
		block := ""
		if name == "hog" { // less than by default, to be sooner at its end
			block = "\n    grant {\n      memory = \"256MiB\"\n    }\n  "
		}
		pipeline("p-"+name, fmt.Sprintf("%q {%s}", name, block))
	}
	file := filepath.Join(dir, "all.hcl")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	lock(t, file)
	run(t, file)
	return control.NewClient(socket)
}

// lock has the programs of a file's pipelines trusted.
func lock(t *testing.T, file string, args ...string) {
	t.Helper()
	if status, out, errs := sluice(t, append([]string{"plugin", "lock", "-f", file}, args...)...); status != 0 {
		t.Fatalf("plugin lock: status %d\n%s%s", status, out, errs)
	}
}

// run runs a file's pipelines until the test's end. What it returns returns the log.
func run(t *testing.T, file string) (logged func() string) {
	t.Helper()
	var log lockedBuffer
	cmd := exec.Command(binary, "run", "-f", file)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGKILL) // its stages go with it; some of them would not drain
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the runner wrote:\n%.20000s", log.String())
		}
	})
	await(t, func() error {
		if !strings.Contains(log.String(), "all stages run") {
			return fmt.Errorf("not all stages run")
		}
		return nil
	})
	return log.String
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }

// await waits for a condition.
func await(t *testing.T, condition func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = condition(); err == nil {
			return
		}
	}
	t.Fatal(err)
}

// stagesOf returns a node's stages by their addresses.
func stagesOf(c *control.Client) (map[string]control.StageStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	status, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	all := map[string]control.StageStatus{}
	for _, p := range status.Pipelines {
		for _, s := range p.Stages {
			all[s.Address] = s
		}
	}
	return all, nil
}
