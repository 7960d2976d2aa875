package conntrackdconf

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// A Result is a configuration of Sluice that does what a conntrackd.conf did.
type Result struct {
	// HCL is the configuration in canonical layout, or nil if Notes has errors.
	HCL []byte

	// Notes name, by line, what has no counterpart (warnings), and what keeps
	// the file from being converted at all (errors).
	Notes hcl.Diagnostics

	// Lost counts the notes about things that conntrackd did and Sluice does
	// not. The other warnings are about what is not needed here.
	Lost int
}

// Convert writes a file without errors as a configuration of Sluice.
func Convert(f *File) Result {
	c := &converter{file: f, slots: map[string]*slot{}}
	c.survey()
	for _, n := range f.Nodes {
		n.row.convert(c, n)
	}
	c.finish()
	slices.SortStableFunc(c.notes, func(a, b *hcl.Diagnostic) int { return line(a) - line(b) })
	r := Result{Notes: c.notes, Lost: c.lost}
	if !c.notes.HasErrors() {
		r.HCL = print(f.Header, c.slots)
	}
	return r
}

func line(d *hcl.Diagnostic) int {
	if d.Subject == nil {
		return math.MaxInt
	}
	return d.Subject.Start.Line
}

// A converter fills the slots of the layout.
type converter struct {
	file  *File
	slots map[string]*slot
	notes hcl.Diagnostics
	lost  int

	// What must be known before anything is converted.
	synchronizes    bool    // there is a Sync
	collects        bool    // there is a Stats
	active          *Node   // the link that is used first
	links           []*Node // those that become one: of the same kind as the active one
	noInternalCache bool
	noExternalCache bool
}

// survey finds the directives that change what others mean.
func (c *converter) survey() {
	isOn := func(n *Node) bool { return n != nil && on(n.arg()) }
	for _, s := range c.file.Nodes {
		c.collects = c.collects || s.Name.Text == "Stats"
		if s.Name.Text != "Sync" {
			continue
		}
		c.synchronizes = true
		c.noExternalCache = c.noExternalCache || isOn(s.find("CacheWriteThrough"))
		if m := s.find("Mode"); m != nil {
			c.noInternalCache = c.noInternalCache || isOn(m.find("DisableInternalCache"))
			c.noExternalCache = c.noExternalCache || isOn(m.find("DisableExternalCache"))
		}
		for _, n := range s.Body {
			if isLink(n) && (c.active == nil || len(n.Args) > 0) {
				c.active = n
			}
		}
	}
	for _, s := range c.file.Nodes {
		for _, n := range s.Body {
			if isLink(n) && n.Name.Text == c.active.Name.Text {
				c.links = append(c.links, n)
			}
		}
	}
}

// here returns the address in the layout of what a directive of a link becomes:
// in the stage's block, or in the link's own where there are several.
func (c *converter) here(n *Node, address string) string {
	stage, attribute := address[:strings.LastIndexByte(address, '.')], address[strings.LastIndexByte(address, '.')+1:]
	if len(c.links) < 2 || stage != "local.sink" && stage != "peers.source" || strings.HasSuffix(attribute, "_buffer") || attribute == "checksum" {
		return address
	}
	for i, link := range c.links {
		if slices.Contains(link.Body, n) || link == n {
			return stage + "." + linkID(i) + "." + attribute
		}
	}
	return address
}

// repeats says whether a directive of a link says for the second time what is the
// same for all links, and notes it if it says another thing than the active one's.
func (c *converter) repeats(n *Node) bool {
	common := strings.HasSuffix(n.Name.Text, "SocketBuffer") || n.Name.Text == "Checksum"
	if len(c.links) < 2 || !common || slices.Contains(c.active.Body, n) {
		return false
	}
	for _, link := range c.links {
		if slices.Contains(link.Body, n) {
			first := c.active.find(n.Name.Text)
			if first == nil || first.arg() != n.arg() {
				address := "local.sink.end"
				c.keep(n, address, "no counterpart: it is the same for all links")
				c.miss(n, "it is the same for all links", "The link that is used first says it. Correct it there if it is to be another.")
			}
			return true
		}
	}
	return false
}

func isLink(n *Node) bool {
	return n.Name.Text == "Multicast" || n.Name.Text == "UDP" || n.Name.Text == "TCP"
}

// on says whether a word is on or yes, as against off or no.
func on(word string) bool { return fits("on", word) || fits("yes", word) }

func (c *converter) slot(address string) *slot {
	s := c.slots[address]
	if s == nil {
		s = &slot{}
		c.slots[address] = s
	}
	return s
}

// comment puts comments above what is at an address, apart from others there.
func (c *converter) comment(address string, comments ...Comment) {
	s := c.slot(address)
	for i, comment := range comments {
		if i == 0 && len(s.before) > 0 {
			comment.Gap = true
		}
		s.before = append(s.before, comment)
	}
}

// set gives an attribute the value that a directive says, and the directive's
// comments.
func (c *converter) set(n *Node, address string, value cty.Value) {
	s := c.slot(address)
	if old := s.setBy; old != nil && old != n {
		c.keep(old, address, fmt.Sprintf("given again in line %d, which counts", n.Name.Range.Start.Line))
		c.note(old, "Superseded: "+old.Name.Text, "It is given again in line %d, which counts. Remove one of the two.", n.Name.Range.Start.Line)
	}
	c.comment(address, n.Before...)
	s.value, s.after, s.setBy = value, trailing(n), n
}

// also gives one more attribute a value.
func (c *converter) also(address string, value cty.Value) { c.slot(address).value = value }

// standard gives an attribute a value that the file leaves to conntrackd, if
// no directive gave it one.
func (c *converter) standard(address string, value cty.Value, why string) {
	s := c.slot(address)
	if s.value != cty.NilVal {
		return
	}
	if s.value = value; why != "" {
		s.after = "# " + why
	}
}

func (c *converter) want(addresses ...string) {
	for _, a := range addresses {
		c.slot(a).wanted = true
	}
}

// trailing returns the comments behind a directive as one.
func trailing(n *Node) string {
	var texts []string
	for _, comment := range n.After {
		texts = append(texts, comment.Text)
	}
	return strings.Join(texts, " ")
}

// about puts the comments of a directive that has no value above an address.
func (c *converter) about(n *Node, address string) {
	c.comment(address, n.Before...)
	c.comment(address, n.After...)
}

// keep writes a directive that becomes nothing as a comment, with its own.
func (c *converter) keep(n *Node, address, why string) {
	if why != "" {
		why = " (" + why + ")"
	}
	c.comment(address, n.Before...)
	if !n.Block {
		text := strings.TrimRight("# "+n.String()+why+" "+trailing(n), " ")
		c.slot(address).before = append(c.slot(address).before, Comment{Text: text, Gap: len(n.Before) == 0})
		return
	}
	c.comment(address, Comment{Text: "# " + n.Name.Text + why + ":", Gap: true}, Comment{Text: "#"})
	for _, line := range c.sourceLines(n) {
		c.slot(address).before = append(c.slot(address).before, Comment{Text: strings.TrimRight("# "+line, " ")})
	}
}

// sourceLines returns the lines of a block with its comments, indented as if it
// began at the margin.
func (c *converter) sourceLines(n *Node) (lines []string) {
	start := n.Name.Range.Start.Byte
	source := c.file.Source
	margin := source[strings.LastIndexByte(string(source[:start]), '\n')+1 : start]
	for line := range strings.Lines(string(source[start:n.end.End.Byte])) {
		line = strings.TrimRight(strings.TrimPrefix(line, string(margin)), blanks+"\n")
		lines = append(lines, strings.ReplaceAll(line, "\t", "  "))
	}
	for i, comment := range n.After { // those behind the open brace are in the source
		if !strings.Contains(strings.Join(lines, "\n"), comment.Text) {
			lines[len(lines)-1] += " " + n.After[i].Text
		}
	}
	return lines
}

func (c *converter) note(n *Node, summary, format string, args ...any) {
	where := n.Range()
	c.notes = append(c.notes, &hcl.Diagnostic{
		Severity: hcl.DiagWarning, Summary: summary, Detail: fmt.Sprintf(format, args...), Subject: &where,
	})
}

// miss notes something that conntrackd did and Sluice does not.
func (c *converter) miss(n *Node, why, instead string) {
	c.lost++
	c.note(n, "No counterpart: "+n.Name.Text, "%s", sentence(why)+" "+instead)
}

// fail notes what keeps the file from being converted.
func (c *converter) fail(n *Node, summary, format string, args ...any) {
	c.note(n, summary, format, args...)
	c.notes[len(c.notes)-1].Severity = hcl.DiagError
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

// nothing says that a file has neither Sync nor Stats.
func nothing(f *File) *hcl.Diagnostic {
	d := &hcl.Diagnostic{
		Severity: hcl.DiagError, Summary: "Nothing to convert",
		Detail: "The file has neither a Sync nor a Stats section: this conntrackd replicates nothing and logs nothing. Keep it.",
	}
	if len(f.Nodes) > 0 {
		where := f.Nodes[0].Range()
		d.Subject = &where
	}
	return d
}
