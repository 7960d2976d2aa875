package pipeline

import (
	"encoding/json"
	"io"
	"os"
	"strings"
	"unicode"

	"github.com/hashicorp/hcl/v2"
	"golang.org/x/sys/unix"
)

// WriteText writes diagnostics for people, each with the lines that it is
// about. On a terminal they are wrapped to its width and coloured, unless
// NO_COLOR is set; elsewhere lines end where their text ends.
func WriteText(w io.Writer, files Files, diags hcl.Diagnostics) error {
	width, colour := terminal(w)
	shown := make(hcl.Diagnostics, len(diags))
	for i, d := range diags {
		one := *d
		one.Summary, one.Detail = printable(d.Summary), printable(d.Detail)
		shown[i] = &one
	}
	return hcl.NewDiagnosticTextWriter(w, files, width, colour).WriteDiagnostics(shown)
}

// printable keeps a plugin, part of whose words these may be, from writing to the
// terminal more than text.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, text)
}

// terminal returns the width of a terminal, 0 if w is none.
func terminal(w io.Writer) (width uint, colour bool) {
	f, ok := w.(*os.File)
	if !ok {
		return 0, false
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return uint(size.Col), os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// A Diagnostic is a diagnostic for programs. Lines and columns count from 1,
// columns in characters; they are 0, and File is empty, for what is wrong
// nowhere in the text.
type Diagnostic struct {
	Severity  string `json:"severity"` // error or warning
	Summary   string `json:"summary"`
	Detail    string `json:"detail,omitempty"`
	File      string `json:"file,omitempty"`
	Line      int    `json:"line,omitempty"`
	Column    int    `json:"column,omitempty"`
	EndLine   int    `json:"end_line,omitempty"`
	EndColumn int    `json:"end_column,omitempty"`
	Snippet   string `json:"snippet,omitempty"` // the lines from Line to EndLine
}

// A Verdict is what WriteJSON writes.
type Verdict struct {
	Valid       bool         `json:"valid"`
	Errors      int          `json:"errors"`
	Warnings    int          `json:"warnings"`
	Diagnostics []Diagnostic `json:"diagnostics"`
}

// Judge returns diagnostics in their form for programs.
func Judge(files Files, diags hcl.Diagnostics) Verdict {
	v := Verdict{Diagnostics: []Diagnostic{}}
	for _, d := range diags {
		one := Diagnostic{Severity: "error", Summary: d.Summary, Detail: d.Detail}
		if d.Severity == hcl.DiagWarning {
			one.Severity = "warning"
			v.Warnings++
		} else {
			v.Errors++
		}
		if r := d.Subject; r != nil {
			one.File, one.Line, one.Column = r.Filename, r.Start.Line, r.Start.Column
			one.EndLine, one.EndColumn = r.End.Line, r.End.Column
			one.Snippet = snippet(files[r.Filename], r)
		}
		v.Diagnostics = append(v.Diagnostics, one)
	}
	v.Valid = v.Errors == 0
	return v
}

func snippet(file *hcl.File, r *hcl.Range) string {
	if file == nil {
		return ""
	}
	lines := strings.Split(string(file.Bytes), "\n")
	from, to := r.Start.Line-1, min(r.End.Line, len(lines))
	if from < 0 || from >= to {
		return ""
	}
	return strings.Join(lines[from:to], "\n")
}

// WriteJSON writes a Verdict as indented JSON.
func WriteJSON(w io.Writer, files Files, diags hcl.Diagnostics) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(Judge(files, diags))
}
