package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The result goes to standard output, what is to be said about it to standard
// error.
func TestImport(t *testing.T) {
	const stdin = "Sync { Mode NOTRACK { } Multicast { IPv4_address 225.0.0.50 Interface eth2 } }"
	var text strings.Builder
	for _, line := range []string{
		"testdata/import/old.conf", "--strict testdata/import/old.conf", "testdata/import/udp.conf", "--strict testdata/import/udp.conf",
		"testdata/import/bad.conf", "-", "-o json -", "testdata/nonsense.conf", "",
	} {
		text.WriteString(execute(t, stdin, "", strings.Fields("import "+line)...) + "\n")
	}
	golden(t, "import.txt", text.String())
}

// What import prints, the other commands take.
func TestImportValidates(t *testing.T) {
	for _, name := range []string{"old.conf", "udp.conf"} {
		_, text, _ := strings.Cut(execute(t, "", "", "import", "testdata/import/"+name), "\n")
		text, _, _ = strings.Cut(text, "--- stderr\n")
		path := filepath.Join(shortDir(t), "result.hcl")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := execute(t, "", "", "validate", "-f", path); strings.Contains(got, "stderr") {
			t.Errorf("%s: %s", name, got)
		}
		if got := execute(t, "", "", "fmt", "--check", path); strings.Contains(got, "stderr") {
			t.Errorf("%s: %s", name, got)
		}
	}
}
