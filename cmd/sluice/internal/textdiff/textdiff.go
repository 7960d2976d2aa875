// Package textdiff compares two texts line by line, in the unified form that
// patch(1) reads. It is for files that people write: its time grows with the
// product of the lines that differ.
package textdiff

import (
	"fmt"
	"strings"
)

// context is the number of lines shown around a change.
const context = 3

// A line is one line of the result: kept (' '), removed ('-') or added ('+').
type line struct {
	op   byte
	text string
}

// Unified returns how to get from a to b, or "" if they are equal. The names
// stand in its head.
func Unified(nameA, nameB string, a, b []byte) string {
	lines := compare(split(a), split(b))
	var out strings.Builder
	for from := 0; ; {
		start, end := hunk(lines, from)
		if start == end {
			return out.String()
		}
		if out.Len() == 0 {
			fmt.Fprintf(&out, "--- %s\n+++ %s\n", nameA, nameB)
		}
		writeHunk(&out, lines, start, end)
		from = end
	}
}

// split returns the lines of a text with their ends.
func split(text []byte) []string {
	lines := strings.SplitAfter(string(text), "\n")
	if last := len(lines) - 1; lines[last] == "" {
		lines = lines[:last]
	}
	return lines
}

// compare finds the longest common subsequence between what the two have in
// common at their beginnings and ends.
func compare(a, b []string) (lines []line) {
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	for _, text := range a[:head] {
		lines = append(lines, line{' ', text})
	}
	lines = append(lines, middle(a[head:len(a)-tail], b[head:len(b)-tail])...)
	for _, text := range a[len(a)-tail:] {
		lines = append(lines, line{' ', text})
	}
	return lines
}

// middle is the textbook algorithm: common[i][j] lines are common to a[i:] and
// b[j:].
func middle(a, b []string) (lines []line) {
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			lines = append(lines, line{' ', a[i]})
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, line{'-', a[i]})
			i++
		default:
			lines = append(lines, line{'+', b[j]})
			j++
		}
	}
	return lines
}

// hunk returns the next changes from a line on, with those that are so near
// that their contexts touch. It returns the same number twice if there is none.
func hunk(lines []line, from int) (start, end int) {
	start, end = from, from
	for i := from; i < len(lines); i++ {
		if lines[i].op == ' ' {
			continue
		}
		if end == from {
			start = max(from, i-context)
		} else if i-end > context {
			break
		}
		end = min(len(lines), i+1+context)
	}
	return start, end
}

func writeHunk(out *strings.Builder, lines []line, start, end int) {
	var before, counts [2]int // lines of a and b, above and within the hunk
	tally := func(n *[2]int, l line) {
		if l.op != '+' {
			n[0]++
		}
		if l.op != '-' {
			n[1]++
		}
	}
	for _, l := range lines[:start] {
		tally(&before, l)
	}
	for _, l := range lines[start:end] {
		tally(&counts, l)
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", span(before[0], counts[0]), span(before[1], counts[1]))
	for _, l := range lines[start:end] {
		out.WriteString(string(l.op) + l.text)
		if !strings.HasSuffix(l.text, "\n") {
			out.WriteString("\n\\ No newline at end of file\n")
		}
	}
}

// span writes a range as patch(1) reads it: an empty one names the line above.
func span(before, count int) string {
	if count == 0 {
		return fmt.Sprintf("%d,0", before)
	}
	return fmt.Sprintf("%d,%d", before+1, count)
}
