package textdiff

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestUnified(t *testing.T) {
	for name, c := range map[string]struct{ a, b, want string }{
		"equal":          {"a\nb\n", "a\nb\n", ""},
		"changed":        {"a\nb\nc\n", "a\nB\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		"from nothing":   {"", "a\n", "@@ -0,0 +1,1 @@\n+a\n"},
		"to nothing":     {"a\n", "", "@@ -1,1 +0,0 @@\n-a\n"},
		"no newline":     {"a", "a\n", "@@ -1,1 +1,1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		"two hunks":      {"1\n2\n3\n4\n5\n6\n7\n8\n9\n", "x\n2\n3\n4\n5\n6\n7\n8\ny\n", "@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+y\n"},
		"near to be one": {"1\n2\n3\n4\n5\n6\n", "x\n2\n3\n4\n5\ny\n", "@@ -1,6 +1,6 @@\n-1\n+x\n 2\n 3\n 4\n 5\n-6\n+y\n"},
	} {
		want := c.want
		if want != "" {
			want = "--- A\n+++ B\n" + want
		}
		if got := Unified("A", "B", []byte(c.a), []byte(c.b)); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", name, got, want)
		}
	}
}

// patch(1) makes b of a. Texts are a letter a line, so that lines repeat.
func FuzzPatch(f *testing.F) {
	if _, err := exec.LookPath("patch"); err != nil {
		f.Skip(err)
	}
	f.Add("abcabba", "cbabac", true)
	f.Add("aaaaaaaaaaaaaaaaaaaab", "caaaaaaaaaaaaaaaaaaaa", false)
	f.Fuzz(func(t *testing.T, a, b string, newline bool) {
		from, to := letters(a, true), letters(b, newline)
		diff := Unified("text", "text", []byte(from), []byte(to))
		if diff == "" {
			if from != to {
				t.Fatal("no difference found")
			}
			return
		}
		path := filepath.Join(t.TempDir(), "text")
		if err := os.WriteFile(path, []byte(from), 0o600); err != nil {
			t.Fatal(err)
		}
		patch := exec.Command("patch", "--quiet", "--fuzz=0", path)
		patch.Stdin = strings.NewReader(diff)
		if out, err := patch.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s\n%s", err, out, diff)
		}
		if got, _ := os.ReadFile(path); string(got) != to {
			t.Fatalf("got %q, want %q, from\n%s", got, to, diff)
		}
	})
}

func letters(s string, newline bool) string {
	var text strings.Builder
	for _, r := range s {
		fmt.Fprintf(&text, "%d\n", r%7)
	}
	if newline {
		return text.String()
	}
	return strings.TrimSuffix(text.String(), "\n")
}
