package manual

import (
	"regexp"
	"strings"
)

var (
	comment  = regexp.MustCompile(`(?s)<!--.*?-->\n?`)
	relative = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`)
	heading  = regexp.MustCompile(`^## (.*)$`)
	ourPage  = regexp.MustCompile(`\bdocs/([a-z]+\.md)`)
	divider  = regexp.MustCompile(`^\|[-| :]+\|$`)
)

// forRoff rewrites what a terminal shows badly: tables become lists of their
// first column, links to other pages their text, headings capitals. Code stays.
func forRoff(text string) string {
	var out strings.Builder
	lines := strings.Split(comment.ReplaceAllString(text, ""), "\n")
	code := false
	for i, line := range lines {
		if strings.HasPrefix(line, "```") {
			code = !code
			out.WriteString("```\n") // md2man knows no languages
			continue
		}
		switch {
		case code:
		case divider.MatchString(line), i+1 < len(lines) && divider.MatchString(lines[i+1]):
			continue // the head of a table
		case strings.HasPrefix(line, "|"):
			line = row(line)
		default:
			line = heading.ReplaceAllStringFunc(line, strings.ToUpper)
		}
		if !code {
			line = unlink(line)
		}
		out.WriteString(line + "\n")
	}
	return out.String()
}

// row makes a definition of a table's row.
func row(line string) string {
	const bar = "\x00" // of an escaped one
	var cells []string
	for cell := range strings.SplitSeq(strings.Trim(strings.ReplaceAll(line, `\|`, bar), "|"), "|") {
		if cell = strings.ReplaceAll(strings.TrimSpace(cell), bar, "|"); cell != "" {
			cells = append(cells, cell)
		}
	}
	if len(cells) == 0 {
		return ""
	}
	return "\n" + cells[0] + "\n: " + strings.Join(cells[1:], "; ") + "\n"
}

// unlink leaves the text of links that lead to other pages of the
// documentation.
func unlink(line string) string {
	return relative.ReplaceAllStringFunc(line, func(link string) string {
		parts := relative.FindStringSubmatch(link)
		if strings.Contains(parts[2], "://") {
			return link
		}
		return parts[1]
	})
}

// installed names pages of the documentation where the packages put them.
func installed(text string) string {
	return ourPage.ReplaceAllString(text, "/usr/share/doc/sluice/$1")
}
