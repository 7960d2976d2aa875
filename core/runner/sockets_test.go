package runner

import (
	"os"
	"path/filepath"
	"testing"
)

// What a runner that was killed has left goes with the next start; the folder of
// one that runs stays.
func TestSocketFolders(t *testing.T) {
	dir := t.TempDir()
	held, err := openSocketFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, socketPrefix+"left")
	if err := os.MkdirAll(filepath.Join(left, "plugin-dir1"), 0o700); err != nil {
		t.Fatal(err)
	}
	next, err := openSocketFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 2 {
		t.Errorf("there are %v, %v", entries, err)
	}
	held.close()
	next.close()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
