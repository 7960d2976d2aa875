package cases

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-project/sluice/core/flow"
)

// An event is what came out: what can be stated of it, and for people.
type event struct {
	flow.Text
	line string
}

func newEvent(e *flow.Event, h *flow.Header) (event, error) {
	text, err := flow.TextOf(e, h)
	line := strings.TrimSpace(e.String())
	if h.Owner.IsValid() {
		line += " owner=" + h.Owner.String()
	}
	return event{text, line}, err
}

// maxCompared bounds the work of a comparison: pairs of lines and events.
const maxCompared = 4 << 20

// A line of the difference: both sides where they agree.
type diffLine struct {
	want *Line
	got  *event
}

// compare returns what is wrong with the events, for people, or "".
func (x *Expect) compare(got []event) string {
	var wrong []string
	if x.Count >= 0 && len(got) != x.Count {
		text := fmt.Sprintf("%s, not %d", plural(len(got), "event"), x.Count)
		if !x.HasLines {
			text += listed(got)
		}
		wrong = append(wrong, text)
	}
	if x.HasLines {
		if len(x.Events)*len(got) > maxCompared {
			return fmt.Sprintf("%d stated and %d events are too many to compare", len(x.Events), len(got))
		}
		wrong = append(wrong, x.compareLines(got)...)
	}
	for i := range x.Absent {
		line := &x.Absent[i]
		if at := slices.IndexFunc(got, line.is); at >= 0 {
			wrong = append(wrong, fmt.Sprintf("line %d says that there is none such:\n  - %s\n  + %s", line.Range.Start.Line, line.Source, got[at].line))
		}
	}
	return strings.Join(wrong, "\n")
}

func (l *Line) is(e event) bool { return l.Differences(e.Text) == nil }

// shownEvents bounds how many events a message lists.
const shownEvents = 20

func listed(got []event) string {
	var text strings.Builder
	for i := range got {
		if i == shownEvents {
			fmt.Fprintf(&text, "\n    and %d more", len(got)-i)
			break
		}
		text.WriteString("\n    " + got[i].line)
	}
	return text.String()
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// compareLines finds for each line an event, in order or in any.
func (x *Expect) compareLines(got []event) []string {
	matches := make([][]bool, len(x.Events))
	for i := range x.Events {
		matches[i] = make([]bool, len(got))
		for j := range got {
			matches[i][j] = x.Events[i].is(got[j])
		}
	}
	diff := x.inOrder(got, matches)
	if x.AnyOrder {
		diff = x.inAnyOrder(got, matches)
	}
	missing, surplus := 0, 0
	for _, d := range diff {
		switch {
		case d.got == nil:
			missing++
		case d.want == nil:
			surplus++
		}
	}
	if missing == 0 && (surplus == 0 || x.Others) {
		return nil
	}
	what := fmt.Sprintf("%s missing, %d too many", plural(missing, "event"), surplus)
	if x.Others {
		what = plural(missing, "event") + " missing"
	}
	return []string{what + ":" + x.show(diff)}
}

// inOrder is the longest common subsequence.
func (x *Expect) inOrder(got []event, matches [][]bool) (diff []diffLine) {
	n, m := len(x.Events), len(got)
	common := make([][]int32, n+1) // [i][j]: of x.Events[i:] and got[j:]
	for i := range common {
		common[i] = make([]int32, m+1)
	}
	for i := n - 1; i >= 0; i-- {
		for j := m - 1; j >= 0; j-- {
			common[i][j] = max(common[i+1][j], common[i][j+1])
			if matches[i][j] {
				common[i][j] = max(common[i][j], common[i+1][j+1]+1)
			}
		}
	}
	i, j := 0, 0
	for i < n || j < m {
		switch {
		case i < n && j < m && matches[i][j] && common[i][j] == common[i+1][j+1]+1:
			diff = append(diff, diffLine{&x.Events[i], &got[j]})
			i, j = i+1, j+1
		case j == m || i < n && common[i+1][j] >= common[i][j+1]:
			diff = append(diff, diffLine{want: &x.Events[i]})
			i++
		default:
			diff = append(diff, diffLine{got: &got[j]})
			j++
		}
	}
	return diff
}

// inAnyOrder finds as many pairs as there can be (augmenting paths), since a line
// that states little fits many events.
func (x *Expect) inAnyOrder(got []event, matches [][]bool) (diff []diffLine) {
	lineOf := make([]int, len(got)) // of x.Events, plus one
	var seen []bool
	var find func(i int) bool
	find = func(i int) bool {
		for j := range got {
			if !matches[i][j] || seen[j] {
				continue
			}
			seen[j] = true
			if lineOf[j] == 0 || find(lineOf[j]-1) {
				lineOf[j] = i + 1
				return true
			}
		}
		return false
	}
	var missing, surplus []diffLine
	for i := range x.Events {
		if seen = make([]bool, len(got)); !find(i) {
			missing = append(missing, diffLine{want: &x.Events[i]})
		}
	}
	for j := range got {
		if lineOf[j] == 0 {
			surplus = append(surplus, diffLine{got: &got[j]})
		} else {
			diff = append(diff, diffLine{&x.Events[lineOf[j]-1], &got[j]})
		}
	}
	return slices.Concat(diff, missing, surplus)
}

// paired puts what is missing in front of what came in its place.
func paired(diff []diffLine) (all []diffLine) {
	for len(diff) > 0 {
		var missing, surplus []diffLine
		for len(diff) > 0 && (diff[0].want == nil || diff[0].got == nil) {
			if diff[0].got == nil {
				missing = append(missing, diff[0])
			} else {
				surplus = append(surplus, diff[0])
			}
			diff = diff[1:]
		}
		for i := range max(len(missing), len(surplus)) {
			if i < len(missing) {
				all = append(all, missing[i])
			}
			if i < len(surplus) {
				all = append(all, surplus[i])
			}
		}
		if len(diff) > 0 {
			all, diff = append(all, diff[0]), diff[1:]
		}
	}
	return all
}

// shownLines bounds how long a difference is.
const shownLines = 40

// show writes a difference: what is missing with -, what is too many with +, and
// beneath a missing one in what the event behind it differs.
func (x *Expect) show(diff []diffLine) string {
	var text strings.Builder
	lines := 0
	diff = paired(diff)
	for i, d := range diff {
		if lines == shownLines {
			fmt.Fprintf(&text, "\n    and %d more", len(diff)-i)
			break
		}
		lines++
		switch {
		case d.want != nil && d.got != nil:
			text.WriteString("\n    " + d.got.line)
		case d.want != nil:
			fmt.Fprintf(&text, "\n  - %s    (line %d)", d.want.Source, d.want.Range.Start.Line)
		case x.Others:
			lines--
		default:
			text.WriteString("\n  + " + d.got.line)
			if i > 0 && diff[i-1].got == nil {
				text.WriteString("\n        " + strings.Join(diff[i-1].want.Differences(d.got.Text), "; "))
			}
		}
	}
	return text.String()
}
