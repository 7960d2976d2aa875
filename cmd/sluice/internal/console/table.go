package console

import (
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Width is the number of columns that nothing exceeds.
const Width = 120

// A style is an ANSI escape sequence; "" is none.
type style string

const (
	plain  style = ""
	bold   style = "\x1b[1m"
	faint  style = "\x1b[2m"
	red    style = "\x1b[31m"
	yellow style = "\x1b[33m"
	green  style = "\x1b[32m"
	reset        = "\x1b[0m"
)

// A cell is text in a style.
type cell struct {
	text  string
	style style
}

// cells makes plain cells.
func cells(texts ...string) (row []cell) {
	for _, t := range texts {
		row = append(row, cell{text: t})
	}
	return row
}

// A table is aligned when it is written: numbers to the right (right has their
// columns), the rest to the left. A row of one cell is a line of its own.
type table struct {
	titles []string
	right  map[int]bool
	rows   [][]cell
}

func (t *table) add(row ...cell) { t.rows = append(t.rows, row) }

// A screen writes lines, in colour or not.
type screen struct {
	out   io.Writer
	color bool
	err   error
}

func (s *screen) printf(format string, args ...any) {
	if s.err == nil {
		_, s.err = fmt.Fprintf(s.out, format, args...)
	}
}

// paint styles text that is cut and padded already.
func (s *screen) paint(text string, st style) string {
	if !s.color || st == plain {
		return text
	}
	return string(st) + text + reset
}

// table writes t with two spaces before and between its columns.
func (s *screen) table(t *table) {
	widths := t.widths()
	var titles []cell
	for _, title := range t.titles {
		titles = append(titles, cell{title, faint})
	}
	s.row(t, widths, titles)
	for _, row := range t.rows {
		if len(row) == 1 {
			s.printf("%s\n", s.paint(cut(row[0].text, Width), row[0].style))
			continue
		}
		s.row(t, widths, row)
	}
}

func (t *table) widths() []int {
	widths := make([]int, len(t.titles))
	for i, title := range t.titles {
		widths[i] = utf8.RuneCountInString(title)
	}
	for _, row := range t.rows {
		for i, c := range row {
			if len(row) > 1 {
				widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
			}
		}
	}
	return widths
}

// row writes the cells of a row. What does not fit into Width is cut: the last
// column holds what may be long.
func (s *screen) row(t *table, widths []int, row []cell) {
	var line strings.Builder
	used := 0
	for i, c := range row {
		last := i == len(row)-1
		text := cut(c.text, max(Width-used-2, 1))
		gap := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(text), 0))
		line.WriteString("  ")
		switch {
		case t.right[i]:
			line.WriteString(gap + s.paint(text, c.style))
		case last:
			line.WriteString(s.paint(text, c.style))
		default:
			line.WriteString(s.paint(text, c.style) + gap)
		}
		used += 2 + widths[i]
	}
	s.printf("%s\n", strings.TrimRight(line.String(), " "))
}

// cut is Cut with a width that is more than 0.
func cut(text string, width int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:width-1]) + "…"
}

// Cut shortens text to width columns, and makes one line of it that moves no
// cursor: what a peer or a plugin said is not for the terminal to obey.
func Cut(text string, width int) string { return cut(text, max(width, 1)) }
