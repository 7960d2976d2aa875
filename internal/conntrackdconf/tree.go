package conntrackdconf

import (
	"strings"

	"github.com/hashicorp/hcl/v2"
)

// A File is a parsed conntrackd.conf.
type File struct {
	Name   string
	Source []byte
	Nodes  []*Node   // its sections
	Header []Comment // at the top, apart from the first section
	End    []Comment // behind the last section
}

// A Node is a directive: a section, a setting, or a value in a list. Its names
// and arguments are as written.
type Node struct {
	Name Word
	Args []Word

	Block bool    // it has braces
	Body  []*Node // what is between them

	Before []Comment // on lines of their own above it
	After  []Comment // on the line of its end or, of a block, its open brace
	Inner  []Comment // above its closing brace
	Gap    bool      // an empty line is above it

	row *row      // what is known about it; nil in lists
	end hcl.Range // its last token
}

// A Word is a name or a value.
type Word struct {
	Text  string
	Range hcl.Range
}

// A Comment is a line's comment, from its # on.
type Comment struct {
	Text string
	Gap  bool // an empty line is above it
}

// Range returns where a directive stands: its name and its arguments.
func (n *Node) Range() hcl.Range {
	if len(n.Args) == 0 {
		return n.Name.Range
	}
	return hcl.RangeBetween(n.Name.Range, n.Args[len(n.Args)-1].Range)
}

// String returns the name and the arguments, and "{ … }" for a block.
func (n *Node) String() string {
	words := []string{n.Name.Text}
	for _, a := range n.Args {
		words = append(words, a.Text)
	}
	if n.Block {
		words = append(words, "{ … }")
	}
	return strings.Join(words, " ")
}

// arg returns the only argument.
func (n *Node) arg() string {
	if len(n.Args) == 0 {
		return ""
	}
	return n.Args[0].Text
}

// find returns the last directive of a name in a block, or nil.
func (n *Node) find(names ...string) (found *Node) {
	for _, b := range n.Body {
		for _, name := range names {
			if b.Name.Text == name {
				found = b
			}
		}
	}
	return found
}

// Files returns the file in the form that diagnostics are shown with.
func (f *File) Files() map[string]*hcl.File {
	return map[string]*hcl.File{f.Name: {Bytes: f.Source, Nav: f}}
}

// ContextString names the sections around a place, for diagnostics.
func (f *File) ContextString(offset int) string {
	var names []string
	for nodes := f.Nodes; ; {
		inside := around(nodes, offset)
		if inside == nil {
			return strings.Join(names, " ")
		}
		names, nodes = append(names, inside.Name.Text), inside.Body
	}
}

// around returns the block between whose braces a place is.
func around(nodes []*Node, offset int) *Node {
	for _, n := range nodes {
		if n.Block && n.Range().End.Byte < offset && offset < n.end.End.Byte {
			return n
		}
	}
	return nil
}
