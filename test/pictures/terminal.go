package main

import (
	"html"
	"regexp"
	"strconv"
	"strings"
)

// palette has the colours of a terminal, dark ones first.
var palette = strings.Fields("#0d1117 #ff7b72 #3fb950 #d29922 #58a6ff #bc8cff #39c5cf #b1bac4 #6e7681 #ffa198 #56d364 #e3b341 #79c0ff #d2a8ff #56d4dd #f0f6fc")

var escape = regexp.MustCompile("\x1b\\[([0-9;]*)([A-Za-z])")

// terminal makes a page of what a terminal shows, with its colours.
func terminal(screen string) string {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE html><meta charset="utf-8"><style>body{margin:0;background:#0d1117;color:#e6edf3}pre{margin:12px;font:13px/1.35 "DejaVu Sans Mono",monospace}</style><pre>`)
	style, open := map[string]string{}, false
	at := 0
	for _, m := range escape.FindAllStringSubmatchIndex(screen, -1) {
		b.WriteString(html.EscapeString(screen[at:m[0]]))
		at = m[1]
		if screen[m[4]:m[5]] != "m" {
			continue
		}
		restyle(style, strings.Split(screen[m[2]:m[3]], ";"))
		if open {
			b.WriteString("</span>")
		}
		b.WriteString(`<span style="`)
		for name, value := range style {
			b.WriteString(name + ":" + value + ";")
		}
		b.WriteString(`">`)
		open = true
	}
	b.WriteString(html.EscapeString(screen[at:]))
	return b.String()
}

// restyle carries out one escape sequence of a terminal, as far as it is of use.
func restyle(style map[string]string, codes []string) {
	for i := 0; i < len(codes); i++ {
		switch n, _ := strconv.Atoi(codes[i]); {
		case n == 0:
			clear(style)
		case n == 1:
			style["font-weight"] = "bold"
		case n == 2:
			style["opacity"] = ".65"
		case n == 7:
			style["color"], style["background"] = "#0d1117", "#b1bac4"
		case n == 39:
			delete(style, "color")
		case n == 49:
			delete(style, "background")
		case n >= 30 && n < 38:
			style["color"] = palette[n-30]
		case n >= 90 && n < 98:
			style["color"] = palette[n-82]
		case n >= 40 && n < 48:
			style["background"] = palette[n-40]
		case (n == 38 || n == 48) && i+2 < len(codes) && codes[i+1] == "5":
			colour, _ := strconv.Atoi(codes[i+2])
			style[map[int]string{38: "color", 48: "background"}[n]] = indexed(colour)
			i += 2
		case (n == 38 || n == 48) && i+4 < len(codes) && codes[i+1] == "2":
			style[map[int]string{38: "color", 48: "background"}[n]] = "rgb(" + strings.Join(codes[i+2:i+5], ",") + ")"
			i += 4
		}
	}
}

// indexed returns one of a terminal's 256 colours.
func indexed(n int) string {
	switch {
	case n < 16:
		return palette[max(n, 0)]
	case n < 232:
		level := func(v int) string { return strconv.Itoa([]int{0, 95, 135, 175, 215, 255}[v%6]) }
		n -= 16
		return "rgb(" + level(n/36) + "," + level(n/6) + "," + level(n) + ")"
	}
	grey := strconv.Itoa(8 + 10*min(n-232, 23))
	return "rgb(" + grey + "," + grey + "," + grey + ")"
}
