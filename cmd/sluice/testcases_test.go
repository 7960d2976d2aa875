package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/core/cases"
	"github.com/sluice-project/sluice/core/flow"
	"github.com/sluice-project/sluice/core/plugintest/kit"
	"github.com/sluice-project/sluice/core/recording"
)

// spans match how long something took.
var spans = regexp.MustCompile(`\b[0-9.]+(ms|s)\b`)

// What passes and what fails is shown as in testdata/test.txt.
func TestTests(t *testing.T) {
	var text strings.Builder
	for _, line := range []string{
		"test testdata/tests/node.test.hcl", "test testdata/tests/node.test.hcl --run sweeps", "test testdata/tests/failing.test.hcl",
		"test testdata/tests/bad.test.hcl", "test testdata/tests/notpipelines.test.hcl", "test testdata/tests/node.test.hcl --run nothing",
		"test testdata/tests/node.hcl", "test testdata/golden", "test --run ( testdata/tests", "test --patience 0s testdata/tests", "test testdata",
	} {
		text.WriteString(execute(t, "", "", strings.Split(line, " ")...) + "\n")
	}
	golden(t, "test.txt", spans.ReplaceAllString(text.String(), "TIME"))
}

// The tests beside the pipelines that Sluice comes with pass.
func TestShippedTests(t *testing.T) {
	if out := execute(t, "", "", "test", "../../pipelines"); strings.Contains(out, "exit status") || !strings.Contains(out, " passed, 0 failed") {
		t.Error(out)
	}
}

// A directory's tests are laid out with its pipelines.
func TestFormatTests(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a.hcl": "locals {\n  a = 1\n}\n", "a.test.hcl": "test \"x\" {\n stage = 1\n}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out := execute(t, "", "", "fmt", dir); strings.Contains(out, "exit status") {
		t.Error(out)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "a.test.hcl")); err != nil || !bytes.Contains(text, []byte("\n  stage")) {
		t.Errorf("%v: %s", err, text)
	}
}

// So do those of the documentation, in one file beside the pipeline that it names.
func TestDocumentedTests(t *testing.T) {
	page, err := os.ReadFile("../../docs/testing.md")
	if err != nil {
		t.Fatal(err)
	}
	pipelines, err := os.ReadFile("../../pipelines/primary-backup.hcl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var tests bytes.Buffer
	for _, found := range regexp.MustCompile("(?ms)^```hcl\n(.*?)^```$").FindAllSubmatch(page, -1) {
		if bytes.Contains(found[1], []byte("\ntest \"")) || bytes.HasPrefix(found[1], []byte("test \"")) {
			tests.Write(found[1])
		}
	}
	for name, text := range map[string][]byte{"primary-backup.hcl": pipelines, "primary-backup.test.hcl": tests.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	writeRecording(t, filepath.Join(dir, "flows.rec"), 20)
	if out := execute(t, "", "", "test", dir); !strings.Contains(out, " passed, 0 failed") {
		t.Error(out)
	}
}

// writeRecording makes a recording of n new flows, of five kinds in turn.
func writeRecording(t *testing.T, path string, n uint32) {
	t.Helper()
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w, err := recording.NewWriter(file, recording.About{Started: testNow})
	for _, p := range kit.Pack(flow.Header{}, 0, kit.Events(0, n, flow.New)...) {
		b, _ := flow.DecodeBatch(p)
		err = errors.Join(err, w.Write(0, p, b.Count))
	}
	if err = errors.Join(err, w.Close("made for a test", time.Second)); err != nil {
		t.Fatal(err)
	}
}

// Programs get the same, as JSON and as JUnit's XML.
func TestTestReports(t *testing.T) {
	junit := filepath.Join(t.TempDir(), "report.xml")
	out := execute(t, "", "", "test", "-o", "json", "--junit", junit, "testdata/tests")
	_, text, _ := strings.Cut(out, "\n")
	text, _, _ = strings.Cut(text, "\n---")
	var report cases.Report
	if err := json.Unmarshal([]byte(text), &report); err != nil {
		t.Fatal(err, out)
	}
	if report.Passed != 3 || report.Failed != 12 || !strings.Contains(out, "exit status 1") {
		t.Error(out)
	}
	xml, err := os.ReadFile(junit)
	if err != nil || !bytes.Contains(xml, []byte(`tests="15" failures="12"`)) || !bytes.Contains(xml, []byte("events_in of local.filter.basic is 0, not 3")) {
		t.Errorf("%v\n%s", err, xml)
	}
}
