package conntrackdconf

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/sluice-project/sluice/core/pipeline"
)

// A part is a block, or an attribute if it has no header, in the order in
// which the result has them. Its address is made of the ids of those around it
// and its own, as in "local.sink.port". Every block has a place "end" above
// its closing brace, for comments.
type part struct {
	id     string
	header []string
	parts  []part
}

func block(id, header string, parts ...part) part {
	return part{id, strings.Fields(header), append(parts, part{id: "end"})}
}

func attributes(names string) (parts []part) {
	for _, name := range strings.Fields(names) {
		parts = append(parts, part{id: name})
	}
	return parts
}

func set(name string) part { return block(name, name, attributes("accept ignore")...) }

// maxLinks is conntrackd's: more of them it refuses.
const maxLinks = 4

// links are the blocks of redundant links.
func links(names string) (parts []part) {
	for i := range maxLinks {
		parts = append(parts, block(linkID(i), "link", attributes(names+" default")...))
	}
	return parts
}

func linkID(i int) string { return "link" + strconv.Itoa(i) }

// layout is the shape of the result: what has no value is left out.
var layout = []part{
	block("runner", "runner", append(attributes("lock_file"),
		block("control", "control", attributes("path backlog")...),
		block("scheduler", "scheduler", attributes("type priority")...),
		block("log", "log", attributes("file syslog")...))...),
	block("local", "pipeline local",
		block("source", "source netlink", attributes(sourceAttributes)...),
		block("filter", "filter basic", set("protocol"), set("address")),
		block("cache", "cache memory", attributes("limit")...),
		block("state", "filter basic", append(attributes("name"), set("state"))...),
		block("sink", "sink multicast", append(attributes("group destination port interface address send_buffer checksum window_scale"),
			links("group destination port interface address")...)...)),
	block("peers", "pipeline peers",
		block("source", "source multicast", append(attributes("group address port interface receive_buffer coalesce request_resync"),
			links("group address port interface")...)...),
		block("cache", "cache memory", attributes("limit hold")...),
		block("sink", "sink kernel", attributes("scope commit_timeout purge_timeout tcp_window_tracking")...)),
	block("stats", "pipeline stats",
		block("source", "source netlink", attributes(sourceAttributes)...),
		block("filter", "filter basic", set("protocol"), set("address")),
		block("cache", "cache memory", attributes("limit")...),
		block("file", "sink log", attributes("name path")...),
		block("syslog", "sink log", attributes("name syslog")...)),
	{id: "end"},
}

const sourceAttributes = "buffer_size buffer_size_max coalesce reliable overrun_resync poll kernel_filter expectations"

// A slot is what the converter has put at an address.
type slot struct {
	before []Comment
	value  cty.Value // of an attribute, or cty.NilVal
	list   []element // of an attribute that is a list
	tail   []Comment // below the elements
	after  string    // the comment behind it
	wanted bool      // of a block: write it even if it is empty
	header []string  // of a block: instead of the layout's
	setBy  *Node     // nil if no directive said it
}

// An element is one of a list.
type element struct {
	before []Comment
	value  string
	after  string
}

func (s *slot) has() bool { return s.value != cty.NilVal || len(s.list) > 0 || s.wanted }

// A printer writes the slots as HCL.
type printer struct {
	slots map[string]*slot
	body  *hclwrite.Body
}

// print returns the result in canonical layout, under a comment.
func print(header []Comment, slots map[string]*slot) []byte {
	file := hclwrite.NewEmptyFile()
	p := printer{slots, file.Body()}
	p.comments(header)
	p.newline()
	for _, part := range layout {
		p.part(part, part.id)
	}
	return pipeline.Format(file.Bytes())
}

func (p printer) part(t part, address string) {
	s := p.slot(address)
	if s.header != nil {
		t.header = s.header
	}
	switch {
	case t.header == nil:
		p.attribute(t.id, s)
	case p.has(t, address):
		p.newline()
		p.comments(s.before)
		if p.empty(t, address) {
			tokens := hclwrite.NewBlock(t.header[0], t.header[1:]).BuildTokens(nil) // … { \n } \n
			p.tokens(slices.Delete(tokens, len(tokens)-3, len(tokens)-2))
			return
		}
		inner := printer{p.slots, p.body.AppendNewBlock(t.header[0], t.header[1:]).Body()}
		inner.parts(t, address)
		p.newline()
	default: // no block, but comments stay where it would be
		p.comments(s.before)
		p.parts(t, address)
	}
}

func (p printer) parts(t part, address string) {
	for _, inner := range t.parts {
		p.part(inner, address+"."+inner.id)
	}
}

func (p printer) slot(address string) *slot {
	if s := p.slots[address]; s != nil {
		return s
	}
	return &slot{}
}

// has says whether something within a block is to be written.
func (p printer) has(t part, address string) bool {
	return p.slot(address).has() ||
		slices.ContainsFunc(t.parts, func(inner part) bool { return p.has(inner, address+"."+inner.id) })
}

// empty says whether nothing stands within a block, not even a comment.
func (p printer) empty(t part, address string) bool {
	return !slices.ContainsFunc(t.parts, func(inner part) bool {
		at := address + "." + inner.id
		return p.has(inner, at) || len(p.slot(at).before) > 0 || !p.empty(inner, at)
	})
}

func (p printer) attribute(name string, s *slot) {
	if len(s.before) > 0 {
		p.newline()
		p.comments(s.before)
	}
	switch {
	case s.value != cty.NilVal:
		p.tokens(append(hclwrite.TokensForIdentifier(name), equal))
		p.tokens(hclwrite.TokensForValue(s.value))
	case len(s.list) > 0:
		p.tokens(append(hclwrite.TokensForIdentifier(name), equal))
		p.list(s)
	default:
		if len(s.before) > 0 {
			p.newline()
		}
		return
	}
	p.endLine(s.after)
	p.comments(s.tail) // of a list in one line
}

// list writes a list in a line if that is short and nothing is to be said about
// its elements.
func (p printer) list(s *slot) {
	var values []cty.Value
	length, plain := 0, true
	for _, e := range s.list {
		values = append(values, cty.StringVal(e.value))
		length += len(e.value) + len(`"", `)
		plain = plain && len(e.before) == 0 && e.after == ""
	}
	if plain && length < 90 {
		p.tokens(hclwrite.TokensForValue(cty.TupleVal(values)))
		return
	}
	p.tokens(hclwrite.Tokens{{Type: hclsyntax.TokenOBrack, Bytes: []byte("[")}, newline})
	for i, e := range s.list {
		p.comments(e.before)
		p.tokens(append(hclwrite.TokensForValue(values[i]), &hclwrite.Token{Type: hclsyntax.TokenComma, Bytes: []byte(",")}))
		p.endLine(e.after)
	}
	p.comments(s.tail)
	s.tail = nil
	p.tokens(hclwrite.Tokens{{Type: hclsyntax.TokenCBrack, Bytes: []byte("]")}})
}

var (
	equal   = &hclwrite.Token{Type: hclsyntax.TokenEqual, Bytes: []byte("=")}
	newline = &hclwrite.Token{Type: hclsyntax.TokenNewline, Bytes: []byte("\n")}
)

func (p printer) tokens(t hclwrite.Tokens) { p.body.AppendUnstructuredTokens(t) }
func (p printer) newline()                 { p.body.AppendNewline() }

func (p printer) endLine(comment string) {
	if comment == "" {
		p.newline()
		return
	}
	p.comment(comment)
}

func (p printer) comment(text string) {
	p.tokens(hclwrite.Tokens{{Type: hclsyntax.TokenComment, Bytes: []byte(clean(text) + "\n")}})
}

// comments writes comments line by line, without the empty ones that only
// frame others.
func (p printer) comments(all []Comment) {
	for len(all) > 0 {
		n := 1
		for n < len(all) && !all[n].Gap {
			n++
		}
		framed := all[:n]
		for len(framed) > 0 && bare(framed[0]) {
			framed = framed[1:]
		}
		for len(framed) > 0 && bare(framed[len(framed)-1]) {
			framed = framed[:len(framed)-1]
		}
		if len(framed) > 0 && all[0].Gap {
			p.newline()
		}
		for _, c := range framed {
			p.comment(c.Text)
		}
		all = all[n:]
	}
}

func bare(c Comment) bool { return strings.Trim(c.Text, "# \t") == "" }

// clean makes a comment's text fit for HCL, whatever bytes it had.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, "\uFFFD"))
}
