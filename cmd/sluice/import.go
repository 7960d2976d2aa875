package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sluice-project/sluice/core/pipeline"
	"github.com/sluice-project/sluice/internal/conntrackdconf"
)

func (a *app) importConfig() *cobra.Command {
	var strict bool
	cmd := &cobra.Command{
		Use:   "import FILE | -",
		Short: "Convert a conntrackd.conf",
		Long: `Print the pipelines that do what a conntrackd.conf does. "-" reads it from standard input.

Comments go along. What has no counterpart, or is not needed, is kept as a comment and named on standard error with
what to do instead. docs/migration.md says what becomes of each directive.`,
		Example: `  sluice import /etc/conntrackd/conntrackd.conf > /etc/sluice/pair.hcl`,
		Args:    takes(1, 1, "a conntrackd.conf"),
		RunE: func(_ *cobra.Command, args []string) error {
			if a.json() {
				return usageError("import prints HCL: leave -o json out")
			}
			return a.convert(args[0], strict)
		},
	}
	cmd.Flags().BoolVar(&strict, "strict", false, "fail, and print nothing, if something has no counterpart")
	return cmd
}

// convert prints a file as pipelines, and what is to be said about it.
func (a *app) convert(path string, strict bool) error {
	name, source, err := a.readInput(path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	file, diags := conntrackdconf.Parse(name, source)
	var result conntrackdconf.Result
	if !diags.HasErrors() {
		result = conntrackdconf.Convert(file)
		diags = append(diags, result.Notes...)
	}
	if err := pipeline.WriteText(a.stderr, file.Files(), diags); err != nil {
		return err
	}
	switch {
	case diags.HasErrors():
		return fmt.Errorf("import: %s has %s", name, plural(pipeline.Judge(nil, diags).Errors, "error"))
	case strict && result.Lost > 0:
		return fmt.Errorf("import: %s without a counterpart", plural(result.Lost, "thing"))
	}
	_, err = a.stdout.Write(result.HCL)
	return err
}

// readInput reads a file, or standard input if the path is "-".
func (a *app) readInput(path string) (name string, text []byte, err error) {
	if path == "-" {
		text, err = io.ReadAll(a.stdin)
		return "standard input", text, err
	}
	text, err = os.ReadFile(path)
	return path, text, err
}
