package console

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/sluice-project/sluice/core/control"
)

// Steps shows the steps of a command that acts as they end.
type Steps interface {
	// Step shows one.
	Step(control.Step)
	// End shows how the command ended and returns err.
	End(err error) error
}

// TextSteps writes a line a step for people, and at the end how long all took.
func TextSteps(out io.Writer, color bool, now func() time.Time) Steps {
	return &textSteps{screen{out: out, color: color}, now, now()}
}

type textSteps struct {
	screen
	now     func() time.Time
	started time.Time
}

func (t *textSteps) Step(step control.Step) {
	result, st := Counts(step.Counts), plain
	if step.Note != "" && result != "" {
		result += "; "
	}
	result += step.Note
	if step.Error != "" {
		result, st = "failed: "+step.Error, red
	}
	line := fmt.Sprintf("%-16s %-*s %8s", step.Name, maxStage, step.Stage, Elapsed(step.Elapsed))
	if result == "" {
		t.printf("%s\n", line)
		return
	}
	// Not cut: what failed is worth a long line.
	t.printf("%s  %s\n", line, t.paint(clean(result), st))
}

func (t *textSteps) End(err error) error {
	if err == nil {
		t.printf("done in %s\n", Elapsed(t.now().Sub(t.started)))
		err = t.err
	}
	return err
}

// clean makes a line of text that moves no cursor.
func clean(text string) string { return cut(text, len(text)) }

// JSONSteps writes each step as the control protocol has it, one object a
// line, and at the end {"done":true} with the error, if there is one.
func JSONSteps(out io.Writer) Steps { return &jsonSteps{encoder: json.NewEncoder(out)} }

type jsonSteps struct {
	encoder *json.Encoder
	err     error
}

func (j *jsonSteps) Step(step control.Step) { j.write(step) }

func (j *jsonSteps) write(v any) {
	if j.err == nil {
		j.err = j.encoder.Encode(v)
	}
}

func (j *jsonSteps) End(err error) error {
	last := control.End{Done: true}
	if err != nil {
		last.Error = err.Error()
	}
	j.write(last)
	if err == nil {
		err = j.err
	}
	return err
}
