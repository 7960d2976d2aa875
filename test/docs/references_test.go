package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// Links within the project lead to a file, and to a heading of it.
func TestLinks(t *testing.T) {
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(p.prose, -1) {
			target, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(target, "://") || strings.HasPrefix(target, "mailto:") {
				continue
			}
			path := p.path
			if target != "" {
				path = filepath.Join(filepath.Dir(p.path), target)
			}
			if _, err := os.Stat(filepath.Join(root, path)); err != nil {
				t.Errorf("%s: %s: there is no such file", p.path, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(readPage(t, path)), anchor) {
				t.Errorf("%s: %s: there is no such heading", p.path, m[1])
			}
		}
	}
}

var heading = regexp.MustCompile(`(?m)^#+ +(.+)$`)

// anchors are the names under which GitHub finds the headings.
func anchors(p page) (names []string) {
	text := fence.ReplaceAllString(p.text, "")
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case r == ' ':
				return '-'
			case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r > 0x7f && r != '–' && r != '…' && r != '’':
				return r
			}
			return -1
		}, strings.ToLower(m[1]))
		names = append(names, name)
	}
	return names
}

// Whoever types what a page shows reaches a command that exists.
func TestCommands(t *testing.T) {
	help, err := sluice("help")
	if err != nil {
		t.Fatal(err, help)
	}
	flags := map[string]string{}
	for line := range strings.Lines(help) {
		if name, ok := strings.CutPrefix(line, "  "); ok && name[0] != ' ' && name[0] != '-' && name != "sluice COMMAND\n" {
			name, _, _ = strings.Cut(name, " ")
			if flags[name], err = sluice("help", name); err != nil {
				t.Fatal(err)
			}
		}
	}
	flags["plugin-exec"] = ""
	for _, group := range []string{"plugin"} { // its commands stand for themselves
		for _, m := range regexp.MustCompile(`(?m)^  ([a-z-]+)  `).FindAllStringSubmatch(flags[group], -1) {
			if flags[group+" "+m[1]], err = sluice("help", group, m[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(flags) < 15 {
		t.Fatalf("found the commands %v in\n%s", flags, help)
	}
	for _, p := range pages(t) {
		for _, line := range commandLines(p, "sluice") {
			words := strings.Fields(line)
			if len(words) < 2 || words[1][0] == '-' || strings.Trim(words[1], "A-Z.") == "" {
				continue
			}
			command := words[1]
			if command == "plugin" && len(words) > 2 {
				command += " " + words[2]
			}
			text, known := flags[command]
			if !known {
				t.Errorf("%s: `%s`: there is no command %s", p.path, line, command)
			}
			for _, word := range words[2:] {
				name, _, _ := strings.Cut(strings.TrimLeft(word, "-"), "=")
				if len(word) > 1 && word[0] == '-' && name != "" && known && words[1] != "plugin-exec" &&
					!regexp.MustCompile(`(^|\s)--?`+regexp.QuoteMeta(name)+`\b`).MatchString(text) {
					t.Errorf("%s: `%s`: %s has no flag %s", p.path, line, command, word)
				}
			}
		}
	}
}

var makeTarget = regexp.MustCompile(`(?m)^([a-z-]+):`)

func TestMakeTargets(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	var targets []string
	for _, m := range makeTarget.FindAllStringSubmatch(string(makefile), -1) {
		targets = append(targets, m[1])
	}
	seen := 0
	for _, p := range pages(t) {
		for _, line := range commandLines(p, "make") {
			for _, word := range strings.Fields(line)[1:] {
				if strings.HasPrefix(word, "#") {
					break
				}
				if seen++; !strings.Contains(word, "=") && !slices.Contains(targets, word) {
					t.Errorf("%s: `%s`: the Makefile has no target %s", p.path, line, word)
				}
			}
		}
	}
	if seen < 5 {
		t.Errorf("only %d targets are named", seen)
	}
}

var commandLine = regexp.MustCompile(`(?:^|[\s"=|])(?:/usr/sbin/|bin/|\./)?(sluice|make)( [^"|&;]*)?`)

// commandLines returns what a page shows of a command: inline code that begins
// with it, and lines of shell and of configuration that run it.
func commandLines(p page, name string) (lines []string) {
	for _, s := range p.spans {
		if s == name || strings.HasPrefix(s, name+" ") {
			lines = append(lines, s)
		}
	}
	for _, b := range p.blocks {
		if b.language == "go" || b.language == "hcl" || b.language == "gomod" {
			continue
		}
		for line := range strings.Lines(b.text) {
			m := commandLine.FindStringSubmatch(strings.TrimSpace(line))
			starts := regexp.MustCompile(`^\s*([$#] )?(/usr/sbin/|bin/|\./)?` + name + `( |$)`).MatchString(line)
			runs := strings.Contains(line, "/usr/sbin/"+name+" ")
			if m != nil && m[1] == name && (starts || runs) {
				before, _, _ := strings.Cut(m[2], " #")
				lines = append(lines, name+strings.TrimRight(before, " "))
			}
		}
	}
	return lines
}

// A reference is inline code like `core/runner/watch.go`, with an identifier as
// in `core/runner/watch.go:watch`, and perhaps a constant's value, as in
// `core/runner/watch.go:hangTimeout = 3 * time.Second`.
var reference = regexp.MustCompile(`^([a-zA-Z0-9_./-]+\.(?:go|md|hcl|proto))(?::([A-Za-z0-9_.]+)(?: = (.+))?)?$`)

func TestReferencesIntoTheCode(t *testing.T) {
	identifiers, constants := 0, 0
	for _, p := range pages(t) {
		for _, s := range p.spans {
			m := reference.FindStringSubmatch(s)
			if m == nil || !strings.Contains(m[1], "/") || strings.HasPrefix(m[1], "/") {
				continue
			}
			path := filepath.Join(root, m[1])
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: `%s`: there is no such file", p.path, s)
				continue
			}
			if m[2] == "" {
				continue
			}
			declared, err := declarations(path)
			if err != nil {
				t.Fatal(err)
			}
			value, ok := declared[m[2]]
			switch identifiers++; {
			case !ok:
				t.Errorf("%s: `%s`: %s does not declare %s", p.path, s, m[1], m[2])
			case m[3] != "" && m[3] != value:
				t.Errorf("%s: `%s`: it is %s", p.path, s, value)
			case m[3] != "":
				constants++
			}
		}
	}
	if identifiers < 20 || constants < 10 {
		t.Errorf("only %d identifiers and %d constants are named", identifiers, constants)
	}
}

// declarations returns what a file declares at its top level, methods as
// Type.Method, with the expression of constants.
func declarations(path string) (map[string]string, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	found := map[string]string{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
			found[name] = ""
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				switch spec := spec.(type) {
				case *ast.TypeSpec:
					found[spec.Name.Name] = ""
				case *ast.ValueSpec:
					for i, name := range spec.Names {
						var text strings.Builder
						if i < len(spec.Values) {
							_ = printer.Fprint(&text, files, spec.Values[i])
						}
						found[name.Name] = text.String()
					}
				}
			}
		}
	}
	return found, nil
}

func receiver(e ast.Expr) string {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if name, ok := e.(*ast.Ident); ok {
		return name.Name
	}
	return ""
}
