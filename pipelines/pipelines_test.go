// Package pipelines_test checks every pipeline that the project shows to
// anybody: the examples in this folder, and the snippets in its documentation.
package pipelines_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/bundled"
)

// validate loads a file with the bundled plugins, as `sluice validate` does
// but without a process for each.
func validate(t *testing.T, path string, variables ...string) (*pipeline.Configuration, hcl.Diagnostics, string) {
	t.Helper()
	c, files, diags := pipeline.Load(context.Background(), pipeline.Options{
		Paths: []string{path}, Variables: variables, Environ: []string{},
		Catalog: func(pipeline.Runner) (pipeline.Catalog, error) { return pipeline.Local(bundled.Definitions...), nil },
	})
	var text bytes.Buffer
	if err := pipeline.WriteText(&text, files, diags); err != nil {
		t.Fatal(err)
	}
	return c, diags, text.String()
}

func examples(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("*.hcl")
	if err != nil || len(paths) < 2 {
		t.Fatal("no examples", err)
	}
	return paths
}

// Examples are valid, without so much as a warning, and in canonical layout.
func TestExamples(t *testing.T) {
	for _, path := range examples(t) {
		t.Run(path, func(t *testing.T) {
			if strings.HasSuffix(path, ".test.hcl") {
				// What they test is run by cmd/sluice's tests.
			} else if _, diags, text := validate(t, path); len(diags) > 0 {
				t.Errorf("\n%s", text)
			}
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if formatted := pipeline.Format(source); !bytes.Equal(source, formatted) {
				t.Errorf("not in canonical layout: run `sluice fmt pipelines`")
			}
		})
	}
}

// The primary-backup example reproduces conntrackd's NOTRACK example, value by
// value.
func TestPrimaryBackup(t *testing.T) {
	c, _, text := validate(t, "primary-backup.hcl")
	if c == nil {
		t.Fatal(text)
	}
	want := map[string]string{
		"local.source.netlink": `{"buffer_size":262142,"buffer_size_max":655355,"coalesce":"2ms"}`,
		"local.filter.basic": `{"address":{"ignore":["127.0.0.1","192.168.0.100","192.168.1.100","192.168.0.1","192.168.1.1",` +
			`"192.168.100.100"]},"protocol":{"accept":["tcp"]}}`,
		"local.cache.memory": `{"limit":65535}`,
		"local.sink.multicast": `{"address":"192.168.100.100","checksum":true,"group":"225.0.0.50","interface":"eth2",` +
			`"port":3780,"send_buffer":1249280}`,
		"peers.source.multicast": `{"group":"225.0.0.50","interface":"eth2","port":3780,"receive_buffer":1249280}`,
		"peers.cache.memory":     `{"hold":true,"limit":65535}`,
		"peers.sink.kernel":      `{"commit_timeout":"180s","purge_timeout":"15s","scope":"local"}`,
	}
	for _, p := range c.Pipelines {
		for _, s := range p.Stages {
			if got := string(s.Config); got != want[s.Address()] {
				t.Errorf("%s\ngot  %s\nwant %s", s.Address(), got, want[s.Address()])
			}
			delete(want, s.Address())
		}
	}
	if len(want) > 0 {
		t.Errorf("missing %v", want)
	}
	if r := c.Runner; r.LockFile != "/var/lock/conntrack.lock" || r.Control.Path != "/tmp/sync.sock" || r.Control.Backlog != 20 {
		t.Errorf("runner %+v", r)
	}
	if _, _, text := validate(t, "primary-backup.hcl", "sync_address=192.168.100.200"); text != "" {
		t.Error(text)
	}
}

// In the active-active example nothing holds and nothing waits.
func TestActiveActive(t *testing.T) {
	c, _, text := validate(t, "active-active.hcl")
	if c == nil {
		t.Fatal(text)
	}
	for _, p := range c.Pipelines {
		for _, s := range p.Stages {
			if s.Traits.Hold {
				t.Errorf("%s holds", s.Address())
			}
			if s.Kind == "source" && !bytes.Contains(s.Config, []byte(`"coalesce":"0s"`)) {
				t.Errorf("%s waits: %s", s.Address(), s.Config)
			}
		}
	}
	if c, _, text := validate(t, "active-active.hcl", "own_addresses=[]"); c != nil {
		t.Errorf("no own addresses are accepted: %s", text)
	}
}
