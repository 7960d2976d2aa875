package pipeline

import (
	"bytes"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
)

// Parse parses one file's text without checking what it says, so that syntax
// can be complained of before a file is formatted.
func Parse(name string, text []byte) (Files, hcl.Diagnostics) {
	file, diags := hclsyntax.ParseConfig(text, name, hcl.InitialPos)
	return Files{name: file}, diags
}

// Format returns a file's text in canonical layout: HCL's indentation and
// alignment, labels in quotes, no "${…}" around a lone expression, Unix line
// ends, no blank lines at either end of the file or of a block and never two
// in a row, and one newline at the end. Formatting twice changes nothing more.
// Text with errors of syntax is returned as it is.
func Format(text []byte) []byte {
	end := append(bytes.Clone(bytes.TrimRight(text, " \t\r\n")), '\n')
	file, diags := hclwrite.ParseConfig(end, "", hcl.InitialPos)
	if diags.HasErrors() {
		return text
	}
	tidyBody(file.Body())
	// Bytes joins the tokens of the changed tree; what follows needs them anew.
	tokens := tokensOf(hclwrite.Format(file.Bytes()))
	text = bytes.TrimRight(hclwrite.Format(tidyLines(tokens).Bytes()), "\n")
	if len(text) == 0 {
		return text
	}
	return append(text, '\n')
}

func tokensOf(text []byte) hclwrite.Tokens {
	file, diags := hclwrite.ParseConfig(text, "", hcl.InitialPos)
	if diags.HasErrors() {
		return hclwrite.Tokens{{Bytes: text}}
	}
	return file.BuildTokens(nil)
}

// tidyBody quotes labels and unwraps expressions.
func tidyBody(body *hclwrite.Body) {
	for name, a := range body.Attributes() {
		tokens := a.Expr().BuildTokens(nil)
		if bare := unwrap(tokens); bare != nil {
			body.SetAttributeRaw(name, bare)
		}
	}
	for _, b := range body.Blocks() {
		b.SetLabels(b.Labels())
		tidyBody(b.Body())
	}
}

// unwrap returns the tokens between "${ and }" if the expression is nothing
// else, and nil otherwise.
func unwrap(tokens hclwrite.Tokens) hclwrite.Tokens {
	last := len(tokens) - 1
	if last < 4 || tokens[0].Type != hclsyntax.TokenOQuote || tokens[1].Type != hclsyntax.TokenTemplateInterp ||
		tokens[last-1].Type != hclsyntax.TokenTemplateSeqEnd || tokens[last].Type != hclsyntax.TokenCQuote {
		return nil
	}
	inside := tokens[2 : last-1]
	for _, t := range inside {
		switch t.Type {
		case hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateSeqEnd,
			hclsyntax.TokenTemplateControl, hclsyntax.TokenNewline:
			return nil // perhaps two templates side by side: leave it
		}
	}
	return inside
}

// tidyLines removes carriage returns at line ends and superfluous blank lines.
// Newlines within heredocs are text, not tokens, and stay.
func tidyLines(tokens hclwrite.Tokens) (kept hclwrite.Tokens) {
	blank, opened := 1, true // newlines in a row; whether a brace or the file's start is before them
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenNewline:
			t.Bytes = []byte("\n")
			if blank++; blank > 2 || blank > 1 && opened {
				continue
			}
		case hclsyntax.TokenComment:
			if t.Bytes[0] != '/' || t.Bytes[1] != '*' { // a line comment's token has its newline
				line := bytes.TrimRight(t.Bytes, " \t\r\n")
				if len(line) < len(t.Bytes) && bytes.HasSuffix(t.Bytes, []byte("\n")) {
					line = append(bytes.Clone(line), '\n')
				}
				t.Bytes, blank, opened = line, 1, false
				break
			}
			blank, opened = 0, false
		case hclsyntax.TokenCBrace:
			if blank > 1 && len(kept) > 0 && kept[len(kept)-1].Type == hclsyntax.TokenNewline {
				kept = kept[:len(kept)-1]
			}
			blank, opened = 0, false
		default:
			blank, opened = 0, t.Type == hclsyntax.TokenOBrace
		}
		kept = append(kept, t)
	}
	return kept
}
