package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/cmd/sluice/internal/textdiff"
	"github.com/sluice-project/sluice/core/cases"
	"github.com/sluice-project/sluice/core/pipeline"
)

// A formatter is the command fmt with its flags.
type formatter struct {
	*app
	check, diff, write bool
	changed            []string // files whose layout was or is not canonical
}

func (a *app) format() *cobra.Command {
	f := &formatter{app: a}
	cmd := &cobra.Command{
		Use:   "fmt [FILE|DIR]... | -",
		Short: "Give pipeline files their canonical layout",
		Long: `Give pipeline files their canonical layout, in place, and name those that changed.

A directory stands for its *.hcl, tests included; without arguments it is the current one. "-" reads from standard input and writes
to standard output. --check and --diff write nothing unless --write is given too; --check fails if a file's layout
is not canonical.`,
		Example: `  sluice fmt /etc/sluice
  sluice fmt --check --diff pipelines`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("write") {
				f.write = !f.check && !f.diff
			}
			return f.run(args)
		},
		ValidArgsFunction: completePipelineFiles,
	}
	cmd.Flags().BoolVar(&f.check, "check", false, "fail if a file's layout is not canonical")
	cmd.Flags().BoolVar(&f.diff, "diff", false, "show the differences")
	cmd.Flags().BoolVarP(&f.write, "write", "w", true, "write the files")
	return cmd
}

func (f *formatter) run(args []string) error {
	if len(args) == 0 {
		args = []string{"."}
	}
	if len(args) == 1 && args[0] == "-" {
		return f.standardInput()
	}
	paths, err := pipeline.Paths(args)
	if err != nil {
		return err
	}
	for _, path := range append(paths, testsIn(args)...) {
		if err := f.file(path); err != nil {
			return err
		}
	}
	return f.end()
}

// testsIn returns the files of tests in directories.
func testsIn(paths []string) (files []string) {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.IsDir() {
			found, _ := cases.Find([]string{path}) // an error is that there are none
			files = append(files, found...)
		}
	}
	return files
}

func (f *formatter) standardInput() error {
	text, err := io.ReadAll(f.stdin)
	if err != nil {
		return err
	}
	formatted, err := f.layout("standard input", text)
	if err != nil {
		return err
	}
	if !f.check && !f.diff {
		_, err := f.stdout.Write(formatted)
		return err
	}
	return f.end()
}

func (f *formatter) file(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	formatted, err := f.layout(path, text)
	if err != nil || bytes.Equal(text, formatted) {
		return err
	}
	if !f.json() && !f.diff {
		fmt.Fprintln(f.stdout, path)
	}
	if !f.write {
		return nil
	}
	target, err := filepath.EvalSymlinks(path) // the link stays
	if err != nil {
		return err
	}
	return renameio.WriteFile(target, formatted, 0o644, renameio.WithExistingPermissions())
}

// layout returns a text's canonical layout and remembers, or shows, that it
// differs.
func (f *formatter) layout(name string, text []byte) ([]byte, error) {
	files, diags := pipeline.Parse(name, text)
	if diags.HasErrors() {
		if err := pipeline.WriteText(f.stderr, files, diags); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("fmt: %s is no HCL", name)
	}
	formatted := pipeline.Format(text)
	if !bytes.Equal(text, formatted) {
		f.changed = append(f.changed, name)
		if f.diff && !f.json() {
			fmt.Fprint(f.stdout, textdiff.Unified(name, name, text, formatted))
		}
	}
	return formatted, nil
}

func (f *formatter) end() error {
	if f.json() {
		list := append([]string{}, f.changed...)
		if err := f.printJSON(map[string][]string{"changed": list}); err != nil {
			return err
		}
	}
	if f.check && len(f.changed) > 0 {
		return fmt.Errorf("fmt: the layout of %s is not canonical: `sluice fmt` writes it", plural(len(f.changed), "file"))
	}
	return nil
}
