package cases

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sluice-project/sluice/core/plugintest/kit"
)

// A Result is how a test ended.
type Result struct {
	File    string        `json:"file"`
	Line    int           `json:"line"` // of what failed, or of the test
	Test    string        `json:"test"`
	Passed  bool          `json:"passed"`
	Detail  string        `json:"detail,omitempty"` // what is wrong, in lines
	Elapsed time.Duration `json:"elapsed_ns"`
}

// ResultOf makes a result of what Run returned.
func ResultOf(f *File, t *Test, err error, elapsed time.Duration) Result {
	r := Result{File: f.Name, Line: t.Range.Start.Line, Test: t.Name, Passed: err == nil, Elapsed: elapsed}
	var failure *Failure
	switch {
	case errors.As(err, &failure):
		r.Line, r.Detail = failure.Line, failure.Detail
	case err != nil:
		r.Detail = err.Error()
	}
	return r
}

// Write writes a result's line, and what is wrong below it, for people.
func (r Result) Write(w io.Writer) error {
	mark := "pass"
	if !r.Passed {
		mark = "FAIL"
	}
	text := fmt.Sprintf("%s  %s  %s (%v)\n", mark, r.File, r.Test, r.Elapsed.Round(time.Millisecond))
	if !r.Passed {
		text += fmt.Sprintf("      %s: %s\n", r.where(), strings.ReplaceAll(r.Detail, "\n", "\n      "))
	}
	_, err := io.WriteString(w, text)
	return err
}

// where is the place in the file that a result is about.
func (r Result) where() string {
	if r.Line == 0 {
		return r.File
	}
	return fmt.Sprintf("%s:%d", r.File, r.Line)
}

// A Report is all results.
type Report struct {
	Passed  int           `json:"passed"`
	Failed  int           `json:"failed"`
	Results []Result      `json:"tests"`
	Elapsed time.Duration `json:"elapsed_ns"`
}

// Add adds a result.
func (r *Report) Add(one Result) {
	if one.Passed {
		r.Passed++
	} else {
		r.Failed++
	}
	r.Results = append(r.Results, one)
	r.Elapsed += one.Elapsed
}

// WriteSummary writes the last line.
func (r *Report) WriteSummary(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s passed, %d failed in %v\n", plural(r.Passed, "test"), r.Failed, r.Elapsed.Round(10*time.Millisecond))
	return err
}

// WriteJUnit writes the report as JUnit's XML.
func (r *Report) WriteJUnit(w io.Writer) error {
	suite := kit.Report{Name: "sluice test", Elapsed: r.Elapsed}
	for _, one := range r.Results {
		result := kit.Result{Name: one.File, Claim: one.Test, Outcome: kit.Passed, Elapsed: one.Elapsed}
		if !one.Passed {
			result.Outcome, result.Detail = kit.Failed, one.where()+": "+one.Detail
		}
		suite.Results = append(suite.Results, result)
	}
	return suite.WriteJUnit(w)
}
