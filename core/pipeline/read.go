package pipeline

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"

	"github.com/sluice-project/sluice/core/trust"
)

// A source is a file's name, as diagnostics show it, and what is in it.
type source struct {
	name  string
	bytes []byte
}

// Paths returns the files that Load reads for these paths, in its order.
func Paths(paths []string) (files []string, err error) {
	seen := map[string]bool{}
	for _, path := range paths {
		found, err := expand(path)
		if err != nil {
			return nil, err
		}
		for _, file := range found {
			if key := filepath.Clean(file); !seen[key] {
				seen[key] = true
				files = append(files, file)
			}
		}
	}
	return files, nil
}

// expand returns a file itself, and a directory's pipeline files by name.
func expand(path string) (files []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	if !info.IsDir() {
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, cause(err))
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() && strings.HasSuffix(name, ".hcl") && !strings.HasSuffix(name, ".test.hcl") && !strings.HasSuffix(name, trust.Suffix) && name[0] != '.' {
			files = append(files, filepath.Join(path, name))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: a directory without files named *.hcl", path)
	}
	return files, nil
}

// cause strips what fs errors repeat: the operation and the path.
func cause(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func readSources(paths []string, texts map[string][]byte) (sources []source, diags hcl.Diagnostics) {
	if len(paths)+len(texts) == 0 {
		return nil, hcl.Diagnostics{failure("Nothing to read", "Name a file or a directory of pipelines.", nil)}
	}
	files, err := Paths(paths)
	if err != nil {
		return nil, hcl.Diagnostics{unreadable(err)}
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			diags = append(diags, unreadable(fmt.Errorf("%s: %w", name, cause(err))))
			continue
		}
		sources = append(sources, source{name, text})
	}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		sources = append(sources, source{name, texts[name]})
	}
	return sources, diags
}

func unreadable(err error) *hcl.Diagnostic {
	return failure("Unreadable file", "The configuration can't be read: "+err.Error()+".", nil)
}
