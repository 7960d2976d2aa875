package runner

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/core/control"
	"github.com/sluice-project/sluice/core/plugin"
	"github.com/sluice-project/sluice/core/plugin/stagepb"
)

// The log and each stage that has the command are opened again; one that fails
// does not keep the others from it.
func TestReopen(t *testing.T) {
	stages := usual(filepath.Join(t.TempDir(), "out"), object{"flows": 4})
	commands := &stagepb.Traits{Commands: []string{"dump", "reopen"}}
	stages[1].Traits = commands // has none in truth
	stages[2] = stageOf(plugin.KindCache, "set", object{}, commands)
	tr := run(t, stages)
	opened := 0
	tr.options.Reopen = func() error { opened++; return errors.New("no space left") }
	var steps []string
	err := tr.Do(t.Context(), control.Request{Command: "reopen"}, func(s control.Step) { steps = append(steps, s.Stage+" "+s.Error) })
	if got := strings.Join(steps, "; "); opened != 1 || len(steps) != 3 || steps[0] != "log no space left" ||
		!strings.HasPrefix(steps[1], "p.filter.even p.filter.even: reopen: ") || steps[2] != "p.cache.set " {
		t.Errorf("steps %s", got)
	}
	if err == nil || !strings.Contains(err.Error(), "log: reopen: no space left") {
		t.Error(err)
	}
	tr.Reopen(t.Context())
	if log := tr.log.String(); opened != 2 || !strings.Contains(log, "files not opened again") {
		t.Error(log)
	}
}
