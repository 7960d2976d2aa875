// Command docgen writes the generated parts of the documentation: what the
// runner block and every bundled plugin may be configured with, from the same
// schemas that the runner checks pipelines by; and the metrics, from their
// descriptions. The rest of a page is written by hand and stays.
//
//	go run ./internal/docgen docs/pipelines.md docs/operations.md
package main

//go:generate go run . ../../docs/pipelines.md ../../docs/operations.md

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// parts are the generated parts by the names of their pages.
var parts = map[string]func() string{"pipelines.md": Reference, "operations.md": MetricsTable}

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: docgen FILE…")
		os.Exit(2)
	}
	for _, path := range os.Args[1:] {
		if err := update(path); err != nil {
			fmt.Fprintln(os.Stderr, "docgen:", err)
			os.Exit(1)
		}
	}
}

// update writes a page anew.
func update(path string) error {
	part, ok := parts[filepath.Base(path)]
	if !ok {
		return fmt.Errorf("%s: nothing is generated for a page of this name", path)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	page, err = Insert(page, part())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return renameio.WriteFile(path, page, 0o644, renameio.WithExistingPermissions())
}
