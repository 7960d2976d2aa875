package pipeline

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/json"
	"github.com/zclconf/go-cty/cty"
)

// environPrefix precedes a variable's name in the environment.
const environPrefix = "SLUICE_VAR_"

// A given is a value for a variable from outside of the configuration.
type given struct {
	origin string         // for people: "-var"
	expr   hcl.Expression // from a file; else nil
	text   string         // from the environment or -var
	files  Files          // where text goes, so that diagnostics can show it
}

// givenValues collects the values for the declared variables. What comes later
// wins: environment, files, -var.
func (l *loader) givenValues(declared map[string]*variable) map[string]*given {
	values := map[string]*given{}
	for name := range declared {
		if text, ok := l.scope.environ[environPrefix+name]; ok {
			values[name] = &given{origin: environPrefix + name, text: text, files: l.files}
		}
	}
	known := slices.Sorted(maps.Keys(declared))
	for _, file := range l.options.VariableFiles {
		l.add(l.readVariableFile(file, known, values))
	}
	for _, assignment := range l.options.Variables {
		name, text, ok := strings.Cut(assignment, "=")
		name = strings.TrimSpace(name)
		switch {
		case !ok:
			l.add(hcl.Diagnostics{failure("Invalid -var", fmt.Sprintf(
				"-var %q has no value: write -var NAME=VALUE.", assignment), nil)})
		case declared[name] == nil:
			l.add(hcl.Diagnostics{failure("Unknown variable", fmt.Sprintf("-var %s: there is no variable %q.%s",
				assignment, name, didYouMean(name, known, declaredAre(known))), nil)})
		default:
			values[name] = &given{origin: "-var", text: text, files: l.files}
		}
	}
	return values
}

func declaredAre(known []string) string {
	if len(known) == 0 {
		return " The configuration declares none."
	}
	return " Declared are " + list(known) + "."
}

// readVariableFile reads a file of assignments. Names that are not declared
// are warned of, not refused: one file may serve several configurations.
func (l *loader) readVariableFile(name string, known []string, values map[string]*given) hcl.Diagnostics {
	text, err := os.ReadFile(name)
	if err != nil {
		return hcl.Diagnostics{unreadable(fmt.Errorf("-var-file %s: %w", name, cause(err)))}
	}
	var file *hcl.File
	var diags hcl.Diagnostics
	if strings.HasSuffix(name, ".json") {
		file, diags = json.Parse(text, name)
	} else {
		file, diags = hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	}
	if file != nil {
		l.files[name] = file
	}
	if diags.HasErrors() {
		return diags
	}
	attributes, more := file.Body.JustAttributes()
	diags = append(diags, more...)
	for _, name := range slices.Sorted(maps.Keys(attributes)) {
		a := attributes[name]
		if !slices.Contains(known, name) {
			diags = append(diags, warning("Unknown variable", fmt.Sprintf("There is no variable %q.%s",
				name, didYouMean(name, known, declaredAre(known))), &a.NameRange))
			continue
		}
		values[name] = &given{origin: a.Range.Filename, expr: a.Expr}
	}
	return diags
}

// evaluate returns the value. Text is a string as it stands, so that nobody has
// to quote twice for the shell, unless the variable's type, or without one the
// type of its default, has parts: then it is an HCL expression.
func (g *given) evaluate(v *variable) (cty.Value, hcl.Diagnostics) {
	if g.expr != nil {
		return g.expr.Value(nil)
	}
	typ := v.typ
	if !v.typed && v.fallback != cty.NilVal {
		typ = v.fallback.Type()
	}
	if typ.IsPrimitiveType() || typ == cty.DynamicPseudoType && !v.typed {
		return cty.StringVal(g.text), nil
	}
	name := g.filename(v)
	expr, diags := hclsyntax.ParseExpression([]byte(g.text), name, hcl.InitialPos)
	g.files[name] = &hcl.File{Bytes: []byte(g.text)}
	if diags.HasErrors() {
		return placeholder, diags
	}
	g.expr = expr
	value, more := expr.Value(nil)
	return value, append(diags, more...)
}

func (g *given) filename(v *variable) string { return fmt.Sprintf("<%s for var.%s>", g.origin, v.name) }

// subject is where a diagnostic about the value points.
func (g *given) subject(v *variable) *hcl.Range {
	if g.expr != nil {
		r := g.expr.Range()
		return &r
	}
	return &v.subject
}
