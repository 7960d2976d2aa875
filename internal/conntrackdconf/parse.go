package conntrackdconf

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// Parse makes a tree of a file. With errors among the diagnostics the tree has
// what could be understood; File.Files shows their lines.
func Parse(name string, source []byte) (*File, hcl.Diagnostics) {
	p := &parser{file: &File{Name: name, Source: source}, tokens: Lex(name, source)}
	p.end.Filename, p.end.Start, p.end.End = name, hcl.InitialPos, hcl.InitialPos
	if n := len(p.tokens); n > 0 {
		p.end = p.tokens[n-1].Range
	}
	p.skip()
	p.file.Nodes = p.directives("", nil)
	p.file.End = p.comments
	p.takeHeader()
	return p.file, p.diags
}

// A parser walks over the tokens. Newlines mean nothing in this language, but
// for comments, and for where to go on after an error.
type parser struct {
	file   *File
	tokens []Token
	at     int
	end    hcl.Range // the last token of all
	diags  hcl.Diagnostics

	last     *Node     // what a comment on this line belongs to
	comments []Comment // seen since the last directive, for the next
	newlines int       // in a row, before at
}

func (p *parser) fail(where hcl.Range, summary, format string, args ...any) {
	p.diags = append(p.diags, &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &where,
	})
}

// skip goes to the next word or brace and keeps the comments on the way.
func (p *parser) skip() {
	for ; p.at < len(p.tokens); p.at++ {
		switch t := p.tokens[p.at]; t.Type {
		case TokenNewline:
			p.newlines++
		case TokenComment:
			c := Comment{Text: strings.TrimRight(string(t.Bytes), blanks), Gap: p.newlines > 1}
			if p.newlines == 0 && p.last != nil {
				p.last.After = append(p.last.After, c)
			} else {
				p.comments = append(p.comments, c)
			}
			p.newlines = 0
			p.last = nil
		case TokenSpace:
		default:
			return
		}
	}
}

// next passes over a word or a brace, which belongs to n.
func (p *parser) next(n *Node) Token {
	t := p.tokens[p.at]
	p.at++
	p.last, p.newlines = n, 0
	p.skip()
	return t
}

// is says whether the next token is of a kind.
func (p *parser) is(kind TokenType) bool {
	return p.at < len(p.tokens) && p.tokens[p.at].Type == kind
}

// directives reads what stands in a section, up to its brace or to the end.
func (p *parser) directives(section string, s *syntax) (nodes []*Node) {
	for p.at < len(p.tokens) {
		switch {
		case p.is(TokenClose) && section != "":
			return nodes
		case p.is(TokenClose):
			p.fail(p.tokens[p.at].Range, "Unexpected brace", "There is no section for this brace to end. Remove it, or look above for one too many.")
			p.next(nil)
		case p.is(TokenOpen):
			p.fail(p.tokens[p.at].Range, "Unexpected brace", "A brace stands behind the name of a section. Write the name before it, or remove it.")
			p.skipBlock()
		case s != nil && s.list:
			nodes = append(nodes, p.item(s))
		default:
			if n := p.directive(section); n != nil {
				nodes = append(nodes, n)
			}
		}
	}
	return nodes
}

// begin makes a node of the next word.
func (p *parser) begin() *Node {
	n := &Node{Before: p.comments, Gap: p.newlines > 1}
	p.comments = nil
	t := p.next(n)
	n.Name, n.end = p.word(t), t.Range
	return n
}

func (p *parser) word(t Token) Word {
	text := string(t.Bytes)
	if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		p.fail(t.Range, "Bad character", "There is a character here that can't be printed. Perhaps this is no conntrackd.conf.")
	}
	return Word{text, t.Range}
}

// item reads a value of a list.
func (p *parser) item(s *syntax) *Node {
	n := p.begin()
	if !matches(s.items, n.Name.Text) {
		p.fail(n.Name.Range, "Bad value in "+s.name, "%q can't stand here. %s", n.Name.Text, s.explain())
	}
	return n
}

// directive reads one directive with its arguments and its block, or passes
// over one that is not known.
func (p *parser) directive(section string) *Node {
	n := p.begin()
	if n.row = lookup(section, n.Name.Text); n.row == nil {
		p.unknown(section, n)
		p.skipStatement(n)
		return nil
	}
	s := &n.row.syntax
	if !p.arguments(n, s) {
		p.skipStatement(n)
		return n
	}
	if s.block && !(s.instead && len(n.Args) > 0) {
		p.block(n, within(section, s.name))
	}
	return n
}

// arguments reads what stands behind a name, and says whether it was right.
func (p *parser) arguments(n *Node, s *syntax) bool {
	for i, a := range s.args {
		given := p.is(TokenWord)
		if given && matches(a.alternatives, string(p.tokens[p.at].Bytes)) {
			t := p.next(n)
			n.Args, n.end = append(n.Args, p.word(t)), t.Range
			continue
		}
		first := i == 0 || !s.args[i-1].optional
		switch onLine := given && p.newlines == 0 && p.last == n; {
		case a.optional && first && (!onLine || !s.block):
			return true
		case s.instead && p.is(TokenOpen):
			return true
		case onLine:
			p.fail(p.tokens[p.at].Range, "Bad value of "+s.name, "%q can't stand here. %s", p.tokens[p.at].Bytes, s.explain())
			return false
		}
		p.fail(n.Range(), "Incomplete "+s.name, "Something is missing. %s", s.explain())
		return true // what follows is another directive, or the block
	}
	return true
}

// block reads what stands between braces.
func (p *parser) block(n *Node, section string) {
	if !p.is(TokenOpen) {
		p.fail(n.Range(), "Missing brace", "A block begins with a brace. %s", n.row.syntax.explain())
		return
	}
	n.Block = true
	p.next(n)
	n.Body = p.directives(section, &n.row.syntax)
	n.Inner, p.comments = p.comments, nil
	n.end = p.end
	if !p.is(TokenClose) {
		p.fail(n.Range(), "Block without an end", "The file ends before this block does. Put a } behind its last line.")
		return
	}
	n.end = p.next(n).Range
	if last := len(n.Body) - 1; n.row.syntax.name == "State" && last >= 0 &&
		(last < 2 || n.Body[last-1].Name.Text != "for" || n.Body[last].Name.Text != "TCP") {
		p.fail(n.Body[last].Name.Range, "Incomplete State", "The list must end with `for TCP`. %s", n.row.syntax.explain())
	}
}

// unknown complains of a name, with what was perhaps meant.
func (p *parser) unknown(section string, n *Node) {
	where := "at the top of the file"
	if section != "" {
		where = "in " + strings.ReplaceAll(section, "/", " ")
	}
	name, known := n.Name.Text, namesIn(section)
	advice := "Known there: " + strings.Join(known, ", ") + "."
	if elsewhere := sectionsOf(name); len(elsewhere) > 0 {
		advice = "It belongs into " + strings.ReplaceAll(strings.Join(elsewhere, " or "), "/", " ") + "."
	} else if near := nearest(name, known); near != "" {
		advice = fmt.Sprintf("Did you mean %q?", near)
	}
	p.fail(n.Name.Range, "Unknown directive", "There is no %q %s. %s", name, where, advice)
}

// nearest returns the name that differs least, if by no more than a slip.
func nearest(name string, known []string) (found string) {
	least := 3
	if len(name) > 64 { // no slip, and a distance costs its square
		return ""
	}
	for _, k := range known {
		if d := levenshtein.Distance(strings.ToLower(k), strings.ToLower(name), nil); d < least && d <= len(k)/2 {
			found, least = k, d
		}
	}
	return found
}

// skipStatement passes over the rest of a line and over a block that begins
// there.
func (p *parser) skipStatement(n *Node) {
	for p.is(TokenWord) && p.newlines == 0 {
		p.next(n)
	}
	if p.is(TokenOpen) {
		p.skipBlock()
	}
}

// skipBlock passes over a block, however deep.
func (p *parser) skipBlock() {
	for depth := 0; p.at < len(p.tokens); {
		switch {
		case p.is(TokenOpen):
			depth++
		case p.is(TokenClose):
			depth--
		}
		p.next(nil)
		if depth == 0 {
			break
		}
	}
	p.comments = nil
}

// takeHeader parts the comments at the top of the file from those of the first
// section, where an empty line is between them.
func (p *parser) takeHeader() {
	if len(p.file.Nodes) == 0 {
		return
	}
	first := p.file.Nodes[0]
	cut := len(first.Before)
	if !first.Gap {
		cut = 0
		for i, c := range slices.Backward(first.Before) {
			if c.Gap && i > 0 {
				cut = i
				break
			}
		}
	}
	p.file.Header, first.Before = first.Before[:cut], first.Before[cut:]
}
