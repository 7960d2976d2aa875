package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugintest/kit"
	"github.com/sluice-project/sluice/core/recording"
)

// recorded is what a runner sends to who records a stage: batches of three events,
// ten milliseconds apart, and a loss of two behind each.
func recorded(ctx context.Context, out io.Writer) error {
	frames := recording.AppendLost(nil, 0, 0)
	for i := range 5 {
		at := time.Duration(i) * 10 * time.Millisecond
		for _, p := range kit.Pack(flow.Header{}, 0, kit.Events(uint32(3*i), 3, flow.New)...) {
			frames = recording.AppendBatch(frames, at, p)
		}
		frames = recording.AppendLost(frames, at, 2)
	}
	if _, err := out.Write(frames); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func TestRecord(t *testing.T) {
	socket := serve(t, fake{})
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.rec"), filepath.Join(dir, "second.rec")
	out := execute(t, "", socket, "record", "--to", first, "--for", "35ms", "local.cache.memory")
	if !strings.Contains(out, "12 events in 4 batches and 30ms; ended: after 35ms; 8 events that passed are missing") {
		t.Error(out)
	}
	if info, err := os.Stat(first); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if out := execute(t, "", socket, "record", "--to", first, "local.cache.memory"); !strings.Contains(out, "exists") {
		t.Error(out)
	}
	out = execute(t, "", socket, "record", "--print", first)
	for _, want := range []string{"# recorded at the output of local.cache.memory on fw1 from ", "[NEW] tcp      6 120 SYN_SENT src=10.0.0.0 ", "# 2 events are missing here"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out = execute(t, "", socket, "record", "--print", first, "protocol=udp"); strings.Count(out, "[NEW] udp") != 3 || strings.Contains(out, "tcp") {
		t.Error(out)
	}

	out = execute(t, "", socket, "record", "--from", first, "--to", second, "--anonymize", "--events", "4")
	if !strings.Contains(out, "4 events in 2 batches") {
		t.Error(out)
	}
	out = execute(t, "", socket, "record", "--print", second, "-o", "json")
	if strings.Contains(out, `"10.0.0.`) || strings.Contains(out, "fw1") || !strings.Contains(out, `"anonymized":true`) {
		t.Error(out)
	}

	file, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(second, file[:len(file)-100], 0o600); err != nil {
		t.Fatal(err)
	}
	out = execute(t, "", socket, "record", "--print", second)
	if !strings.Contains(out, "[NEW]") || !strings.Contains(out, "exit status 1") || !strings.Contains(out, second+": the recording is cut short") {
		t.Error(out)
	}
}
