package plugin

import (
	"fmt"
	"strings"
)

// A Diagnostic is something wrong in a configuration. Path leads to the value
// at fault from the stage's block: names of attributes and blocks (string) and
// indexes into lists and repeated blocks (int), as in {"address", "ignore", 2}.
// The runner shows the place in the administrator's file.
type Diagnostic struct {
	Path    []any
	Summary string // a few words: "Bad address"
	Detail  string // what is wrong and what to do, in whole sentences
}

// Diagnostics is all that is wrong in a configuration.
type Diagnostics []Diagnostic

// Add appends a diagnostic about the value at path.
func (d *Diagnostics) Add(path []any, summary, detail string, args ...any) {
	*d = append(*d, Diagnostic{Path: path, Summary: summary, Detail: fmt.Sprintf(detail, args...)})
}

// Path is a shorthand for the path of a Diagnostic.
func Path(steps ...any) []any { return steps }

// Error makes Diagnostics an error of one line for those who have no file to
// point at.
func (d Diagnostics) Error() string {
	var lines []string
	for _, one := range d {
		lines = append(lines, fmt.Sprintf("%v: %s: %s", one.Path, one.Summary, one.Detail))
	}
	return strings.Join(lines, "; ")
}
