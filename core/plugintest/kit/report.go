package kit

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteResult writes one check's line, and what is wrong below it, for people.
func WriteResult(w io.Writer, r Result) error {
	mark := map[Outcome]string{Passed: "pass", Failed: "FAIL", Skipped: "skip"}[r.Outcome]
	line := fmt.Sprintf("%s  %-12s  %s", mark, r.Name, r.Claim)
	if r.Detail != "" {
		line += "\n                    " + strings.ReplaceAll(r.Detail, "\n", "\n                    ")
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// WriteSummary writes the last line.
func (r *Report) WriteSummary(w io.Writer) error {
	what := r.Name
	if r.Kind != "" {
		what += fmt.Sprintf(", %s %q", r.Kind, r.Type)
	}
	verdict := "conforms"
	if !r.Conforms {
		verdict = "does not conform"
	}
	_, err := fmt.Fprintf(w, "%s %s: %d passed, %d failed, %d skipped in %v\n", what, verdict,
		r.Count(Passed), r.Count(Failed), r.Count(Skipped), r.Elapsed.Round(10*time.Millisecond))
	return err
}

// junitSuite is a report as continuous integration reads it.
type junitSuite struct {
	XMLName  xml.Name    `xml:"testsuite"`
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string     `xml:"name,attr"`
	Class   string     `xml:"classname,attr"`
	Time    string     `xml:"time,attr"`
	Failure *junitNote `xml:"failure"`
	Skipped *junitNote `xml:"skipped"`
}

type junitNote struct {
	Message string `xml:"message,attr"`
}

// WriteJUnit writes the report as JUnit's XML.
func (r *Report) WriteJUnit(w io.Writer) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.3f", d.Seconds()) }
	suite := junitSuite{
		Name: r.Name, Tests: len(r.Results), Failures: r.Count(Failed), Skipped: r.Count(Skipped), Time: seconds(r.Elapsed),
	}
	for _, one := range r.Results {
		c := junitCase{Name: one.Name + ": " + one.Claim, Class: suite.Name, Time: seconds(one.Elapsed)}
		switch one.Outcome {
		case Failed:
			c.Failure = &junitNote{one.Detail}
		case Skipped:
			c.Skipped = &junitNote{one.Detail}
		}
		suite.Cases = append(suite.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(suite); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}
