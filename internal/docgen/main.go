// Command docgen writes the generated parts of the documentation: what the
// runner block and every bundled plugin may be configured with, from the same
// schemas that the runner checks pipelines by. The rest of a page is written by
// hand and stays.
//
//	go run ./internal/docgen docs/pipelines.md
package main

//go:generate go run . ../../docs/pipelines.md

import (
	"fmt"
	"os"

	"github.com/google/renameio/v2"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: docgen FILE")
		os.Exit(2)
	}
	if err := update(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "docgen:", err)
		os.Exit(1)
	}
}

// update writes a page anew.
func update(path string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	page, err = Insert(page, Reference())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return renameio.WriteFile(path, page, 0o644, renameio.WithExistingPermissions())
}
