package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	var text strings.Builder
	for _, line := range []string{
		"-f testdata/pipelines/good.hcl",
		"-f testdata/pipelines/good.hcl -o json",
		"-f testdata/pipelines/bad.hcl",
		"-f testdata/pipelines/bad.hcl -o json",
		"-f testdata/nonsense",
	} {
		text.WriteString(execute(t, "", "", append([]string{"validate"}, strings.Split(line, " ")...)...) + "\n")
	}
	golden(t, "validate.txt", text.String())
}

// Values of variables come from the command line and from files.
func TestValidateVariables(t *testing.T) {
	values := filepath.Join(shortDir(t), "values.hcl")
	if err := os.WriteFile(values, []byte(`protocols = ["fromfile"]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, args := range map[string][]string{
		`"fromflag"`: {"-var", `protocols=["fromflag"]`},
		`"fromfile"`: {"-var-file", values},
		"valid":      {"-var-file", values, "-var", `protocols=["udp"]`},
	} {
		text := execute(t, "", "", append([]string{"validate", "-f", "testdata/pipelines/good.hcl"}, args...)...)
		if _, text, _ = strings.Cut(text, "\n"); !strings.Contains(text, want) {
			t.Errorf("%v: %s", args, text)
		}
	}
}

// TestFormat runs on copies, one command after another.
func TestFormat(t *testing.T) {
	dir := shortDir(t)
	for _, name := range []string{"good.hcl", "ugly.hcl"} {
		text, err := os.ReadFile("testdata/pipelines/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	ugly, err := os.ReadFile(filepath.Join(dir, "ugly.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, line := range []string{
		"fmt -check DIR", "fmt -diff DIR", "fmt -check -o json DIR", "fmt -", "fmt -check -", "fmt -w=false DIR", // write nothing
		"fmt DIR", "fmt DIR", "fmt -check DIR", "fmt -o json DIR/ugly.hcl", "fmt DIR/nonsense.hcl",
	} {
		args := strings.Fields(strings.ReplaceAll(line, "DIR", dir))
		text.WriteString(execute(t, string(ugly), "", args...) + "\n")
	}
	text.WriteString(execute(t, "pipeline {{", "", "fmt", "-") + "\n")
	golden(t, "fmt.txt", strings.ReplaceAll(text.String(), dir, "DIR"))
	if info, err := os.Stat(filepath.Join(dir, "ugly.hcl")); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, mode %v", err, info.Mode())
	}
}

// A file that is reached by a link is written where it is, and the link stays.
func TestFormatLink(t *testing.T) {
	dir := shortDir(t)
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link.hcl")
	if err := os.WriteFile(file, []byte("runner {\nname=\"a\"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("file", link); err != nil {
		t.Fatal(err)
	}
	execute(t, "", "", "fmt", link)
	if got, err := os.ReadFile(file); err != nil || string(got) != "runner {\n  name = \"a\"\n}\n" {
		t.Errorf("%v: %s", err, got)
	}
	if target, err := os.Readlink(link); err != nil || target != "file" {
		t.Errorf("%v: %s", err, target)
	}
}

func TestColor(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer terminal.Close()
	environment := map[string]string{"TERM": "xterm"}
	a := newApp(nil, terminal, nil)
	a.getenv = func(name string) string { return environment[name] }
	if !a.color() {
		t.Error("no colour on a terminal")
	}
	environment["NO_COLOR"] = "1"
	if a.color() {
		t.Error("colour in spite of NO_COLOR")
	}
	environment = map[string]string{"TERM": "dumb"}
	if a.color() {
		t.Error("colour on a dumb terminal")
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	environment, a.stdout = map[string]string{"TERM": "xterm"}, null
	if a.color() {
		t.Error("colour into a file")
	}
}

// One mistake has one message, though what it leaves out is missing then.
func TestValidateSaysItOnce(t *testing.T) {
	for _, typ := range []string{"udp", "tcp"} {
		path := filepath.Join(t.TempDir(), "one.hcl")
		text := "pipeline \"local\" {\n  source \"netlink\" {}\n  sink \"" + typ + "\" {\n    destination = \"192.0.2.1\"\n    interface = \"eth2\"\n  }\n}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got := execute(t, "", "", "validate", "-f", path)
		if !strings.Contains(got, "list of string required") || !strings.Contains(got, "the configuration has an error\n") {
			t.Errorf("sink %s:\n%s", typ, got)
		}
	}
}
