package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// WithBinary calls run with the path of the sluice to test: what SLUICE_BINARY
// names, or else one that is built for it and removed afterwards. It returns
// run's exit status, for a TestMain.
func WithBinary(run func(binary string) int) int {
	if binary := os.Getenv("SLUICE_BINARY"); binary != "" {
		return run(binary)
	}
	dir, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "sluice")
	build := exec.Command("go", "build", "-o", binary, "github.com/sluice-project/sluice/cmd/sluice")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	return run(binary)
}
