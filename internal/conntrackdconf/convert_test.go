package conntrackdconf

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/bundled"
)

var update = flag.Bool("update", false, "write the golden files and the table of docs/migration.md")

// configurations returns the files in testdata, by name.
func configurations(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/*.conf")
	if err != nil || len(paths) == 0 {
		t.Fatal("no configurations", err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		files[filepath.Base(path)] = text
	}
	return files
}

// run parses and converts a file, and returns the diagnostics of both.
func run(t testing.TB, name string, source []byte) (*File, Result) {
	t.Helper()
	file, diags := Parse(name, source)
	if diags.HasErrors() {
		return file, Result{Notes: diags}
	}
	return file, Convert(file)
}

// transcript is what a person sees: notes, then the result.
func transcript(t testing.TB, file *File, r Result) string {
	t.Helper()
	var text bytes.Buffer
	if err := pipeline.WriteText(&text, file.Files(), r.Notes); err != nil {
		t.Fatal(err)
	}
	text.WriteString("----\n")
	text.Write(r.HCL)
	return text.String()
}

// validate loads a result as `sluice validate` would.
func validate(t testing.TB, text []byte) (*pipeline.Configuration, hcl.Diagnostics) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "result.hcl")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	conf, _, diags := pipeline.Load(t.Context(), pipeline.Options{
		Paths: []string{path}, Environ: []string{},
		Catalog: func(pipeline.Runner) (pipeline.Catalog, error) { return pipeline.Local(bundled.Definitions...), nil },
	})
	return conf, diags
}

// check says what must hold for every result.
func check(t testing.TB, file *File, r Result) {
	t.Helper()
	if r.HCL == nil {
		if !r.Notes.HasErrors() {
			t.Error("neither a result nor an error")
		}
		return
	}
	if _, diags := validate(t, r.HCL); len(diags) > 0 {
		t.Errorf("the result is not valid: %v\n%s", diags, r.HCL)
	}
	if !bytes.Equal(pipeline.Format(r.HCL), r.HCL) {
		t.Errorf("the result's layout is not canonical:\n%s", r.HCL)
	}
	complete(t, file.Nodes, string(r.HCL))
	everyComment(t, file, string(r.HCL))
}

// complete checks that every value of a file is in the result, be it in a
// comment.
func complete(t testing.TB, nodes []*Node, text string) {
	t.Helper()
	for _, n := range nodes {
		for _, a := range n.Args {
			switch word := a.Text; {
			case slices.ContainsFunc([]string{"on", "off", "yes", "no"}, func(s string) bool { return fits(s, word) }),
				word == "NOTRACK", word == "Default", word == "From", word == "Userspace", word == "Kernelspace":
			case !strings.Contains(strings.ToLower(text), strings.ToLower(word)):
				t.Errorf("%s in line %d is not in\n%s", n, n.Name.Range.Start.Line, text)
			}
		}
		complete(t, n.Body, text)
	}
}

func everyComment(t testing.TB, file *File, text string) {
	t.Helper()
	for _, token := range Lex(file.Name, file.Source) {
		words := clean(strings.Trim(string(token.Bytes), "# \t\r\v\f"))
		if token.Type == TokenComment && !strings.Contains(text, strings.ReplaceAll(words, "\t", "  ")) && !strings.Contains(text, words) {
			t.Errorf("line %d: the comment %q is not in\n%s", token.Range.Start.Line, token.Bytes, text)
		}
	}
}

// Files whose names begin with bad have no result.
func TestConvert(t *testing.T) {
	for name, source := range configurations(t) {
		t.Run(name, func(t *testing.T) {
			file, r := run(t, name, source)
			if bad := strings.HasPrefix(name, "bad"); bad != r.Notes.HasErrors() {
				t.Errorf("errors: %v", r.Notes)
			}
			check(t, file, r)
			golden(t, strings.TrimSuffix(name, ".conf")+".golden", transcript(t, file, r))
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it):\n%s", path, diff)
	}
}

// Every directive stands in a file that is converted.
func TestEveryDirective(t *testing.T) {
	seen := map[*row]bool{}
	var walk func([]*Node)
	walk = func(nodes []*Node) {
		for _, n := range nodes {
			seen[n.row] = true
			walk(n.Body)
		}
	}
	for name, source := range configurations(t) {
		if file, diags := Parse(name, source); !diags.HasErrors() {
			walk(file.Nodes)
		}
	}
	for i := range table {
		if r := &table[i]; !seen[r] {
			t.Errorf("no file in testdata has %q of %q", r.syntax.text, r.sections)
		}
	}
}

// The values of the early example, one by one.
func TestOldValues(t *testing.T) {
	_, r := run(t, "old.conf", configurations(t)["old.conf"])
	conf, diags := validate(t, r.HCL)
	if conf == nil {
		t.Fatal(diags)
	}
	want := map[string]string{
		"local.source.netlink": `{"buffer_size":262142,"buffer_size_max":655355,"overrun_resync":"30s","reliable":false}`,
		"local.filter.basic": `{"address":{"ignore":["127.0.0.1","192.168.0.100","192.168.1.100","192.168.100.100"]},` +
			`"protocol":{"accept":["tcp"]}}`,
		"local.cache.memory": `{"limit":65535}`,
		"local.sink.multicast": `{"address":"192.168.100.100","checksum":true,"group":"225.0.0.50","interface":"eth2",` +
			`"port":3780,"send_buffer":1249280}`,
		"peers.source.multicast": `{"group":"225.0.0.50","interface":"eth2","port":3780,"receive_buffer":1249280,"request_resync":false}`,
		"peers.cache.memory":     `{"hold":true,"limit":65535}`,
		"peers.sink.kernel":      `{"commit_timeout":"180s","purge_timeout":"15s","scope":"local"}`,
	}
	got := map[string]string{}
	for _, p := range conf.Pipelines {
		for _, s := range p.Stages {
			got[s.Address()] = string(s.Config)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if c := conf.Runner; c.LockFile != "/var/lock/conntrack.lock" || c.Control.Path != "/tmp/sync.sock" ||
		c.Control.Backlog != 20 || c.Log.File != "/var/log/conntrackd.log" || c.Log.Syslog != "" {
		t.Errorf("runner %+v", c)
	}
}
