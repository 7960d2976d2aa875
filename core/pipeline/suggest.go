package pipeline

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// failure makes an error diagnostic.
func failure(summary, detail string, subject *hcl.Range) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagError, Summary: summary, Detail: detail, Subject: subject}
}

// warning makes a warning.
func warning(summary, detail string, subject *hcl.Range) *hcl.Diagnostic {
	return &hcl.Diagnostic{Severity: hcl.DiagWarning, Summary: summary, Detail: detail, Subject: subject}
}

// closest returns the known name that a given one was most likely meant to be,
// or "". Two typing errors are the limit, as in HCL's own suggestions, but not
// if they are the whole word.
func closest(given string, known []string) (best string) {
	limit := min(2, len(given)-1)
	for _, name := range known {
		if d := levenshtein.Distance(given, name, nil); d <= limit {
			best, limit = name, d-1
		}
	}
	return best
}

// didYouMean returns a sentence with the likely name, or otherwise.
func didYouMean(given string, known []string, otherwise string) string {
	if name := closest(given, known); name != "" {
		return fmt.Sprintf(" Did you mean %q?", name)
	}
	return otherwise
}

// list writes names as people do: a, b and c.
func list(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// namePattern keeps names usable in addresses (pipeline.kind.name), on a
// command line and in file names.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$`)

const nameRule = "A name starts with a letter, a digit or an underscore, goes on with these or hyphens, and has at most 64 characters."
