package main

import (
	"bytes"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-project/sluice/internal/manual"
)

var (
	manualTo      = flag.String("manual", "", "a `directory` to write the manual pages to")
	manualVersion = flag.String("manual-version", "", "the version that they are of")
	manualDate    = flag.Int64("manual-date", 0, "their date, in seconds since 1970")
)

// The manual pages are complete and render without a warning. This test also
// makes them for the packages: packaging/build.
func TestManual(t *testing.T) {
	pages, err := manual.Book{Root: "../..", Version: *manualVersion, Date: time.Unix(*manualDate, 0)}.
		Pages(newApp(os.Stdin, io.Discard, io.Discard).root())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"sluice.1", "sluice-run.1", "sluice-role.1", "sluice.hcl.5", "sluice-filter-basic.5", "sluice-sink-kernel.5"} {
		if pages[want] == nil {
			t.Errorf("no page %s", want)
		}
	}
	for name, page := range pages {
		if bytes.Contains(page, []byte(" docs/")) || bytes.Contains(page, []byte("](")) {
			t.Errorf("%s leads to a page that is not installed there", name)
		}
		if *manualTo != "" {
			if err := os.WriteFile(filepath.Join(*manualTo, name), page, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	renderPages(t, pages)
}

// named is the line by which whatis finds a page.
var named = regexp.MustCompile(`(?m)^\.SH NAME\n+sluice[a-z.-]* \\- [A-Za-z].*[^.]$`)

func renderPages(t *testing.T, pages map[string][]byte) {
	if _, err := exec.LookPath("man"); err != nil {
		t.Skip("this machine lacks man")
	}
	dir := t.TempDir()
	for name, page := range pages {
		if text := strings.ReplaceAll(string(page), `\-`, "-"); !named.MatchString(strings.Replace(text, " - ", ` \- `, 1)) {
			t.Errorf("%s: no name for whatis:\n%.400s", name, page)
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, page, 0o644); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("man", "--warnings", "-E", "UTF-8", "-l", path)
		cmd.Env = append(os.Environ(), "MANWIDTH=80", "MANROFFSEQ=", "LC_ALL=C.UTF-8")
		var warnings bytes.Buffer
		cmd.Stderr = &warnings
		if out, err := cmd.Output(); err != nil || warnings.Len() > 0 || len(out) < 300 {
			t.Errorf("%s: %v: %s (%d bytes)", name, err, warnings.String(), len(out))
		}
	}
}
