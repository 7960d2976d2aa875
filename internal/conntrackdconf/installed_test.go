package conntrackdconf

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/hcl/v2"
)

// The examples of an installed conntrackd, and whatever files are named in
// SLUICE_CONNTRACKD_CONF, separated as in PATH. They are read where they lie:
// conntrackd's are under another licence than this project.
func TestInstalledExamples(t *testing.T) {
	paths := filepath.SplitList(os.Getenv("SLUICE_CONNTRACKD_CONF"))
	_ = filepath.WalkDir("/usr/share/doc/conntrackd/examples", func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(path, "conntrackd.conf") {
			paths = append(paths, path)
		}
		return nil
	})
	if len(paths) == 0 {
		t.Skip("no conntrackd is installed")
	}
	for _, path := range paths {
		t.Run(path, func(t *testing.T) {
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if strings.HasSuffix(path, ".gz") {
				source = unzip(t, source)
			}
			example(t, path, source)
		})
	}
}

// example parses and converts a whole file.
func example(t *testing.T, name string, source []byte) {
	t.Helper()
	file, diags := Parse(name, source)
	if len(diags) > 0 {
		t.Fatal(diags)
	}
	r := Convert(file)
	check(t, file, r)
	if r.Notes.HasErrors() {
		t.Error(r.Notes)
	}
}

func unzip(t *testing.T, data []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	data, err = io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

var (
	manExample = regexp.MustCompile(`(?ms)^\.nf\n(.*?)^\.fi`)
	manLine    = regexp.MustCompile(`(?m)^Example: +(.+)$`)
)

// Every example of conntrackd.conf(5) parses where it belongs, and the complete
// ones are converted.
func TestManualPage(t *testing.T) {
	data, err := os.ReadFile("/usr/share/man/man5/conntrackd.conf.5.gz")
	if err != nil {
		t.Skip(err)
	}
	page := string(unzip(t, data))
	page = strings.NewReplacer(`\-`, "-", `\fB`, "", `\fP`, "").Replace(page)
	seen, whole := 0, 0
	for _, m := range append(manExample.FindAllStringSubmatch(page, -1), manLine.FindAllStringSubmatch(page, -1)...) {
		if strings.Contains(m[1], "section1") || strings.HasPrefix(m[1], "%") || strings.Contains(m[1], "nfct add") ||
			strings.HasPrefix(strings.TrimSpace(m[1]), "Type <name>") || strings.HasPrefix(strings.TrimSpace(m[1]), `"`) {
			continue // no configuration
		}
		seen++
		if diags := anywhere(m[1]); diags.HasErrors() {
			t.Errorf("%v:\n%s", diags, m[1])
		}
		if strings.Contains(m[1], "General {") {
			whole++
			example(t, "conntrackd.conf(5)", []byte("\n"+m[1]))
		}
	}
	if seen < 40 || whole < 3 {
		t.Errorf("only %d examples, %d complete ones", seen, whole)
	}
}

// anywhere parses a text in the first kind of section where it has no errors.
func anywhere(text string) (first hcl.Diagnostics) {
	for _, around := range []string{
		"%s", "General {%s}", "Sync {%s}", "Sync { Mode FTFW {%s}}", "Sync { Multicast {%s}}", "Sync { UDP {%s}}",
		"Sync { Options {%s}}", "General { UNIX {%s}}", "General { Filter {%s}}", "Helper {%s}", "Helper { Type x inet tcp {%s}}",
	} {
		_, diags := Parse("conntrackd.conf(5)", fmt.Appendf(nil, around, "\n"+text+"\n"))
		if !diags.HasErrors() {
			return nil
		}
		if first == nil {
			first = diags
		}
	}
	return first
}

var complaint = regexp.MustCompile(`in line \((\d+)\), symbol '([^']*)'`)

// An installed conntrackd reads our files as we do: today's up to the nonsense
// that is put behind them, so that it never starts; the bad ones not so far.
func TestConntrackdAgrees(t *testing.T) {
	if _, err := exec.LookPath("conntrackd"); err != nil || os.Getuid() != 0 {
		t.Skip("no conntrackd is installed, or this is not root")
	}
	// Files whose grammar is older, or whose mistakes conntrackd lets pass; and
	// what it does not know, though its manual page does (Stats with
	// NetlinkEventsReliable), or refuses (Stats beside Sync).
	differs := map[string]bool{"old.conf": true, "old-active.conf": true, "bad-stats.conf": true, "bad-numbers.conf": true,
		"bad-link.conf": true, "bad-nolink.conf": true, "bad-empty.conf": true,
		"bad-nothing.conf": true, "bad-unicast.conf": true, "both.conf": true}
	for name, source := range configurations(t) {
		if differs[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, append(source, "\nNonsense\n"...), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			out, err := exec.CommandContext(ctx, "conntrackd", "-C", path).CombinedOutput()
			if err == nil {
				t.Fatalf("conntrackd takes it: %s", out)
			}
			m := complaint.FindSubmatch(out)
			if m == nil {
				t.Fatalf("conntrackd says %s", out)
			}
			if reached := string(m[2]) == "Nonsense"; reached == strings.HasPrefix(name, "bad") {
				t.Errorf("conntrackd says %s", out)
			}
		})
	}
}
