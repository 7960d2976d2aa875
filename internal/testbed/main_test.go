package testbed

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain fails the run if the tests leave namespaces, processes or temporary
// directories behind.
func TestMain(m *testing.M) {
	code := m.Run()
	if left := leftBehind(); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "left behind:\n%s\n", strings.Join(left, "\n"))
		code = 1
	}
	os.Exit(code)
}

func leftBehind() []string {
	left := Survivors()
	for _, dir := range []string{namespaceDir, os.TempDir()} {
		names, _ := filepath.Glob(fmt.Sprintf("%s/%s%d-*", dir, tempPrefix, os.Getpid()))
		left = append(left, names...)
	}
	return left
}
